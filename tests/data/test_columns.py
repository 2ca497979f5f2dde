import pytest
from datasets import ClassLabel, Features, Image, Value

from topospike.data.columns import described, image_column, label_column
from topospike.errors import MissingDataError

TWO = ClassLabel(names=["a", "b"])
PLACE = "split 'train' of 'x'"


@pytest.mark.parametrize(
    ("features", "image", "label"),
    [
        ({"img": Image(), "label": TWO}, "img", "label"),
        ({"img": Image(), "fine_label": TWO, "coarse_label": TWO}, "img", "fine_label"),
        ({"image": Image(), "label": TWO}, "image", "label"),
        ({"scan": Image(), "digit": TWO}, "scan", "digit"),
        ({"image": Image(), "thumbnail": Image(), "label": Value("int64")}, "image", "label"),
        (
            {"img": {"bytes": Value("binary"), "path": Value("string")}, "label": TWO},
            "img",
            "label",
        ),
        (
            {"image": Value("binary"), "target": Value("uint8"), "id": Value("int64")},
            "image",
            "target",
        ),
        ({"image": Image(), "label": Value("string"), "kind": TWO}, "image", "kind"),
    ],
)
def test_found_by_type_then_by_name(features, image, label):
    features = Features(features)
    assert image_column(features, None, place=PLACE) == image
    assert label_column(features, None, place=PLACE) == label


def test_named_column_wins():
    features = Features({"img": Image(), "fine_label": TWO, "coarse_label": TWO})
    assert label_column(features, "coarse_label", place=PLACE) == "coarse_label"


def test_missing_column_lists_and_suggests():
    features = Features({"img": Image(), "fine_label": TWO})
    with pytest.raises(MissingDataError) as caught:
        label_column(features, "fine_lable", place=PLACE)
    message = str(caught.value)
    assert "data.label_column = 'fine_lable' is not a column of split 'train' of 'x'" in message
    assert "img (Image), fine_label (ClassLabel)" in message
    assert "Did you mean 'fine_label'?" in message


def test_named_column_of_the_wrong_type():
    features = Features({"img": Image(), "label": TWO, "text": Value("string")})
    with pytest.raises(MissingDataError, match="type ClassLabel, which holds no images"):
        image_column(features, "label", place=PLACE)
    with pytest.raises(MissingDataError, match="type string, which holds no classes"):
        label_column(features, "text", place=PLACE)


def test_no_column_and_several():
    with pytest.raises(MissingDataError, match=r"no image column\. Columns: text \(string\)"):
        image_column(Features({"text": Value("string")}), None, place=PLACE)
    several = Features({"a": Image(), "b": Image()})
    with pytest.raises(
        MissingDataError, match=r"several image columns \(a, b\).*data.image_column"
    ):
        image_column(several, None, place=PLACE)


def test_described():
    assert described(Features({"n": Value("int64"), "img": Image()})) == "n (int64), img (Image)"

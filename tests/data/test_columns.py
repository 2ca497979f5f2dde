import pytest
from datasets import ClassLabel, Features, Image, Value

from topospike.data.hub import described, find_column
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
    assert find_column(features, "image", None, place=PLACE) == image
    assert find_column(features, "label", None, place=PLACE) == label


def test_named_column_wins():
    features = Features({"img": Image(), "fine_label": TWO, "coarse_label": TWO})
    assert find_column(features, "label", "coarse_label", place=PLACE) == "coarse_label"


def test_missing_column_lists_and_suggests():
    features = Features({"img": Image(), "fine_label": TWO})
    with pytest.raises(MissingDataError) as caught:
        find_column(features, "label", "fine_lable", place=PLACE)
    message = str(caught.value)
    assert "data.label_column = 'fine_lable' is not a column of split 'train' of 'x'" in message
    assert "img (Image), fine_label (ClassLabel)" in message
    assert "Did you mean 'fine_label'?" in message


def test_named_column_of_the_wrong_type():
    features = Features({"img": Image(), "label": TWO, "text": Value("string")})
    with pytest.raises(MissingDataError, match="type ClassLabel, which holds no images"):
        find_column(features, "image", "label", place=PLACE)
    with pytest.raises(MissingDataError, match="type string, which holds no classes"):
        find_column(features, "label", "text", place=PLACE)


def test_no_column_and_several():
    with pytest.raises(MissingDataError, match=r"no image column\. Columns: text \(string\)"):
        find_column(Features({"text": Value("string")}), "image", None, place=PLACE)
    several = Features({"a": Image(), "b": Image()})
    with pytest.raises(
        MissingDataError, match=r"several image columns \(a, b\).*data.image_column"
    ):
        find_column(several, "image", None, place=PLACE)


def test_described():
    assert described(Features({"n": Value("int64"), "img": Image()})) == "n (int64), img (Image)"

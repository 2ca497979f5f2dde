import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from topospike.data.hub import find_source, open_source
from topospike.errors import MissingDataError
from topospike.recipe import DataSettings


def opened(folder, **options):
    return open_source(DataSettings(source=str(folder), **options))


def test_parquet_folder_like_cifar10(parquet_folder, written_pictures):
    splits = opened(parquet_folder())
    assert (splits.classes, splits.label_names) == (3, ("label0", "label1", "label2"))
    for split, count, seed in ((splits.train, 24, 0), (splits.test, 9, 1)):
        images = split.decoded()
        expected = torch.from_numpy(written_pictures(count, seed=seed)).permute(0, 3, 1, 2)
        assert torch.equal(images.pixels, expected)
        assert images.labels.tolist() == [i % 3 for i in range(count)]


def test_parquet_folder_like_cifar100(parquet_folder):
    folder = parquet_folder(labels={"fine_label": 6, "coarse_label": 2})
    assert opened(folder).classes == 6
    coarse = opened(folder, label_column="coarse_label")
    assert coarse.classes == 2
    assert coarse.train.labels.tolist() == [i % 2 for i in range(24)]


def test_parquet_folder_like_imagenet_with_differing_sizes(tmp_path, written_pictures):
    from datasets import ClassLabel, Dataset, Features, Image
    from PIL import Image as Pillow

    (tmp_path / "imagenet").mkdir()
    features = Features({"image": Image(), "label": ClassLabel(num_classes=4)})
    for split in ("train", "validation"):
        sizes = [(40 + i, 60 - i) for i in range(8)]
        images = [Pillow.fromarray(written_pictures(1, size=size)[0]) for size in sizes]
        images[3] = images[3].convert("L")
        table = {"image": images, "label": [i % 4 for i in range(8)]}
        Dataset.from_dict(table, features=features).to_parquet(
            str(tmp_path / "imagenet" / f"{split}-00000-of-00001.parquet")
        )
    splits = opened(tmp_path / "imagenet", test_split="validation", image_size=(28, 28))
    assert splits.train.decoded().pixels.shape == (8, 3, 32, 32)
    with pytest.raises(Exception, match=r"image 1 of split 'train' is 41 x 59.*40 x 60"):
        opened(tmp_path / "imagenet", test_split="validation").train.decoded()


@pytest.mark.parametrize("channels", [1, 3])
def test_image_folder(image_folder, written_pictures, channels):
    splits = opened(image_folder(channels=channels))
    assert splits.label_names == ("cat", "dog")
    train = splits.train.decoded()
    arrays = np.concatenate([written_pictures(6, channels=channels, seed=s) for s in (0, 1)])
    arrays = arrays[:, None] if channels == 1 else arrays.transpose(0, 3, 1, 2)
    ours = sorted(
        (a.numpy().tobytes(), int(y)) for a, y in zip(train.pixels, train.labels, strict=True)
    )
    theirs = sorted((a.tobytes(), i // 6) for i, a in enumerate(arrays))
    assert ours == theirs


def test_columns_without_declared_types(tmp_path):
    """A parquet file that any other program wrote: bytes and integers."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image as Pillow

    def png(value: int) -> dict:
        stream = io.BytesIO()
        Pillow.new("L", (4, 4), value).save(stream, "png")
        return {"bytes": stream.getvalue(), "path": None}

    for split in ("train", "test"):
        table = pa.table({"image": [png(10 * i) for i in range(6)], "label": [0, 1, 2, 0, 1, 2]})
        pq.write_table(table, tmp_path / f"{split}.parquet")
    splits = opened(tmp_path)
    assert (splits.classes, splits.label_names) == (3, None)
    assert splits.train.decoded().pixels[:, 0, 0, 0].tolist() == [0, 10, 20, 30, 40, 50]


def test_folder_is_found_here_then_under_the_variable(tmp_path, monkeypatch):
    (tmp_path / "root" / "digits").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOPOSPIKE_DATA", str(tmp_path / "root"))
    assert find_source("digits") == tmp_path / "root" / "digits"
    (tmp_path / "digits").mkdir()
    assert find_source("digits").absolute() == tmp_path / "digits"
    assert find_source("owner/name") == "owner/name"
    (tmp_path / "root" / "name").mkdir()
    assert find_source("owner/name") == tmp_path / "root" / "name"


def test_missing_folder_says_where_it_looked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TOPOSPIKE_DATA", raising=False)
    with pytest.raises(MissingDataError) as caught:
        find_source("cifar10")
    assert f"Looked for the folder {tmp_path}/cifar10. " in str(caught.value)
    assert "TOPOSPIKE_DATA is not set" in str(caught.value)

    (tmp_path / "root" / "cifar10").mkdir(parents=True)
    monkeypatch.setenv("TOPOSPIKE_DATA", str(tmp_path / "root"))
    with pytest.raises(MissingDataError) as caught:
        find_source("cifar-10")
    assert f"{tmp_path}/cifar-10 and {tmp_path}/root/cifar-10" in str(caught.value)
    assert "holds: cifar10. Did you mean 'cifar10'?" in str(caught.value)

    monkeypatch.setenv("TOPOSPIKE_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(MissingDataError, match="nowhere is not a folder"):
        find_source("cifar10")


def test_a_file_is_not_a_folder(tmp_path):
    (tmp_path / "train.parquet").write_bytes(b"")
    with pytest.raises(MissingDataError, match=r"is a file .* give the folder"):
        find_source(str(tmp_path / "train.parquet"))


def test_hub_that_cannot_be_reached(monkeypatch):
    monkeypatch.delenv("TOPOSPIKE_DATA", raising=False)
    with pytest.raises(MissingDataError) as caught:
        open_source(DataSettings(source="no-such-owner/no-such-set"))
    assert "'no-such-owner/no-such-set'" in str(caught.value)
    assert "no such folder here or under TOPOSPIKE_DATA (not set)" in str(caught.value)
    assert "give a local folder" in str(caught.value)


def test_empty_folder_and_damaged_file(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingDataError, match=r"empty cannot be read as a dataset.*train-00000"):
        opened(tmp_path / "empty")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "train.parquet").write_bytes(b"PAR1 this is not parquet")
    with pytest.raises(MissingDataError, match="bad cannot be read as a dataset"):
        opened(tmp_path / "bad")


def test_folder_without_images(tmp_path):
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").write_text("text,label\nhello,0\n")
    with pytest.raises(
        MissingDataError, match=r"no image column\. Columns: text \((large_)?string\)"
    ):
        opened(tmp_path)


def test_wrong_split_lists_the_splits(parquet_folder):
    folder = parquet_folder(splits=("train", "validation"))
    with pytest.raises(
        MissingDataError,
        match=r"data\.test_split = 'test' is not a split.*Splits: train, validation\.",
    ):
        opened(folder)
    with pytest.raises(MissingDataError, match=r"'trian'.*Did you mean 'train'"):
        opened(folder, train_split="trian", test_split="validation")


def test_missing_column(parquet_folder):
    with pytest.raises(MissingDataError, match=r"'image' is not a column of split 'train'"):
        opened(parquet_folder(), image_column="image")


def test_hidden_labels(tmp_path, written_pictures):
    from datasets import ClassLabel, Dataset, Features, Image
    from PIL import Image as Pillow

    features = Features({"image": Image(), "label": ClassLabel(num_classes=2)})
    for split, label in (("train", 1), ("test", -1)):
        table = {"image": [Pillow.fromarray(written_pictures(1)[0])], "label": [label]}
        Dataset.from_dict(table, features=features).to_parquet(str(tmp_path / f"{split}.parquet"))
    with pytest.raises(MissingDataError, match=r"split 'test'.*label -1, outside 0\.\.1"):
        opened(tmp_path)


def test_damaged_picture_is_named(image_folder):
    folder = image_folder()
    (folder / "train" / "dog" / "5.png").write_bytes(b"not a picture")
    with pytest.raises(
        MissingDataError, match=r"image \d+ of split 'train' cannot be read.*5\.png"
    ):
        opened(folder)


@pytest.mark.slow
def test_local_folder_needs_no_network_and_is_quiet(parquet_folder, tmp_path):
    """In a process of its own: any connection is an error, nothing is printed."""
    folder = parquet_folder()
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    script = f"""
        import os, socket
        os.environ["HF_DATASETS_CACHE"] = {str(tmp_path / "fresh")!r}
        def refuse(*args, **kwargs):
            raise RuntimeError("a connection was tried")
        socket.socket.connect = refuse
        socket.getaddrinfo = refuse
        from topospike.data import load_data
        from topospike.recipe import DataSettings
        data = load_data(DataSettings(source={str(folder)!r}), seed=0)
        print(data.train.images + data.validation.images)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False
    )
    assert result.stderr == ""
    assert result.stdout == "24\n"

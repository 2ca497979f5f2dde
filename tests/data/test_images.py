import numpy as np
import pytest
import torch

from topospike.data import TensorImages
from topospike.data.hub import open_source
from topospike.errors import MissingDataError
from topospike.recipe import DataSettings

ORDER = (torch.tensor([4, 1, 1]), torch.tensor([0]), torch.tensor([7, 2]))


@pytest.fixture
def encoded(parquet_folder):
    return open_source(DataSettings(source=str(parquet_folder()))).train


def test_decoding_on_demand_equals_decoding_once(encoded):
    decoded = encoded.decoded()
    pairs = zip(encoded.batches(ORDER), decoded.batches(ORDER), strict=True)
    for number, (a, b) in enumerate(pairs):
        assert a.dtype == torch.uint8
        assert torch.equal(a, b)
        assert torch.equal(a, decoded.pixels[ORDER[number]])


def test_taking_rows_twice_composes(encoded):
    decoded = encoded.decoded()
    rows, again = np.array([9, 3, 5, 0]), np.array([2, 0])
    for images in (encoded.take(rows).take(again).decoded(), decoded.take(rows).take(again)):
        assert torch.equal(images.pixels, decoded.pixels[[5, 9]])
        assert images.labels.tolist() == [5 % 3, 9 % 3]


def test_messages_name_the_row_of_the_file(image_folder):
    folder = image_folder()
    train = open_source(DataSettings(source=str(folder))).train
    (folder / "train" / "dog" / "4.png").write_bytes(b"not a picture")
    broken = [row for row in range(len(train)) if not readable(train, row)]
    assert len(broken) == 1
    with pytest.raises(MissingDataError, match=f"image {broken[0]} of split 'train'"):
        train.take(np.array([0, broken[0]])).decoded()


def readable(images, row: int) -> bool:
    try:
        images.take(np.array([row])).decoded()
    except MissingDataError:
        return False
    return True


def test_workers_give_the_same_batches_every_epoch(encoded):
    """Real processes; also after an iteration that was left early."""
    expected = list(encoded.decoded().batches(ORDER))
    for batch in encoded.batches(ORDER, workers=1):
        assert torch.equal(batch, expected[0])
        break
    for order in (ORDER, ORDER[::-1]):
        given = list(encoded.batches(order, workers=1))
        wanted = list(encoded.decoded().batches(order))
        assert all(torch.equal(a, b) for a, b in zip(given, wanted, strict=True))


def test_tensor_images_keep_their_scale():
    images = TensorImages(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), np.arange(3), 16.0)
    assert images.take(np.array([1])).scale == images.to(torch.device("cpu")).scale == 16.0

import pytest
import torch

from topospike.data import DataBundle
from topospike.direct import WholeBatches, direct_data
from topospike.direct.batches import IMAGENET_MEAN, IMAGENET_STD, renormalised
from topospike.errors import ConfigError
from topospike.recipe import DirectSettings


class Split(list):
    images = 0
    epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch


def split(*sizes, chan=3):
    batches = Split((torch.rand(n, chan, 2, 2), torch.arange(n)) for n in sizes)
    batches.images = sum(sizes)
    return batches


@pytest.mark.parametrize(("sizes", "number"), [((4, 4, 3), 2), ((4, 5), 2), ((4, 4), 2)])
def test_incomplete_batches_are_dropped_and_long_ones_cut(sizes, number):
    whole = WholeBatches(split(*sizes), batch_size=4, images=sum(sizes))
    assert [len(y) for _, y in whole] == [4] * number
    assert len(whole) == number


def test_too_few_images_are_refused():
    with pytest.raises(ConfigError, match=r"batch_size is 9.*5 training images"):
        WholeBatches(split(5), batch_size=9, images=5)


def test_the_epoch_reaches_the_source():
    source = split(4)
    renormalised(WholeBatches(source, batch_size=4, images=4), mean=(0,) * 3, std=(1,) * 3
                 ).set_epoch(7)  # fmt: skip
    assert source.epoch == 7


def test_images_are_normalised_again_by_imagenets_constants():
    pixels, mean, std = torch.rand(2, 3, 4, 4), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)

    def normalise(m, s):
        return (pixels - torch.tensor(m).view(3, 1, 1)) / torch.tensor(s).view(3, 1, 1)

    source = Split([(normalise(mean, std), torch.zeros(2))])
    ((x, _),) = list(renormalised(source, mean=mean, std=std))
    torch.testing.assert_close(x, normalise(IMAGENET_MEAN, IMAGENET_STD))


class Bundle(DataBundle):
    """Data of which only some fields are known."""

    def __init__(self, **fields):
        for name, value in fields.items():
            object.__setattr__(self, name, value)


def test_training_images_alone_are_changed():
    train, validation = split(4, 4), split(4)
    constants = {"mean": (0.5,) * 3, "std": (0.2,) * 3}
    bundle = Bundle(
        train=train, validation=validation, classes=4, identity={"data.seed": 3}, **constants
    )
    plain = direct_data(bundle, DirectSettings(), batch_size=4)
    released = direct_data(bundle, DirectSettings(released_normalisation=True), batch_size=4)
    assert torch.equal(next(iter(plain.train))[0], train[0][0])
    assert not torch.equal(next(iter(released.train))[0], train[0][0])
    assert released.validation is validation
    assert released.identity == plain.identity == {"data.seed": 3}


def test_grey_images_cannot_be_normalised_as_released():
    with pytest.raises(ConfigError, match="1 channel"):
        renormalised(split(4, chan=1), mean=(0.5,), std=(0.2,))

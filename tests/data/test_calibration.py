"""The images thresholds are taken from: training images, not augmented, in mixed order."""

import torch

from topospike.data import load_data
from topospike.recipe import DataSettings


def test_calibration_images_are_training_images_without_augmentation() -> None:
    settings = DataSettings(augment=("shift",), eval_batch_size=2000)
    plain = load_data(DataSettings(eval_batch_size=2000), seed=0)
    data = load_data(settings, seed=0)
    (calibration, labels) = next(iter(data.calibration))
    train = torch.cat([x for x, _ in plain.train])
    rows = {tuple(image.flatten().tolist()) for image in train}
    assert len(calibration) == data.train.images
    assert all(tuple(image.flatten().tolist()) in rows for image in calibration)
    assert len(set(labels[:64].tolist())) == 10  # mixed, though a folder may be sorted by class


def test_calibration_order_is_the_seeds() -> None:
    one, two, other = (load_data(DataSettings(), seed=seed) for seed in (0, 0, 1))
    first = [next(iter(data.calibration))[0] for data in (one, two, other)]
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])

"""Which images a network of a run is measured on."""

import numpy as np
import pytest
import torch

from topospike.cli.main import main
from topospike.contracts import Evaluation
from topospike.data import Normalisation, TensorImages
from topospike.data.augment import Augmenter
from topospike.data.loader import Batches
from topospike.pipeline.networks import measured_images


@pytest.fixture
def split():
    """Ten images of one pixel, whose value is their number."""
    pixels = torch.arange(10, dtype=torch.uint8).reshape(10, 1, 1, 1)
    plain = Augmenter((), image_size=(1, 1), normalisation=Normalisation((0.0,), (1.0,)))
    return Batches(TensorImages(pixels, np.arange(10), scale=1.0), plain, batch_size=4)


@pytest.mark.parametrize(
    ("images", "taken"), [(5, [1, 3, 5, 7, 9]), (3, [3, 6, 9]), (1, [9]), (9, [*range(1, 10)])]
)
def test_images_are_spread_evenly(split, images, taken):
    batches = measured_images(split, images)
    assert torch.cat([x for x, _ in batches]).flatten().tolist() == taken
    assert torch.cat([y for _, y in batches]).tolist() == taken


@pytest.mark.parametrize("images", [None, 10, 11])
def test_the_whole_split_is_taken_as_it_is(split, images):
    assert measured_images(split, images) is split


def test_simulate_measures_so_many_images(finished_run):
    assert main(["simulate", str(finished_run), "--images", "20"]) == 0
    assert Evaluation.load(finished_run / "evaluation.json").images == 20

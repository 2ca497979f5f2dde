"""Which images a network of a run is measured on."""

from types import SimpleNamespace

import pytest
import torch

from topospike.cli.main import main
from topospike.contracts import Evaluation
from topospike.pipeline.networks import measured_images


class Split(list):
    """Batches of numbered images."""

    images = 10


@pytest.fixture
def data():
    numbers = torch.arange(10)
    return SimpleNamespace(test=Split(zip(numbers.split(4), numbers.split(4), strict=True)))


@pytest.mark.parametrize(
    ("images", "taken"), [(5, [1, 3, 5, 7, 9]), (3, [3, 6, 9]), (1, [9]), (9, [*range(1, 10)])]
)
def test_images_are_spread_evenly(data, images, taken):
    batches = measured_images(data, images)
    assert torch.cat([x for x, _ in batches]).tolist() == taken
    assert torch.cat([y for _, y in batches]).tolist() == taken


@pytest.mark.parametrize("images", [None, 10, 11])
def test_the_whole_split_is_taken_as_it_is(data, images):
    assert measured_images(data, images) is data.test


def test_simulate_measures_so_many_images(finished_run):
    assert main(["simulate", str(finished_run), "--images", "20"]) == 0
    assert Evaluation.load(finished_run / "evaluation.json").images == 20

"""Runs that end in silence, of images and of frames: counts, energy, what is cut off."""

import dataclasses

import pytest
import torch
from torch import nn

import topospike as ts
from topospike.contracts import Evaluation
from topospike.errors import ConfigError, MissingDataError, ShapeError
from topospike.measure import settling


def converted(method: str = "sigma-delta", **options) -> tuple[ts.SpikingNetwork, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)
    ).double()
    x = torch.rand(12, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return ts.convert(model, method, calibration=[x], **options), x


@pytest.mark.parametrize("pixels", [False, True])
def test_each_image_costs_what_an_evaluation_of_it_alone_says(pixels):
    snn, x = converted(pixels=pixels)
    run = settling(snn, [(x[:3], None), x[3:]], images=5)
    settled = snn.settle(x[:5])
    assert run.steps == tuple(settled.steps.tolist())
    assert all(run.silent)
    for image, steps, joule in zip(x, run.steps, run.energy_joule, strict=False):
        alone = ts.evaluate(snn, [(image[None], torch.tensor([0]))], timesteps=steps)
        assert joule == pytest.approx(alone.energy_joule[-1], rel=1e-12)
    fired = settled.spikes.double().mean(1)
    assert run.spikes == pytest.approx(tuple(fired.tolist()[: len(run.spikes)]))
    assert run.spikes[-1] == 0.0


def test_images_that_are_cut_off_are_named():
    snn, x = converted(levels=6)
    run = settling(snn, [x], images=4, at_most=2)
    assert run.silent == (False,) * 4
    assert run.at_most == len(run.spikes) == 2
    assert min(run.spikes) > 0


def test_an_evaluation_keeps_it_in_its_file(tmp_path):
    snn, x = converted()
    labels = torch.zeros(len(x), dtype=torch.int64)
    result = ts.evaluate(snn, [(x, labels)], timesteps=3)
    result = dataclasses.replace(result, settling=settling(snn, [x], images=2))
    result.save(tmp_path / "evaluation.json")
    assert Evaluation.load(tmp_path / "evaluation.json") == result


def test_what_cannot_be_is_refused():
    snn, x = converted()
    with pytest.raises(ConfigError, match="images is 0"):
        settling(snn, [x], images=0)
    with pytest.raises(MissingDataError, match="no image"):
        settling(snn, [])
    with pytest.raises(ConfigError, match="never do"):
        settling(converted("dcgs")[0], [x])


def test_a_frame_that_repeats_costs_nothing_and_one_that_moves_costs_what_moved():
    snn, x = converted(pixels=True)
    still, moved = x[:4], x[:4].clone()
    moved[..., :2, :2] += 0.3
    start, again, change = snn.stream([still, still, moved], steps=30)
    assert start.energy_joule > 0
    assert (again.energy_joule, again.events) == (0, 0)
    assert 0 < change.energy_joule < start.energy_joule
    assert (start.frame, change.frame, change.steps) == (0, 2, 30)


def test_streams_say_what_they_need():
    snn, x = converted()
    with pytest.raises(ShapeError, match=r"frame 1 has 3 sequences.*4"):
        list(snn.stream([x[:4], x[:3]]))
    with pytest.raises(ShapeError):
        list(snn.stream([x, x[..., :5]]))
    with pytest.raises(ConfigError, match="at least one time step"):
        list(snn.stream([x], steps=0))
    with pytest.raises(ConfigError, match="never do"):
        list(converted("cs-qcfs")[0].stream([x]))

"""Thresholds balanced between clipping and rounding, layer by layer (LTB)."""

import pytest
import torch
from torch import nn

import topospike as ts
from topospike.conversion.methods.balancing import balanced, tail
from topospike.errors import ConfigError


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 3, stride=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(54, 3),
    ).double().eval()  # fmt: skip


def pictures(n: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, 8, 8, dtype=torch.float64, generator=generator).exp()


def cost(x: torch.Tensor, theta: torch.Tensor, levels: int) -> torch.Tensor:
    """J of the module's formula, for each channel."""
    axes = (0, 2, 3)
    cut = (x - theta).clamp_min(0).pow(2).mean(axes)
    return cut + theta.flatten() ** 2 / (12 * levels**2) * (x > 0).double().mean(axes)


def test_shares_of_a_tail_by_hand() -> None:
    x = torch.tensor([[0.0, 3.0], [1.0, 5.0], [2.0, 0.0], [4.0, 0.0]])
    above, excess, active = tail(x, torch.tensor([[1.5, 4.0]])) / len(x)
    assert above.tolist() == [[0.5, 0.25]]
    assert excess.tolist() == [[0.75, 0.25]]
    assert active.tolist() == [[0.75, 0.5]]
    nothing_above = balanced(torch.tensor([2.0]), *torch.tensor([[0.0], [0.0], [1.0]]), levels=8)
    assert nothing_above.tolist() == [1.0]  # Newton's step alone would end at 0
    still = balanced(torch.tensor([2.0]), *torch.zeros(3, 1), levels=8)
    assert still.tolist() == [2.0]


@pytest.mark.slow
@torch.no_grad()
def test_thresholds_are_the_least_of_the_cost_on_all_images_layer_after_layer() -> None:
    batches = [pictures(40, seed) for seed in range(3)]
    snn = ts.convert(network(), "ltb", calibration=batches, passes=25, quantisation_levels=6)
    x, model = torch.cat(batches), network()
    first, second = (site.threshold for site in snn.sites.values())
    one = torch.relu(model[0](x))
    two = torch.relu(model[2](torch.minimum(one, first)))
    for values, theta in ((one, first), (two, second)):
        seen = cost(values, theta, 6)
        active = (values > 0).any(0).any(-1).any(-1)
        for factor in (0.99, 1.01):
            assert bool((cost(values, theta * factor, 6) > seen)[active].all())


@pytest.mark.slow
@torch.no_grad()
def test_long_tails_lose_less_than_by_a_quantile_or_the_maximum() -> None:
    x, model = pictures(256, 5), network()
    error = {}
    for method, options in {
        "ltb": {},
        "max": {"solver": "max"},
        "percentile": {"solver": "percentile", "percentile": 0.99},
    }.items():
        name = method if method == "ltb" else "cs-qcfs"
        snn = ts.convert(model, name, calibration=[x], timesteps=8, **options)
        error[method] = float((snn(x, 8)[-1] - model(x)).norm() / model(x).norm())
    assert error["ltb"] < min(error["max"], error["percentile"])


def test_given_thresholds_are_not_overwritten() -> None:
    with pytest.raises(ConfigError, match=r"given for 1, but method 'ltb' chooses"):
        ts.convert(network(), "ltb", calibration=[pictures(8, 0)], thresholds={"1": 1.0})


def test_it_is_saved_with_its_thresholds(tmp_path) -> None:
    x = pictures(32, 2)
    snn = ts.convert(network(), "ltb", calibration=[x], passes=3)
    ts.save(snn, tmp_path / "network")
    assert torch.equal(ts.load(tmp_path / "network")(x, 4), snn(x, 4))

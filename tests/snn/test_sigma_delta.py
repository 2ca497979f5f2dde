"""Sigma-delta coding: it closes in by a third a step, falls silent, and stays on a grid."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from topospike.conversion import convert
from topospike.measure import evaluate
from topospike.snn import SpikingNetwork
from topospike.snn.coding import SigmaDelta
from topospike.snn.executors import EXECUTORS
from topospike.snn.neurons import MultiThreshold
from topospike.snn.site import START, Site, decoded_of, site_step

PROPERTY = settings(deadline=None, derandomize=True, max_examples=40)
SEEDS = st.integers(0, 2**31 - 1)


def site(levels: int, *, gated: bool, schedule: tuple[int, ...] = ()) -> Site:
    neuron = MultiThreshold(levels, gated=gated, schedule=schedule)
    made = Site("a", gated=gated, neuron=neuron, coding=SigmaDelta())
    made.threshold = torch.tensor(1.0, dtype=torch.float64)
    return made


def uniform(seed: int, low: float, high: float, count: int = 2000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, dtype=torch.float64, generator=generator) * (high - low) + low


@PROPERTY
@given(seed=SEEDS, levels=st.integers(1, 9))
def test_an_error_shrinks_to_a_third_a_step_down_to_the_dead_zone(seed: int, levels: int) -> None:
    r_in, state, population = uniform(seed, -1.5, 1.5), START, site(levels, gated=False)
    dead_zone = 0.75 * 2.0 ** (1 - levels)
    error = r_in.abs()
    for t in range(1, 14):
        state = site_step(population, t, r_in, state)
        now = (r_in - decoded_of(state)).abs()
        assert (now <= torch.maximum(error / 3, torch.full_like(error, dead_zone)) + 1e-12).all()
        error = now
    assert state.events == 0


@PROPERTY
@given(seed=SEEDS, levels=st.integers(1, 9))
def test_at_a_relu_site_what_was_decoded_halves_at_least_and_ends_at_zero(
    seed: int, levels: int
) -> None:
    population, state = site(levels, gated=True), START
    for t in range(1, 8):
        state = site_step(population, t, uniform(seed, 0, 2), state)
    for t in range(8, 8 + levels + 2):
        before = decoded_of(state).clone()
        state = site_step(population, t, -uniform(seed + 1, 3, 9), state)
        assert (decoded_of(state) >= 0).all()
        assert (decoded_of(state) <= before / 2 + 1e-12).all()
    assert not decoded_of(state).any()


@PROPERTY
@given(seed=SEEDS, levels=st.integers(1, 9), gated=st.booleans())
def test_decoded_values_are_whole_multiples_of_the_lowest_threshold(
    seed: int, levels: int, gated: bool
) -> None:
    state = START
    for t in range(1, 9):
        state = site_step(site(levels, gated=gated), t, uniform(seed + t, -3, 3), state)
        multiples = decoded_of(state) * 2.0 ** (levels - 1)
        assert torch.equal(multiples, multiples.round())


def test_a_schedule_gives_the_first_steps_fewer_levels() -> None:
    population, r_in, state = site(8, gated=False, schedule=(2, 4)), uniform(0, -1.4, 1.4), START
    for t, levels in ((1, 2), (2, 4), (3, 8), (4, 8)):
        state = site_step(population, t, r_in, state)
        assert state.spikes is not None
        sizes = state.spikes[state.spikes != 0].abs()
        assert float(sizes.min()) >= 2.0 ** (1 - levels)


def network() -> tuple[SpikingNetwork, nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(54, 12), nn.ReLU(), nn.Linear(12, 5),
    ).double().eval()  # fmt: skip
    x = torch.randn(16, 2, 6, 6, dtype=torch.float64)
    snn = convert(model, calibration=[x], coding="sigma-delta", levels=8, solver="percentile")
    return snn, model, x


@pytest.mark.parametrize("executor", ["decoded", "event"])
def test_a_network_falls_silent_near_its_ann_and_costs_nothing_from_then_on(executor: str) -> None:
    snn, model, x = network()
    snn.executor = executor
    fired = [sum(held.events for held in step.sites.values()) for step in snn.watch(x, 30)]
    silent = fired.index(0)
    assert not any(fired[silent:])
    error = (snn(x, 30)[-1] - model(x)).abs().mean() / model(x).abs().mean()
    assert error < 0.02
    counted = evaluate(snn, [(x, torch.arange(16) % 5)], 30)
    assert counted.sops[silent - 1] == counted.sops[-1] > counted.sops[0]


def test_other_images_go_on_from_where_the_network_stands() -> None:
    snn, model, x = network()
    program = snn.program(EXECUTORS["decoded"])
    state, first, later = program.start((x,)), 0, []
    for t in range(1, 31):
        logits, state = program.step(t, state)
        first += sum(site.events for site in state.sites)
    generator = torch.Generator().manual_seed(3)
    for _ in range(4):  # errors of the frames must not add up
        x = x + 0.02 * torch.randn(x.shape, generator=generator, dtype=x.dtype)
        state, spent = program.start((x,), state), 0
        for t in range(1, 31):
            logits, state = program.step(t, state)
            spent += sum(site.events for site in state.sites)
        later.append(spent)
        assert (logits - model(x)).abs().mean() < 0.02 * model(x).abs().mean()
    assert max(later) < 0.6 * first

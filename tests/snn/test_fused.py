"""The compiled site step against the rules it stands for: equal bit for bit."""

import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from topospike.snn.coding import CODINGS, Coding, Rate
from topospike.snn.fused import WORTH_A_CALL, WORTHWHILE, SiteLoop, has_loop
from topospike.snn.neurons import (
    Identity,
    IntegrateAndFire,
    MultiThreshold,
    Neuron,
    SignedIntegrateAndFire,
)
from topospike.snn.site import START, Site, site_step, written_out

NEURONS: list[Neuron] = [
    MultiThreshold(levels=4, gated=True),
    MultiThreshold(levels=1, gated=True),
    MultiThreshold(levels=8, gated=False),
    MultiThreshold(levels=7, gated=True, schedule=(2, 3, 5)),
    IntegrateAndFire(),
    SignedIntegrateAndFire(),
]
SHAPE = (3, 5, 4, 6)
THRESHOLDS = [(), (1,), (1, 5, 1, 1), (5, 1, 1), (6,), (1, 5, 4, 6), (1, 5, 1, 6), (3, 1, 1, 1)]


def drives(shape: tuple[int, ...], dtype: torch.dtype, steps: int, seed: int) -> list[torch.Tensor]:
    """Drives with exact ties: multiples of a quarter threshold beside arbitrary values."""
    generator = torch.Generator().manual_seed(seed)
    plain = torch.randn(steps, *shape, generator=generator, dtype=dtype)
    tied = (plain * 4).round() / 4
    return list(torch.where(torch.rand(plain.shape, generator=generator) < 0.5, plain, tied))


def rule(neuron: Neuron, coding: Coding, theta: torch.Tensor) -> Site:
    site = Site("s", gated=neuron.gated, neuron=neuron, coding=coding)
    site.threshold = theta
    return site


def compare(neuron: Neuron, coding: Coding, theta: torch.Tensor, r_in: list[torch.Tensor]) -> None:
    site = rule(neuron, coding, theta)
    state, spikes = torch.zeros_like(r_in[0]), torch.empty_like(r_in[0])
    unrecorded = torch.zeros_like(r_in[0])
    fused = SiteLoop(neuron, coding, theta, state)
    held = START
    for t, drive in enumerate(r_in, start=1):
        held = written_out(site, t, drive, held)
        fired = fused(t, drive, state, spikes)
        assert fused(t, drive, unrecorded, None) == fired
        assert torch.equal(spikes, held.spikes)  # pyright: ignore[reportArgumentType]
        assert torch.equal(state, held.decoded)  # pyright: ignore[reportArgumentType]
        assert torch.equal(unrecorded, state)
        assert fired == int(spikes.count_nonzero())
    assert state.abs().max() > 0  # something has fired


@pytest.mark.parametrize("neuron", NEURONS, ids=str)
@pytest.mark.parametrize("coding", list(CODINGS), ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_compiled_steps_equal_the_rules_bit_for_bit(
    neuron: Neuron, coding: str, dtype: torch.dtype
) -> None:
    theta = torch.rand(1, 5, 1, 1, generator=torch.Generator().manual_seed(1), dtype=dtype) + 0.5
    theta[0, 2] = 1.0  # where the ties are
    compare(neuron, CODINGS[coding], theta, drives((16, 5, 9, 7), dtype, 6, seed=0))


@pytest.mark.slow
@pytest.mark.parametrize("shape", THRESHOLDS, ids=str)
@pytest.mark.parametrize("memory", ["rows", "channels last"])
def test_every_shape_of_threshold_and_memory_format(shape: tuple[int, ...], memory: str) -> None:
    theta = torch.rand(shape, generator=torch.Generator().manual_seed(2)) + 0.5
    r_in = drives(SHAPE, torch.float32, 4, seed=3)
    if memory == "channels last":
        r_in = [r.contiguous(memory_format=torch.channels_last) for r in r_in]
    for neuron in (NEURONS[0], SignedIntegrateAndFire()):
        compare(neuron, CODINGS["differential"], theta, r_in)


def test_a_drive_laid_out_otherwise_is_read_in_the_right_order() -> None:
    r_in = drives(SHAPE, torch.float32, 3, seed=4)
    theta = torch.rand(5, 1, 1, generator=torch.Generator().manual_seed(5)) + 0.5
    neuron, coding = NEURONS[0], CODINGS["differential"]
    states = torch.zeros(2, *SHAPE)
    fused = SiteLoop(neuron, coding, theta, states[0])
    for t, drive in enumerate(r_in, start=1):
        fused(t, drive, states[0], None)
        fused(t, drive.contiguous(memory_format=torch.channels_last), states[1], None)
    assert torch.equal(states[0], states[1])


@settings(deadline=None, derandomize=True, max_examples=25)
@given(
    values=st.lists(st.floats(-4, 4, width=32), min_size=8, max_size=8),
    theta=st.sampled_from([-1.0, 0.0, 1e-3, 0.5, 1.0, 3.0]),
    which=st.sampled_from(NEURONS),
    coding=st.sampled_from(list(CODINGS)),
)
def test_any_drive_any_threshold(
    values: list[float], theta: float, which: Neuron, coding: str
) -> None:
    site = rule(which, CODINGS[coding], torch.tensor(theta))
    held, state = START, torch.zeros(1, 4)
    fused = SiteLoop(which, CODINGS[coding], site.threshold, state)
    for t, drive in enumerate(torch.tensor(values).view(2, 1, 4), start=1):
        held = written_out(site, t, drive, held)
        fused(t, drive, state, None)
    assert torch.equal(state, held.decoded)  # pyright: ignore[reportArgumentType]


def test_a_nan_does_not_stay_hidden() -> None:
    neuron, coding = MultiThreshold(levels=4, gated=True), CODINGS["differential"]
    state = torch.zeros(1, 40)
    SiteLoop(neuron, coding, torch.tensor(1.0), state)(1, torch.full((1, 40), np.nan), state, None)
    assert not torch.isfinite(state).any()


def test_threads_share_a_site_without_changing_it() -> None:
    r_in = drives((8, 32, 32, 32), torch.float32, 2, seed=6)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            state = torch.zeros_like(r_in[0])
            fused = SiteLoop(NEURONS[0], CODINGS["rate"], torch.tensor(1.0), state)
            found.append((state, [fused(t, r, state, None) for t, r in enumerate(r_in, 1)]))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]


class Halved(Rate):
    """A coding of its own formula."""

    def drive(self, t, r_in, r_out, v0=None):
        return super().drive(t, r_in / 2, r_out, v0)


def test_what_has_no_compiled_step() -> None:
    many, rate = torch.zeros(WORTHWHILE), CODINGS["rate"]
    assert has_loop(IntegrateAndFire(), rate, many)
    assert not has_loop(Identity(), rate, many)
    assert not has_loop(IntegrateAndFire(), Halved(), many)
    assert not has_loop(IntegrateAndFire(), rate, many.bfloat16())


@pytest.mark.parametrize(("loaded", "least"), [(True, WORTH_A_CALL), (False, WORTHWHILE)])
def test_loops_are_loaded_for_many_neurons_and_used_for_fewer(
    loaded: bool, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "topospike.snn.kernels", ModuleType("kernels"))
    if not loaded:
        monkeypatch.delitem(sys.modules, "topospike.snn.kernels")
    many, rate = torch.zeros(least), CODINGS["rate"]
    assert has_loop(IntegrateAndFire(), rate, many)
    assert not has_loop(IntegrateAndFire(), rate, many[:-1])


def test_a_large_site_counts_and_records_only_when_asked() -> None:
    site = rule(IntegrateAndFire(), CODINGS["rate"], torch.tensor(1.0))
    drive = torch.rand(2, WORTHWHILE, generator=torch.Generator().manual_seed(7))
    state = site_step(site, 1, drive)
    assert state.spikes is not None
    assert state.events == state.fired == int(state.spikes.count_nonzero())
    assert state.fired == int((state.decoded > 0).sum())  # pyright: ignore[reportOptionalOperand]
    unseen = site_step(site, 1, drive, record=False)
    assert torch.equal(unseen.decoded, state.decoded)  # pyright: ignore[reportArgumentType]
    assert unseen.spikes is None

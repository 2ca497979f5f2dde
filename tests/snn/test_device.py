"""A site's step with t in device memory: the rule's own results, as written and compiled."""

import shutil

import pytest
import torch

from topospike.snn.coding import CODINGS, Coding
from topospike.snn.device import DeviceSite, clocked, clocked_step, compiled_step, times
from topospike.snn.neurons import (
    Identity,
    IntegrateAndFire,
    MultiThreshold,
    Neuron,
    SignedIntegrateAndFire,
)
from topospike.snn.site import Site

NEURONS: list[Neuron] = [
    MultiThreshold(levels=4, gated=True),
    MultiThreshold(levels=8, gated=False),
    IntegrateAndFire(),
    IntegrateAndFire(initial_membrane=0.3),
    SignedIntegrateAndFire(),
    Identity(gated=True),
    Identity(),
]


def drives(shape: tuple[int, ...], dtype: torch.dtype, steps: int) -> list[torch.Tensor]:
    """Drives of which half are multiples of a quarter threshold, so that there are ties."""
    generator = torch.Generator().manual_seed(0)
    plain = torch.randn(steps, *shape, generator=generator, dtype=dtype)
    tied = (plain * 4).round() / 4
    return list(torch.where(torch.rand(plain.shape, generator=generator) < 0.5, plain, tied))


def site(neuron: Neuron, coding: Coding, theta: torch.Tensor) -> Site:
    made = Site("s", gated=neuron.gated, neuron=neuron, coding=coding)
    made.threshold = theta
    return made


@pytest.mark.parametrize("neuron", NEURONS, ids=str)
@pytest.mark.parametrize("coding", list(CODINGS), ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_clock_in_memory_gives_the_same_bits_as_a_number(
    neuron: Neuron, coding: str, dtype: torch.dtype
) -> None:
    theta = torch.tensor([[1.0], [0.6], [0.0], [2.0]], dtype=dtype)
    rule = site(neuron, CODINGS[coding], theta)
    state, emitted = torch.zeros(3, 4, 50, dtype=dtype), torch.empty(3, 4, 50, dtype=dtype)
    unseen = torch.zeros_like(state)
    clock = times(1, state.device).clone()
    for t, drive in enumerate(drives((3, 4, 50), dtype, 7), start=1):
        rule.time_step = t
        decoded = rule(drive)
        clock.copy_(times(t, state.device))
        clocked_step(neuron, rule.coding, drive, state, theta, clock, emitted)
        clocked_step(neuron, rule.coding, drive, unseen, theta, clock, None)
        assert torch.equal(emitted, rule.spikes)  # pyright: ignore[reportArgumentType]
        assert torch.equal(state, decoded)
        assert torch.equal(unseen, decoded)
    assert state.count_nonzero()


def test_rules_of_your_own_are_left_to_themselves() -> None:
    class Loud(IntegrateAndFire):
        pass

    rate = CODINGS["rate"]
    assert clocked(IntegrateAndFire(), rate)
    assert not clocked(Loud(), rate)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # the compiler's own imports
@pytest.mark.skipif(shutil.which("g++") is None, reason="the compiler's backend on a CPU is g++")
@pytest.mark.parametrize("neuron", NEURONS[:3:2], ids=str)
@pytest.mark.parametrize("coding", list(CODINGS), ids=str)
@pytest.mark.parametrize("shape", [(1,), (5, 1, 1), (5, 4, 6)], ids=str)
def test_the_compiled_step_agrees_for_every_layout(
    neuron: Neuron, coding: str, shape: tuple[int, ...]
) -> None:
    theta = torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.5
    for memory_format in (torch.contiguous_format, torch.channels_last):
        rule = site(neuron, CODINGS[coding], theta)
        state = torch.zeros(8, 5, 4, 6, dtype=torch.float64)
        state = state.contiguous(memory_format=memory_format)
        spikes = torch.empty_like(state)
        compiled = DeviceSite(neuron, rule.coding, theta, state)
        for t, drive in enumerate(drives((8, 5, 4, 6), torch.float64, 5), start=1):
            rule.time_step = t
            decoded = rule(drive)
            compiled(t, drive, state, spikes)
            # a product and a sum may be contracted: the last bit, never a spike of these drives
            torch.testing.assert_close(state, decoded, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(spikes, rule.spikes, rtol=1e-12, atol=1e-12)
    step = compiled_step(neuron, CODINGS[coding])
    assert step.run is not step.as_written


def test_a_step_that_cannot_be_compiled_runs_as_written_with_one_warning(monkeypatch) -> None:
    def broken(*_args: object, **_settings: object) -> None:
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(torch, "compile", lambda function, **_settings: broken)
    compiled_step.cache_clear()
    neuron, coding = IntegrateAndFire(), CODINGS["rate"]
    state, drive = torch.zeros(4, 10), torch.rand(4, 10)
    stepped = DeviceSite(neuron, coding, torch.tensor(0.5), state)
    try:
        with pytest.warns(RuntimeWarning, match=r"cannot be compiled \(no compiler here\)"):
            stepped(1, drive, state, None)
        stepped(2, drive, state, None)  # a second warning would be an error
    finally:
        compiled_step.cache_clear()
    rule = site(neuron, coding, torch.tensor(0.5))
    for t in (1, 2):
        rule.time_step = t
        expected = rule(drive)
    assert torch.equal(state, expected)

"""Firing rules: hand-computed cases, agreement with a comparator chain, and the golden vectors."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from topospike.errors import ConfigError
from topospike.snn.coding import Differential, Rate
from topospike.snn.neurons import (
    Identity,
    IntegrateAndFire,
    MultiThreshold,
    SignedIntegrateAndFire,
    fire_if,
    fire_if_signed,
    select_level,
)

ORACLES = Path(__file__).parents[1] / "oracles"
CASES = json.loads((ORACLES / "dcgs" / "neurons.json").read_text())
PROPERTY = settings(deadline=None, derandomize=True, max_examples=25)
SEEDS = st.integers(0, 2**31 - 1)


def uniform(seed, *shape, low=-1.0, high=1.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, dtype=torch.float64, generator=generator) * (high - low) + low


def comparator_chain(u, theta, levels, available=None):
    """The rule as it is stated: from the largest level down, the first one that qualifies."""
    s = torch.zeros_like(u)
    for i in range(levels):
        level = theta / 2**i
        up = (s == 0) & (u >= 0.75 * level) & (theta > 0)
        down = (s == 0) & (u <= -0.75 * level) & (theta > 0)
        if available is not None:
            down &= available >= level - 1e-6 * theta
        s = torch.where(up, level, torch.where(down, -level, s))
    return s


def neuron_of(case):
    kind = case["kind"]
    if kind == "if_rate":
        return IntegrateAndFire()
    if kind.startswith("if"):
        return SignedIntegrateAndFire()
    return MultiThreshold(case["n"], gated=not kind.endswith("signed"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['case']}-{case['kind']}")
def test_spike_trains_equal_the_reference_neurons(case):
    """Drive the decoded-value step with the decoded input stream; tolerance 1e-9, ties exact."""
    arrays = np.load(ORACLES / "dcgs" / "neurons.npz", allow_pickle=False)
    x, theta, expected = (
        torch.from_numpy(arrays[f"{case['case']}_{key}"]) for key in ("x", "thr", "out")
    )
    differential = "diff" in case["kind"]
    coding = Differential() if differential else Rate()
    neuron = neuron_of(case)
    bias = x[0] if differential else torch.zeros_like(x[0])
    if differential:
        assert not expected[0].any()
        x, expected = x[1:], expected[1:]
    total, r_in, r_out = torch.zeros_like(bias), bias.clone(), torch.zeros_like(bias)
    v0 = neuron.initial_membrane * theta
    assert len(x) == case["T"]
    for t, (frame, spikes) in enumerate(zip(x, expected, strict=True), start=1):
        total = total + frame
        r_in = r_in + (frame - bias) / t if differential else total / t
        u = coding.drive(t, r_in, r_out, v0)
        # Without negative spikes: nothing is ever available to take back.
        no_negatives = case["kind"] == "mt_rate_pos"
        budget = torch.zeros_like(u) if no_negatives else coding.available(t, r_out)
        s = neuron.fire(u, theta, budget)
        torch.testing.assert_close(s, spikes, rtol=0, atol=1e-9)
        r_out = coding.decode(t, r_out, s)


@pytest.mark.parametrize("name", [f"{kind}_{i}" for kind in ("const", "vary") for i in range(3)])
def test_integrate_and_fire_equals_the_reference(name):
    arrays = np.load(ORACLES / "qcfs" / "if_neuron.npz", allow_pickle=False)
    x = torch.from_numpy(arrays[f"{name}_x"]).double()
    theta = torch.from_numpy(arrays[f"{name}_theta"]).double()
    neuron, membrane = IntegrateAndFire(), torch.full_like(x[0], 0.5) * theta
    for current, expected in zip(x, arrays[f"{name}_out"], strict=True):
        membrane = membrane + current
        s = neuron.fire(membrane, theta)
        membrane = membrane - s
        torch.testing.assert_close(
            s, torch.from_numpy(expected).double(), rtol=0, atol=1e-6 * theta.item()
        )


@pytest.mark.parametrize("i", [0, 1])
def test_signed_integrate_and_fire_equals_the_reference(i):
    """Fast-SNN's neuron in rate coding: what was emitted so far may be taken back."""
    arrays = np.load(ORACLES / "qcfs" / "variants.npz", allow_pickle=False)
    x = torch.from_numpy(arrays[f"signedif_{i}_x"]).double()
    theta = torch.from_numpy(arrays[f"signedif_{i}_theta"]).double()
    for neuron, key in ((SignedIntegrateAndFire(), "signed"), (IntegrateAndFire(), "unsigned")):
        membrane, emitted = torch.full_like(x[0], 0.5) * theta, torch.zeros_like(x[0])
        for current, expected in zip(x, arrays[f"signedif_{i}_{key}_out"], strict=True):
            membrane = membrane + current
            s = neuron.fire(membrane, theta, emitted)
            membrane, emitted = membrane - s, emitted + s
            torch.testing.assert_close(s, torch.from_numpy(expected).double(), rtol=0, atol=1e-6)
    assert (arrays[f"signedif_{i}_signed_out"] < 0).any()


def test_midpoints_go_to_the_larger_magnitude():
    theta = torch.tensor(1.0)
    edges = torch.tensor([0.75, 0.375, 0.1875])
    below = torch.nextafter(edges, torch.zeros(3))
    at = select_level(torch.cat([edges, -edges]), theta, levels=3)
    assert at.tolist() == [1.0, 0.5, 0.25, -1.0, -0.5, -0.25]
    assert select_level(below, theta, levels=3).tolist() == [0.5, 0.25, 0.0]
    assert select_level(torch.tensor([100.0, 0.0]), theta, levels=3).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("levels", [1, 4, 8])
def test_selection_equals_the_comparator_chain_even_next_to_the_edges(dtype, levels):
    theta = uniform(1, 400, low=0.1, high=3.0).to(dtype)
    edges = torch.stack([0.75 * (theta / 2**i) for i in range(levels)])
    near = [edges, *(torch.nextafter(edges, edges * f) for f in (0.0, 2.0))]
    u = torch.cat([*near, *(-n for n in near), 2 * torch.randn(20, 400).to(dtype)])
    assert torch.equal(select_level(u, theta, levels=levels), comparator_chain(u, theta, levels))


@PROPERTY
@given(seed=SEEDS, levels=st.integers(1, 10))
def test_gated_selection_equals_the_comparator_chain(seed, levels):
    theta = uniform(seed, 50, low=0.2, high=2.0)
    theta[:3] = 0.0
    u = uniform(seed + 1, 40, 50, low=-3, high=3)
    available = uniform(seed + 2, 40, 50, low=0, high=3)
    available[::2] = 0.25 * theta  # an exact rung of the ladder, where rounding would decide
    assert torch.equal(
        select_level(u, theta, levels=levels, available=available),
        comparator_chain(u, theta, levels, available),
    )


def test_gate_falls_back_to_what_is_affordable():
    theta, u = torch.tensor(1.0), torch.full((5,), -3.0)
    available = torch.tensor([2.0, 0.9, 0.5, 0.2, -0.3])
    spikes = select_level(u, theta, levels=2, available=available)
    assert spikes.tolist() == [-1.0, -0.5, -0.5, 0.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gate_accepts_equality_spoilt_by_rounding(dtype):
    """Three thirds of a spike are a spike, though they do not add up to one in floating point."""
    theta = uniform(3, 200, low=0.1, high=10.0).to(dtype)
    third = theta / 3
    spent = [third + third + third, (third + third) + third * (1 - torch.finfo(dtype).eps)]
    for available in spent:
        s = select_level(-theta, theta, levels=1, available=available)
        assert torch.equal(s, -theta)
        assert torch.equal(fire_if_signed(-theta, theta, available=available), -theta)
    short = select_level(-theta, theta, levels=1, available=theta * (1 - 1e-5))
    assert not short.any()


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("value", [0.0, -1.0])
def test_without_a_positive_threshold_nothing_is_emitted(gated, value):
    u = torch.tensor([-5.0, 0.0, 5.0])
    s = MultiThreshold(4, gated).fire(u, torch.tensor(value), torch.ones(3))
    assert s.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("available", [None, torch.ones(2)])
def test_a_membrane_that_is_not_a_number_stays_visible(available):
    u = torch.tensor([torch.nan, 1.0])
    s = select_level(u, torch.tensor(1.0), levels=4, available=available)
    assert s.isfinite().tolist() == [False, True]


@pytest.mark.parametrize("neuron", [
    MultiThreshold(4, gated=True), MultiThreshold(4, gated=False), IntegrateAndFire(),
    SignedIntegrateAndFire(), Identity(),
])  # fmt: skip
def test_a_rule_is_pure_and_follows_the_layout_of_the_membrane(neuron):
    u = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    theta, available = torch.rand(1, 3, 1, 1) + 0.5, torch.rand(2, 3, 4, 4)
    kept = u.clone(), theta.clone(), available.clone()
    expected = neuron.fire(u, theta, available)
    assert all(torch.equal(a, b) for a, b in zip((u, theta, available), kept, strict=True))
    layout = u.contiguous(memory_format=torch.channels_last)
    assert torch.equal(neuron.fire(layout, theta, available), expected)
    assert expected.dtype == u.dtype


def test_no_gradient_passes():
    u = torch.tensor([0.9], requires_grad=True)
    theta = torch.tensor(1.0, requires_grad=True)
    for neuron in (MultiThreshold(2, gated=True), IntegrateAndFire(), SignedIntegrateAndFire()):
        assert not neuron.fire(u, theta, torch.ones(1)).requires_grad


@PROPERTY
@given(seed=SEEDS, levels=st.integers(1, 8))
def test_p2_what_is_left_in_the_membrane(seed, levels):
    theta, u = torch.tensor(1.7, dtype=torch.float64), uniform(seed, 2000, low=-6, high=6)
    s = select_level(u, theta, levels=levels)
    rest, size = (u - s) * u.sign(), s.abs()
    saturated = u.abs() >= 1.5 * theta
    fired = (s != 0) & ~saturated
    assert torch.equal(s[s != 0].sign(), u[s != 0].sign())
    assert (rest[fired] >= -0.25 * size[fired]).all()
    assert (rest[fired] < 0.5 * size[fired]).all()
    assert (u[s == 0].abs() < 0.75 * theta / 2 ** (levels - 1)).all()
    torch.testing.assert_close(rest[saturated], u[saturated].abs() - theta, rtol=0, atol=1e-12)


@PROPERTY
@given(seed=SEEDS, power=st.integers(-20, 20))
def test_p9_scaling_everything_scales_the_spike_bit_for_bit(seed, power):
    theta, u = uniform(seed, 9, low=0.1, high=2.0), uniform(seed + 1, 300, 9, low=-3, high=3)
    available = uniform(seed + 2, 300, 9, low=0, high=2)
    a = 2.0**power
    for neuron in (MultiThreshold(5, gated=True), IntegrateAndFire(), SignedIntegrateAndFire()):
        s = neuron.fire(u, theta, available)
        assert torch.equal(neuron.fire(a * u, a * theta, a * available), a * s)


@PROPERTY
@given(seed=SEEDS, levels=st.integers(1, 9))
def test_p10_one_more_level_only_adds_a_finer_one(seed, levels):
    theta, u = torch.tensor(1.3, dtype=torch.float64), uniform(seed, 500, low=-3, high=3)
    coarse, fine = (select_level(u, theta, levels=n) for n in (levels, levels + 1))
    assert torch.equal(fine[coarse != 0], coarse[coarse != 0])
    assert set(fine[coarse == 0].abs().tolist()) <= {0.0, 1.3 / 2**levels}


def test_single_threshold_rules_by_hand():
    theta = torch.tensor([1.0, 2.0])
    u = torch.tensor([[1.0, 1.0], [0.999, 2.0], [-4.0, 0.0]])
    assert fire_if(u, theta).tolist() == [[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]]
    available = torch.tensor([[1.0, 2.0], [1.0, 2.0], [1.0, 1.0]])
    signed = fire_if_signed(u, theta, available=available)
    assert signed.tolist() == [[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0]]


@pytest.mark.parametrize("levels", [0, -1, 17])
def test_impossible_level_counts_are_refused(levels):
    with pytest.raises(ConfigError, match=f"levels is {levels}; .* 1 to 16"):
        MultiThreshold(levels, gated=False)
    with pytest.raises(ConfigError, match=f"levels is {levels}"):
        select_level(torch.ones(1), torch.ones(1), levels=levels)


def test_an_integer_membrane_is_refused():
    with pytest.raises(ConfigError, match=r"dtype torch\.int64; it must be one of torch\.float64"):
        select_level(torch.ones(1, dtype=torch.int64), torch.ones(1), levels=2)


@pytest.mark.parametrize("neuron", [MultiThreshold(2, gated=True), SignedIntegrateAndFire()])
def test_a_gated_neuron_asks_for_the_accumulated_output(neuron):
    with pytest.raises(ConfigError, match=rf"{neuron.name} neuron is gated: .*Coding\.available"):
        neuron.fire(torch.ones(1), torch.ones(1))

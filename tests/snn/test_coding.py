"""Decoded-value steps: equivalence with spike trains, graded units, and exact properties."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from topospike.errors import ConfigError
from topospike.snn.coding import CODINGS, Differential, Rate, SigmaDelta
from topospike.snn.neurons import Identity, IntegrateAndFire, MultiThreshold

ORACLES = Path(__file__).parents[1] / "oracles" / "dcgs"
GRADED = json.loads((ORACLES / "graded.json").read_text())
PROPERTY = settings(deadline=None, derandomize=True, max_examples=25)
SEEDS = st.integers(0, 2**31 - 1)
BOTH = pytest.mark.parametrize("coding", [Differential(), Rate()], ids=lambda c: c.name)


def uniform(seed, *shape, low=-1.0, high=1.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, dtype=torch.float64, generator=generator) * (high - low) + low


def simulate(coding, neuron, theta, r_in):
    """Run one site on the decoded inputs r_in[0..T-1]; return spikes, decoded outputs, drives."""
    r_out, v0 = torch.zeros_like(r_in[0]), neuron.initial_membrane * theta
    spikes, decoded, drives = [], [], []
    for t, value in enumerate(r_in, start=1):
        u = coding.drive(t, value, r_out, v0)
        s = neuron.fire(u, theta, coding.available(t, r_out))
        r_out = coding.decode(t, r_out, s)
        for trace, item in zip((spikes, decoded, drives), (s, r_out, u), strict=True):
            trace.append(item)
    return torch.stack(spikes), torch.stack(decoded), torch.stack(drives)


def decoded_input(x, coding, *, has_bias_frame):
    """Turn a stream of frames, the first one maybe the constant part, into r_in[1..T]."""
    if coding.name == "rate":
        steps = torch.arange(1, len(x) + 1, dtype=x.dtype).reshape(-1, *[1] * (x.ndim - 1))
        return x.cumsum(0) / steps
    bias, frames = (x[0], x[1:]) if has_bias_frame else (torch.zeros_like(x[0]), x)
    steps = torch.arange(1, len(frames) + 1, dtype=x.dtype).reshape(-1, *[1] * (x.ndim - 1))
    return bias + ((frames - bias) / steps).cumsum(0)


GRADED_UNITS = {
    "gelu": lambda x, p: functional.gelu(x),
    "silu": lambda x, p: functional.silu(x),
    "softmax": lambda x, p: x.softmax(-1),
    "layernorm": lambda x, p: functional.layer_norm(x, x.shape[-1:], p["w"], p["b"], 1e-6),
    "matmul": lambda x, p: x @ p["y"],
    "elementwise_mul": lambda x, p: x * p["y"],
    "maxpool k=2 s=2": lambda x, p: functional.max_pool2d(x, 2),
}


@pytest.mark.parametrize("case", GRADED, ids=lambda case: case["case"])
def test_graded_units_are_the_ann_expression_of_decoded_values(case):
    """The reference emits streams; decoded, they are F(r_in[t]). Tolerance 1e-9."""
    arrays = np.load(ORACLES / "graded.npz", allow_pickle=False)
    name = case["case"]
    parts = {
        key: torch.from_numpy(arrays[f"{name}_{key}"])
        for key in ("x", "y", "w", "b", "out")
        if f"{name}_{key}" in arrays
    }
    differential = case["coding"] == "diff_rate"
    coding = Differential() if differential else Rate()
    r_in = decoded_input(parts["x"], coding, has_bias_frame=True)
    r_other = decoded_input(parts["y"], coding, has_bias_frame=True) if "y" in parts else None
    out = parts["out"][1:] if differential else parts["out"]
    assert len(out) == case["T"] == len(r_in)
    r_out = torch.zeros_like(out[0])
    for t, stream in enumerate(out, start=1):
        r_out = coding.decode(t, r_out, stream)
        operands = {**parts, "y": None if r_other is None else r_other[t - 1]}
        expected = GRADED_UNITS[case["op"]](r_in[t - 1], operands)
        torch.testing.assert_close(r_out, expected, rtol=0, atol=1e-9)


@PROPERTY
@given(seed=SEEDS, levels=st.integers(1, 6), gated=st.booleans())
def test_differential_step_equals_the_membrane_recursion(seed, levels, gated):
    """Frame 0 carries the constant part b; r_in[0] = b (P1 holds along the way)."""
    x, theta = uniform(seed, 13, 40, low=-2, high=2), uniform(seed + 1, 40, low=0.5, high=1.5)
    neuron, bias = MultiThreshold(levels, gated), x[0]
    coding = Differential()
    r_in = decoded_input(x, coding, has_bias_frame=True)
    spikes, decoded, _ = simulate(coding, neuron, theta, r_in)
    membrane, r_before, r_out = torch.zeros(40).double(), bias.clone(), torch.zeros(40).double()
    for t in range(1, len(x)):
        membrane = membrane + (r_before + x[t] - bias) - r_out
        s = neuron.fire(membrane, theta, t * r_out)
        membrane = membrane - s
        r_before, r_out = r_before + (x[t] - bias) / t, r_out + s / t
        torch.testing.assert_close(spikes[t - 1], s, rtol=0, atol=0)
        conserved = t * (r_in[t - 1] - decoded[t - 1])
        torch.testing.assert_close(conserved, membrane, rtol=0, atol=1e-12)


@PROPERTY
@given(seed=SEEDS, multi=st.booleans())
def test_rate_step_equals_the_membrane_recursion(seed, multi):
    x, theta = uniform(seed, 12, 40, low=-1, high=2), uniform(seed + 1, 40, low=0.5, high=1.5)
    neuron = MultiThreshold(4, gated=True) if multi else IntegrateAndFire()
    coding = Rate()
    spikes, decoded, _ = simulate(
        coding, neuron, theta, decoded_input(x, coding, has_bias_frame=False)
    )
    start = neuron.initial_membrane * theta
    membrane, emitted = start.clone(), torch.zeros(40).double()
    for t, frame in enumerate(x, start=1):
        membrane = membrane + frame
        s = neuron.fire(membrane, theta, emitted)
        membrane, emitted = membrane - s, emitted + s
        torch.testing.assert_close(spikes[t - 1], s, rtol=0, atol=0)
        torch.testing.assert_close(decoded[t - 1], emitted / t, rtol=0, atol=1e-12)
        torch.testing.assert_close(x[:t].sum(0) - emitted, membrane - start, rtol=0, atol=1e-12)


@pytest.mark.parametrize("level", [1.0, 0.5, 0.125, -1.0, -0.25])
def test_p3_constant_input_on_a_level(level):
    r_in = torch.full((6, 1), level, dtype=torch.float64)
    theta, neuron = torch.ones(1, dtype=torch.float64), MultiThreshold(4, gated=False)
    once, exact, _ = simulate(Differential(), neuron, theta, r_in)
    assert once.flatten().tolist() == [level, 0, 0, 0, 0, 0]
    assert torch.equal(exact, r_in)
    always, _, _ = simulate(Rate(), neuron, theta, r_in)
    assert torch.equal(always, r_in)


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_p4_relu_site_never_decodes_to_a_negative_value(coding, dtype):
    theta = uniform(0, 64, low=0.2, high=2).to(dtype)
    wild = uniform(1, 40, 200, 64, low=-4, high=4).to(dtype)
    spikes, decoded, _ = simulate(coding, MultiThreshold(4, gated=True), theta, wild)
    assert (spikes < 0).any()
    assert (decoded >= -1e-6 * theta).all()
    silent, _, _ = simulate(coding, MultiThreshold(4, gated=True), theta, -wild[:1].abs())
    assert not silent.any()


@PROPERTY
@given(seed=SEEDS, levels=st.integers(1, 8))
def test_p5_reach_of_the_decoded_value(seed, levels):
    theta, steps = uniform(seed, 30, low=0.2, high=2), 12
    r_in = uniform(seed + 1, steps, 30, low=-30, high=30)
    neuron = MultiThreshold(levels, gated=False)
    _, differential, _ = simulate(Differential(), neuron, theta, r_in)
    _, rate, _ = simulate(Rate(), neuron, theta, r_in)
    harmonic = (1 / torch.arange(1, steps + 1).double()).cumsum(0)[:, None]
    assert (differential.abs() <= theta * harmonic * (1 + 1e-12)).all()
    assert (rate.abs() <= theta * (1 + 1e-12)).all()
    far, _, _ = simulate(Differential(), neuron, theta, torch.full_like(r_in, 1e3))
    assert torch.equal(far, theta.expand_as(far))


@BOTH
def test_p7_identity_sites_repeat_their_input_at_every_step(coding):
    r_in = uniform(5, 9, 100)
    _, decoded, _ = simulate(coding, Identity(), torch.ones(()), r_in)
    torch.testing.assert_close(decoded, r_in, rtol=0, atol=1e-12)


@BOTH
def test_p11_a_longer_run_starts_like_a_shorter_one(coding):
    theta, r_in = uniform(6, 50, low=0.3, high=1), uniform(7, 16, 50)
    neuron = MultiThreshold(4, gated=False)
    short, _, _ = simulate(coding, neuron, theta, r_in[:5])
    whole, _, _ = simulate(coding, neuron, theta, r_in)
    assert torch.equal(whole[:5], short)


@PROPERTY
@given(z=st.floats(0, 1), theta=st.floats(0.1, 10), steps=st.integers(1, 64))
def test_p15_mean_output_of_a_constant_drive(z, theta, steps):
    """(theta / t) floor(t z / theta + 1/2), wherever rounding does not sit on the edge."""
    value = torch.tensor([z * theta], dtype=torch.float64)
    threshold = torch.tensor([theta], dtype=torch.float64)
    _, decoded, drives = simulate(Rate(), IntegrateAndFire(), threshold, value.expand(steps, 1))
    if ((drives - theta).abs() < 1e-9 * theta).any():
        return
    count = torch.floor(steps * value / theta + 0.5)
    torch.testing.assert_close(decoded[-1], theta * count / steps, rtol=1e-12, atol=1e-12)


@BOTH
def test_p8_the_error_shrinks_like_one_over_t(coding):
    r_in = uniform(8, 1, 500, low=0, high=0.9).expand(128, 500)
    neuron = MultiThreshold(4, gated=True)
    _, decoded, _ = simulate(coding, neuron, torch.ones(()).double(), r_in)
    residue = (decoded - r_in).abs().amax(1) * torch.arange(1, 129)
    assert (residue <= 0.5).all()
    if coding.name == "differential":  # what is left falls into the dead zone, and stays
        assert (residue[8:] <= 0.75 / 2**3 + 1e-12).all()


@pytest.mark.parametrize("coding", list(CODINGS.values()), ids=lambda c: c.name)
@pytest.mark.parametrize("t", [1, 2, 7])
def test_the_arithmetic_is_pure(coding, t):
    parts = [uniform(seed, 20) for seed in range(4)]
    kept = [part.clone() for part in parts]
    r_in, r_out, s, v0 = parts
    coding.drive(t, r_in, r_out, v0), coding.decode(t, r_out, s), coding.available(t, r_out)
    assert all(torch.equal(a, b) for a, b in zip(parts, kept, strict=True))


def test_formulas_by_hand():
    r_in, r_out, s = torch.tensor(3.0), torch.tensor(1.0), torch.tensor(5.0)
    v0 = torch.tensor(0.5)
    assert Differential().drive(4, r_in, r_out, v0) == 4 * (3 - 1) + 0.5
    assert Differential().decode(4, r_out, s) == 1 + 5 / 4
    assert Differential().available(4, r_out) == 4
    assert Rate().drive(4, r_in, r_out, v0) == 4 * 3 - 3 * 1 + 0.5
    assert Rate().decode(4, r_out, s) == (3 * 1 + 5) / 4
    assert Rate().available(4, r_out) == 3
    assert SigmaDelta().drive(4, r_in, r_out, v0) == 3 - 1 + 0.5
    assert SigmaDelta().decode(4, r_out, s) == 1 + 5
    assert SigmaDelta().available(4, r_out) == 1
    assert (Differential().reach(3), Rate().reach(3), SigmaDelta().reach(3)) == (11 / 6, 1, 3)


def test_codings_are_found_by_name():
    assert CODINGS["rate"] == Rate()
    with pytest.raises(ConfigError, match=r"unknown coding 'diferential'.*Did you mean 'differen"):
        CODINGS["diferential"]

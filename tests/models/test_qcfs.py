"""The QCFS activation: golden vectors, and its exact relations to the spiking neuron."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from topospike.errors import ConfigError, ShapeError
from topospike.models.qcfs import POSITIVE_MAPS, QCFS, qcfs, slip_relu
from topospike.snn.coding import Rate
from topospike.snn.neurons import IntegrateAndFire

ORACLES = Path(__file__).parents[1] / "oracles" / "qcfs"
PROPERTY = settings(deadline=None, derandomize=True, max_examples=25)
SEEDS = st.integers(0, 2**31 - 1)
ORDERS = {"floor_first": "floorfirst", "clamp_first": "clampfirst"}
BOTH_ORDERS = pytest.mark.parametrize("order", ORDERS)


def load(name):
    with np.load(ORACLES / f"{name}.npz", allow_pickle=False) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays}


def random(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def spike_trains(x, theta):
    """Integrate-and-fire from theta / 2 on currents x[T, ...]: spikes and final membrane."""
    neuron, membrane = IntegrateAndFire(), 0.5 * theta * torch.ones_like(x[0])
    out = []
    for current in x:
        membrane = membrane + current
        out.append(neuron.fire(membrane, theta))
        membrane = membrane - out[-1]
    return torch.stack(out), membrane


@BOTH_ORDERS
@pytest.mark.parametrize("levels", [1, 4, 8])
@pytest.mark.parametrize("label", ["8", "1", "0.37"])
def test_values_and_gradients_equal_the_reference(order, levels, label):
    """Tolerance 1e-10; the last eight inputs sit on the borders of the window."""
    data, prefix, key = load("qcfs_activation"), f"L{levels}_th{label}", ORDERS[order]
    x = data[f"{prefix}_x"].clone().requires_grad_()
    theta = data[f"{prefix}_theta"].clone().requires_grad_()
    y = qcfs(x, theta, steps=levels, order=order)
    (y * data[f"{prefix}_g"]).sum().backward()
    for value, name in ((y, "y"), (x.grad, "gradx"), (theta.grad.reshape(1), "gradth")):
        torch.testing.assert_close(value, data[f"{prefix}_{name}_{key}"], rtol=1e-10, atol=1e-10)


@BOTH_ORDERS
def test_ties_go_up(order):
    data = load("qcfs_activation")
    y = qcfs(data["ties_L4_th2_x"], torch.tensor(2.0), steps=4, order=order)
    torch.testing.assert_close(y, data["ties_L4_th2_y"], rtol=0, atol=0)
    halves = torch.tensor([0.25, 0.75, 1.75, -0.25, 2.5])
    assert qcfs(halves, torch.tensor(2.0), steps=4).tolist() == [0.5, 1.0, 2.0, 0.0, 2.0]


@pytest.mark.parametrize("case", ["c0", "c1"])
def test_channel_wise_equals_the_reference_and_its_spiking_neuron(case):
    """theta = softplus(beta) per channel, gradients reach beta; tolerance 1e-9."""
    data = {k.removeprefix(f"{case}_"): v for k, v in load("cs_qcfs_inferred").items()
            if k.startswith(case)}  # fmt: skip
    layer = QCFS(int(data["L"]), channels=len(data["beta"]), order="clamp_first").double()
    with torch.no_grad():
        layer.beta.copy_(data["beta"])
    torch.testing.assert_close(layer.theta, data["theta"], rtol=1e-9, atol=1e-9)
    x = data["x"].clone().requires_grad_()
    y = layer(x)
    (y * data["g"]).sum().backward()
    for value, name in ((y, "y"), (x.grad, "gradx"), (layer.beta.grad, "gradbeta")):
        torch.testing.assert_close(value, data[name], rtol=1e-9, atol=1e-9)
    theta = data["theta"].reshape(1, -1, *[1] * (x.ndim - 2))
    out, _ = spike_trains(data["snn_x"], theta)
    torch.testing.assert_close(out, data["snn_out"], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", [0, 1, 2])
def test_slip_relu_equals_the_reference(case):
    data = load("variants")
    steps, slope, relu_shift, step_shift, value = data[
        f"slip_{case}_N_a_shift1_shift2_theta"
    ].tolist()
    x = data[f"slip_{case}_x"].clone().requires_grad_()
    theta = torch.tensor(value, dtype=torch.float64, requires_grad=True)
    y = slip_relu(
        x, theta, steps=int(steps), slope=slope, relu_shift=relu_shift, step_shift=step_shift
    )
    (y * data[f"slip_{case}_g"]).sum().backward()
    for result, name in ((y, "y"), (x.grad, "gradx"), (theta.grad, "gradth")):
        torch.testing.assert_close(result, data[f"slip_{case}_{name}"], rtol=1e-10, atol=1e-10)


@PROPERTY
@given(seed=SEEDS, timesteps=st.integers(1, 32), theta=st.floats(0.1, 10))
def test_t_a_constant_input_gives_the_activation_with_l_equal_t(seed, timesteps, theta):
    """Through the decoded-value step of rate coding, negative and saturating values included."""
    c, threshold = 2 * theta * random(seed, 500), torch.tensor(theta, dtype=torch.float64)
    neuron, coding = IntegrateAndFire(), Rate()
    r_out, v0 = torch.zeros_like(c), neuron.initial_membrane * threshold
    for t in range(1, timesteps + 1):
        s = neuron.fire(coding.drive(t, c, r_out, v0), threshold)
        r_out = coding.decode(t, r_out, s)
    expected = qcfs(c, threshold, steps=timesteps)
    torch.testing.assert_close(r_out, expected, rtol=1e-12, atol=1e-12 * theta)
    assert expected.min() == 0
    assert expected.max() == threshold


@PROPERTY
@given(seed=SEEDS, timesteps=st.integers(2, 32), theta=st.floats(0.1, 10))
def test_t_b_the_membrane_tells_where_the_equality_fails(seed, timesteps, theta):
    threshold = torch.tensor(theta, dtype=torch.float64)
    x = theta * (0.3 + 0.8 * random(seed, timesteps, 2000))
    out, rest = spike_trains(x, threshold)
    count = (out / threshold).sum(0).round()
    k = torch.floor(x.sum(0) / threshold + 0.5)
    conserved = threshold * (count - 0.5) - x.sum(0)  # eq. 7: = -v(T)
    torch.testing.assert_close(conserved, -rest, rtol=0, atol=1e-10 * theta)
    inside = (k >= 0) & (k <= timesteps)
    assert torch.equal((count == k)[inside], ((rest >= 0) & (rest < threshold))[inside])
    ann = qcfs(x.mean(0), threshold, steps=timesteps)
    same = (out.mean(0) - ann).abs() < 1e-9 * theta
    assert torch.equal(same, count == k.clamp(0, timesteps))
    assert same[inside].any()
    assert not same.all()


@PROPERTY
@given(seed=SEEDS, theta=st.floats(0.1, 10))
def test_t_c_one_step_is_the_activation_with_one_level(seed, theta):
    """Two layers: at T = 1 no residue of the membrane can matter."""
    threshold = torch.tensor(theta, dtype=torch.float64)
    x, weight = theta * random(seed, 64, 20), random(seed + 1, 20, 20)
    hidden = spike_trains(x[None], threshold)[0][0]
    out = spike_trains((hidden @ weight)[None], threshold)[0][0]
    ann = qcfs(qcfs(x, threshold, steps=1) @ weight, threshold, steps=1)
    torch.testing.assert_close(out, ann, rtol=1e-12, atol=1e-12 * theta)


@pytest.mark.parametrize("timesteps", [1, 2, 3, 8, 32])
@pytest.mark.parametrize("levels", [4, 8])
def test_t_e_the_expected_difference_vanishes(timesteps, levels):
    """z uniform on [0, theta]: |mean| < 1e-3 with shift 1/2, and a known bias without."""
    z = (torch.arange(40_000, dtype=torch.float64) + 0.5) / 40_000
    theta = torch.tensor(1.0, dtype=torch.float64)
    snn = spike_trains(z.expand(timesteps, -1), theta)[0].mean(0)
    assert (snn - qcfs(z, theta, steps=levels)).mean().abs() < 1e-3
    biased = qcfs(z, theta, steps=timesteps, shift=0.0) - qcfs(z, theta, steps=levels, shift=0.0)
    assert biased.mean().item() == pytest.approx(1 / (2 * levels) - 1 / (2 * timesteps), abs=1e-3)


@BOTH_ORDERS
def test_gradients_by_hand(order):
    """theta = 2, L = 1: the window is [-1, 3) floor-first, [0, 2] clamp-first."""
    x = torch.tensor([-1.5, -1.0, -0.5, 0.5, 1.5, 2.5, 3.5], requires_grad=True)
    qcfs(x, torch.tensor(2.0), steps=1, order=order).sum().backward()
    expected = {"floor_first": [0, 1, 1, 1, 1, 1, 0], "clamp_first": [0, 0, 0, 1, 1, 0, 0]}
    assert x.grad.tolist() == expected[order]


@pytest.mark.parametrize("name", POSITIVE_MAPS)
@pytest.mark.parametrize("theta", [0.05, 1.0, 8.0, 40.0])
def test_positive_maps_and_their_inverses(name, theta):
    layer = QCFS(4, theta_init=theta, positive_map=name).double()
    assert layer.theta.item() == pytest.approx(theta, rel=1e-5)
    with torch.no_grad():
        layer.beta.fill_(-3.0)
    assert (layer.theta > 0).item() == (name != "none")


def test_known_initial_beta():
    assert QCFS(4).beta.item() == pytest.approx(7.999664, abs=1e-6)


def test_the_channel_wise_stage_starts_as_the_same_function():
    x = random(0, 4, 6, 3, 3)
    layer = QCFS(8, theta_init=0.7, order="clamp_first").double().eval()
    with torch.no_grad():
        layer.beta.add_(0.123)
    twin = layer.per_channel(6)
    assert torch.equal(twin(x), layer(x))
    assert (twin.beta.shape, twin.steps, twin.order) == ((6,), 8, "clamp_first")
    assert isinstance(twin.beta, nn.Parameter)
    assert not twin.training
    assert torch.equal(twin(x.flatten(2)), layer(x.flatten(2)))
    with pytest.raises(ConfigError, match="already has 6 channel thresholds"):
        twin.per_channel(6)


def test_precision_follows_the_input_but_levels_stay_exact():
    x = random(1, 2, 3, 4).bfloat16().requires_grad_()
    layer = QCFS(4, channels=3)
    y = layer(x)
    y.float().sum().backward()
    assert (y.dtype, x.grad.dtype, layer.beta.grad.dtype) == (
        torch.bfloat16, torch.bfloat16, torch.float32,
    )  # fmt: skip
    wide = qcfs(x.detach().float(), layer.theta.detach().reshape(1, 3, 1), steps=4)
    assert torch.equal(y, wide.bfloat16())


def test_the_input_is_left_alone_and_steps_may_change():
    x = random(2, 5, 5)
    kept, layer = x.clone(), QCFS(2, theta_init=1.0).double()
    coarse = layer(x)
    layer.steps = 16
    assert not torch.equal(layer(x), coarse)
    assert torch.equal(x, kept)


def test_impossible_settings_are_refused():
    with pytest.raises(ConfigError, match=r"steps is 0; QCFS needs at least one"):
        QCFS(0)
    with pytest.raises(ConfigError, match=r"theta_init is -1\.0; a threshold must be positive"):
        QCFS(4, theta_init=-1.0)
    with pytest.raises(ConfigError, match=r"unknown positive map 'softmax'.*mean 'softplus'"):
        QCFS(4, positive_map="softmax")
    with pytest.raises(ConfigError, match=r"unknown order 'floor'.*Did you mean 'floor_first'"):
        qcfs(torch.ones(1), torch.ones(()), steps=4, order="floor")
    with pytest.raises(ShapeError, match=r"3 channel thresholds .* \(2, 4, 5, 5\)"):
        QCFS(4, channels=3)(torch.ones(2, 4, 5, 5))

"""Methods whose layers wait for one another: what is sent when, theorems, literal simulations."""

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import topospike as ts
from topospike.conversion.methods.layer_by_layer import Graded, OneSpike, Parallel, Phase
from topospike.conversion.methods.shifts import ShiftedSite, fitted
from topospike.errors import ConfigError, ConversionError
from topospike.export import export_csr, read_csr
from topospike.snn.neurons import Uniform
from topospike.topology import register_mask
from topospike.wiring.graph import site_calls

METHODS = {
    "parallel": {"steps": 6},
    "phase": {"steps": 4},
    "one-spike": {"steps": 6},
    "graded": {"levels": 6},
}
LENGTH = {"parallel": 6, "phase": 4, "one-spike": 6, "graded": 1}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(4, 4, 3, padding=1),
        nn.ReLU(), nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 3),
    ).double().eval()  # fmt: skip


def pictures(n: int = 16, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, 8, 8, dtype=torch.float64, generator=generator)


class Attention(nn.Module):
    """A product of two activations, so that operands get sites."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.q, self.k, self.v = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        weights = torch.softmax(self.q(x) @ self.k(x).transpose(1, 2), -1)
        return (weights @ self.v(x)).mean(1)


@functools.cache
def converted(method: str) -> ts.SpikingNetwork:
    return ts.convert(network(), method, calibration=[pictures()], **METHODS[method])


@pytest.mark.parametrize(
    ("coding", "signed"), [(Parallel, False), (Phase, True), (OneSpike, True), (Graded, True)]
)
@settings(max_examples=20, deadline=None)
@given(steps=st.integers(1, 7), seed=st.integers(0, 99))
def test_the_parts_of_all_steps_add_up(coding, signed, steps, seed) -> None:
    most = 2**steps - 1 if coding is Phase else steps
    generator = torch.Generator().manual_seed(seed)
    k = torch.randint(-most if signed else 0, most + 1, (50,), generator=generator).double()
    parts = torch.stack([coding(steps).part(t, k) for t in range(1, steps + 1)])
    assert torch.equal(parts.sum(0) if coding is not Graded else parts[0], k)
    if coding is OneSpike:
        assert torch.equal((parts != 0).sum(0), (k != 0).long())


@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_the_last_step_is_the_network_with_rounded_activations(method) -> None:
    snn, x = converted(method), pictures(5, seed=3)
    sites = list(snn.sites.values())
    value, nodes = x, iter(sites)
    for layer in network():
        if isinstance(layer, nn.ReLU):
            site = next(nodes)
            unit = site.threshold / site.neuron.levels
            value = value + getattr(site, "shift", 0.0)
            value = (value / unit + 0.5).floor().clamp(0, site.neuron.levels) * unit
            value = value * getattr(site, "scale", 1.0)
        else:
            value = layer(value)
    logits = snn(x, LENGTH[method] + 2)
    torch.testing.assert_close(logits[LENGTH[method] - 1], value, rtol=0, atol=1e-12)
    torch.testing.assert_close(logits[-1], value, rtol=0, atol=1e-12)  # nothing more to say
    alone = torch.cat([snn(image[None], LENGTH[method] + 2) for image in x], dim=1)
    # steps taken together, and spikes sent without an evaluation of what lies between them
    torch.testing.assert_close(alone, logits, rtol=0, atol=1e-12, equal_nan=True)
    assert bool(logits[: LENGTH[method] - 1].isnan().all())
    nodes = site_calls(snn.ann)
    for step, plain in zip(snn.watch(x, 7, nodes), snn.watch(x, 7), strict=True):
        torch.testing.assert_close(step.logits, plain.logits, rtol=0, atol=1e-12, equal_nan=True)
        for name, state in step.sites.items():
            assert torch.equal(state.spikes, plain.sites[name].spikes)
            assert torch.equal(state.decoded, plain.sites[name].decoded)


@pytest.mark.slow
@torch.no_grad()
def test_sorted_trains_lose_nothing_in_a_network_trained_for_as_many_levels() -> None:
    x = pictures()
    for levels in (3, 8):
        trained = ts.quantise_activations(
            network(), x, kind="s-qcfs", levels=levels, calibration=x, percentile=0.99
        ).eval()
        for method, option in (("parallel", "steps"), ("graded", "levels")):
            snn = ts.convert(trained, method, calibration=[x], **{option: levels})
            length = levels if method == "parallel" else 1
            torch.testing.assert_close(snn(x, length)[-1], trained(x), rtol=0, atol=1e-10)


@torch.no_grad()
def test_sorted_trains_equal_a_literal_simulation() -> None:
    """Neurons that add up a whole train, then fire at the end of the next one."""
    torch.manual_seed(4)
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2))
    model = model.double()
    x = torch.randn(30, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    steps = 5
    snn = ts.convert(model, "parallel", calibration=[x], steps=steps)
    site_a, site_b = snn.sites.values()
    current, fired = [model[0](x)] * steps, []
    for site, after in ((site_a, model[2]), (site_b, model[4])):
        theta, each = site.threshold, site.threshold * site.scale
        # the membranes of a whole train, biased by the shift at every step
        membrane = theta / 2 + (torch.stack(current) + site.shift).sum(0)
        spikes = [torch.zeros_like(membrane) for _ in range(steps)]
        for place in reversed(range(steps)):  # one threshold for every spike, latest first
            out = membrane >= theta
            spikes[place] = out.double() * each
            membrane = membrane - out.double() * theta
        fired.append(sum(int(s.count_nonzero()) for s in spikes))
        current = [after(s) for s in spikes]
    torch.testing.assert_close(snn(x, steps)[-1], torch.stack(current).mean(0))
    counted = [0, 0]
    for step in snn.watch(x, steps):
        for place, state in enumerate(step.sites.values()):
            counted[place] += int(state.spikes.count_nonzero())
    assert counted == fired


def literal(method: str, v: float, theta: float, steps: int) -> list[float]:
    """Return what one neuron with the membrane v sends at each step, as its paper has it.

    The membrane starts half a unit higher, which makes cutting off a rounding.
    """
    values = 2**steps - 1 if method == "phase" else steps
    unit, sent = theta / values, []
    v += unit / 2
    for t in range(1, steps + 1):
        if method == "phase":  # a threshold that halves, reset by subtraction
            spike = unit * 2 ** (steps - t) if v >= unit * 2 ** (steps - t) else 0.0
            v -= spike
        elif method == "one-spike":  # a threshold that falls; silent once it has fired
            height = unit * (steps - t + 1)
            spike = height if v >= height and not any(sent) else 0.0
        else:  # a ladder of thresholds at the first step
            spike = unit * sum(v >= unit * k for k in range(1, steps + 1)) if t == 1 else 0.0
        sent.append(spike)
    return sent


@pytest.mark.parametrize("method", ["phase", "one-spike", "graded"])
@torch.no_grad()
def test_they_equal_literal_simulations_neuron_by_neuron(method) -> None:
    torch.manual_seed(11)
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2))
    model = model.double()
    x = torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(12))
    steps, options = 4, {"levels": 4} if method == "graded" else {"steps": 4}
    snn = ts.convert(model, method, calibration=[x], **options)
    value, trains = x, {}
    for name, layer in (("1", model[0]), ("3", model[2])):
        theta, membranes = snn.sites[name].threshold.flatten(), layer(value)
        trains[name] = torch.tensor(
            [
                [literal(method, float(v), float(theta[i]), steps) for i, v in enumerate(row)]
                for row in membranes
            ],
            dtype=torch.float64,
        )
        value = trains[name].sum(-1)
        assert bool((trains[name] != 0).any())
    for step in snn.watch(x, steps):
        for name, state in step.sites.items():
            torch.testing.assert_close(state.spikes, trains[name][..., step.t - 1])
    torch.testing.assert_close(snn(x, steps)[-1], model[4](value))


@pytest.mark.parametrize("method", METHODS)
def test_operations_are_events_times_links(method) -> None:
    model = network()
    register_mask(model[6], torch.rand(12, 64, generator=torch.Generator().manual_seed(6)) < 0.3)
    x, length = pictures(4, seed=7), LENGTH[method]
    snn = ts.convert(model, method, calibration=[pictures()], **METHODS[method])
    result = ts.evaluate(snn, [(x, torch.zeros(4, dtype=torch.int64))], timesteps=length + 1)
    expected = 0.0
    for step in snn.watch(x, length):
        for layer in snn.wiring:
            for feed in layer.feeds:
                events = (step.sites[feed.site].spikes != 0).double().sum(0)
                expected += float((events * feed.fan_out).sum()) / 4
    assert result.sops[-1] == pytest.approx(expected)
    assert result.sops[-1] == result.sops[-2] > 0


def test_one_spike_needs_the_fewest_events() -> None:
    """An event for every neuron that is not silent, and none of the others needs fewer."""
    x, events, active = pictures(), {}, 0
    for method in ("one-spike", "parallel", "phase"):
        steps = 4 if method == "phase" else 15
        snn = ts.convert(network(), method, calibration=[x], steps=steps)
        rule = [s.threshold / s.neuron.levels for s in snn.sites.values()]
        count, last = 0, {}
        for step in snn.watch(x, steps):
            count += sum(int(state.spikes.count_nonzero()) for state in step.sites.values())
            last = {name: state.decoded for name, state in step.sites.items()}
        events[method] = count
        pairs = zip(last.values(), rule, strict=True)
        active = sum(int((value > unit / 2).sum()) for value, unit in pairs)
    assert events["one-spike"] == active
    assert events["one-spike"] < events["phase"] < events["parallel"]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["phase", "one-spike", "graded"])
@torch.no_grad()
def test_operands_send_both_signs(method) -> None:
    tokens = torch.randn(20, 4, 6, generator=torch.Generator().manual_seed(8))
    model = Attention().eval()
    options = {"levels": 255} if method == "graded" else {"steps": 8 if method == "phase" else 200}
    snn = ts.convert(model, method, calibration=[tokens], **options)
    assert not any(site.gated for site in snn.sites.values())
    length = 1 if method == "graded" else options["steps"]
    error = (snn(tokens, length)[-1] - model(tokens)).norm() / model(tokens).norm()
    assert float(error) < 0.05
    with pytest.raises(ConversionError):
        ts.convert(model, "parallel", calibration=[tokens])


@pytest.mark.parametrize("method", METHODS)
def test_they_are_saved_refused_and_explained(method, tmp_path) -> None:
    snn, x = converted(method), pictures(3)
    ts.save(snn, tmp_path / "network")
    again = ts.load(tmp_path / "network")
    torch.testing.assert_close(again(x, 6), snn(x, 6), rtol=0, atol=0, equal_nan=True)
    handed = read_csr(export_csr(snn, tmp_path / "csr"))
    for name, site in snn.sites.items():
        assert torch.equal(handed.thresholds[name], site.threshold)
        assert (name in handed.shifts) == (name in handed.scales) == (method == "parallel")
        if method == "parallel":
            assert torch.equal(handed.shifts[name], site.shift)
            assert torch.equal(handed.scales[name], site.scale)
    with pytest.raises(ConversionError, match="wait for the whole answer"):
        ts.export_nir(snn, tmp_path / "network.nir")
    with pytest.raises(ConfigError, match="executor is 'event'"):
        snn(x, 4, executor="event")
    with pytest.raises(ConfigError, match="never do"):
        snn.settle(x)
    assert any("on a chip" in sentence for sentence in snn.report.advice)


@torch.no_grad()
def test_eight_digits_are_activations_rounded_to_eight_bits() -> None:
    """Against torch's own rounding to unsigned bytes, site after site."""
    torch.manual_seed(9)
    model = nn.Sequential(nn.Linear(5, 9), nn.ReLU(), nn.Linear(9, 7), nn.ReLU(), nn.Linear(7, 2))
    x = torch.randn(50, 5, generator=torch.Generator().manual_seed(10))
    snn = ts.convert(model, "phase", calibration=[x], steps=8, granularity="layer")
    value = x
    for layer, site in zip((model[0], model[2]), snn.sites.values(), strict=True):
        scale = float(site.threshold) / 255
        value = torch.fake_quantize_per_tensor_affine(layer(value), scale, 0, 0, 255)
        assert 100 < float(value.max()) / scale < 255.5
    torch.testing.assert_close(snn(x, 8)[-1], model[4](value), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_shift_and_scale_lower_the_error_of_every_channel_and_leave_trained_ones() -> None:
    x, model = pictures(64), network()
    error = {}
    for calibrated in (False, True):
        snn = ts.convert(model, "parallel", [x], steps=2, scale=0.6, calibrated=calibrated)
        error[calibrated] = float((snn(x, 2)[-1] - model(x)).norm())
        first = next(iter(snn.sites.values()))
        unit = first.threshold / 2
        exact = torch.relu(model[0](x))
        sent = ((model[0](x) + first.shift) / unit + 0.5).floor().clamp(0, 2) * unit * first.scale
        error[calibrated, "first"] = (sent - exact).square().mean((0, 2, 3))
    assert error[True] < 0.9 * error[False]
    assert bool((error[True, "first"] <= error[False, "first"] + 1e-15).all())
    assert bool((error[True, "first"] < error[False, "first"]).any())
    trained = ts.quantise_activations(model, x, kind="s-qcfs", levels=4, calibration=x).eval()
    snn = ts.convert(trained, "parallel", calibration=[x], steps=2)
    for site in snn.sites.values():
        assert not bool(site.shift.any() | (site.scale != 1).any())
    with pytest.raises(ConfigError, match="calibrated is 1"):
        ts.convert(model, "parallel", calibration=[x], calibrated=1)


def test_shift_and_scale_by_hand() -> None:
    """Levels 0, 1/2, 1; the values 0.2 arrive as they are and round to 0: a shift lifts them."""
    site = ShiftedSite("a", gated=True, neuron=Uniform(2, gated=True), coding=Parallel(2))
    site.threshold = torch.ones(1, 1, dtype=torch.float64)
    x = torch.tensor([[0.2], [0.2], [0.6]], dtype=torch.float64)
    shift, scale = fitted(site, x, x)
    site.shift, site.scale = shift, scale
    sent = Parallel(2).presimulate(site, x)[0].flatten()
    by_hand = [0.5 * k * float(scale) for k in ((x + shift) * 2 + 0.5).floor().flatten().tolist()]
    assert sent.tolist() == pytest.approx(by_hand)
    assert float((sent - x.flatten()).square().mean()) < 0.03  # rounding alone: (2 0.04 + 0.01) / 3
    none, one = fitted(site, torch.zeros_like(x) - 5.0, torch.zeros_like(x))
    assert (float(none), float(one)) == (0.0, 1.0)  # a silent channel stays


def test_bits_of_an_event() -> None:
    timed = (Parallel(8), Phase(3), OneSpike(8))
    assert [coding.bits(Uniform(8, gated=True)) for coding in timed] == [1.0] * 3
    assert Graded(1).bits(Uniform(8, gated=True)) == 3.0
    assert Graded(1).bits(Uniform(8)) == 4.0
    with pytest.raises(ConfigError, match="steps is 0"):
        ts.convert(network(), "parallel", calibration=[pictures()], steps=0)

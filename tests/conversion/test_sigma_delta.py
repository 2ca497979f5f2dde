"""Sigma-delta: its four statements, literal membranes and events, levels, silence."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import topospike as ts
from topospike.conversion import SigmaDeltaMethod
from topospike.errors import ConfigError
from topospike.measure import Conventions
from topospike.snn.coding import SigmaDelta
from topospike.snn.executors import EXECUTORS
from topospike.snn.neurons import MultiThreshold
from topospike.snn.site import START, Site, site_step
from topospike.topology import register_mask


def site_with(levels: int, theta: float, *, gated: bool) -> Site:
    neuron = MultiThreshold(levels, gated=gated)
    site = Site("a", gated=gated, neuron=neuron, coding=SigmaDelta())
    site.threshold = torch.tensor(theta, dtype=torch.float64)
    return site


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return (
        nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(6, 8, 3, stride=2, padding=1),
            nn.ReLU6(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(32, 24),
            nn.ReLU(),
            nn.Linear(24, 5),
        )
        .double()
        .eval()
    )


def pictures(n: int = 24, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 2, 8, 8, dtype=torch.float64, generator=generator)


class Products(nn.Module):
    """Two rectified branches and their product; a mask on one of the layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.a, self.b, self.c = nn.Linear(6, 12), nn.Linear(6, 8), nn.Linear(12, 12)
        register_mask(self.c, torch.rand(12, 12) < 0.4)

    def forward(self, x):
        left = torch.relu(self.c(torch.relu(self.a(x)))).unflatten(1, (3, 4))
        right = torch.relu(self.b(x)).unflatten(1, (4, 2))
        return (left @ right).flatten(1)


# what holds


@settings(deadline=None, max_examples=60)
@given(
    levels=st.integers(1, 10),
    theta=st.floats(0.1, 10.0),
    start=st.floats(-1.5, 1.5),
    gated=st.booleans(),
)
def test_an_error_shrinks_to_a_third_a_step(levels, theta, start, gated):
    site = site_with(levels, theta, gated=gated)
    r_in = torch.tensor([abs(start) * theta if gated else start * theta], dtype=torch.float64)
    least = 0.75 * theta / 2 ** (levels - 1) * (1 + 1e-9)
    state, error = START, r_in.abs()
    for t in range(1, 30):
        state = site_step(site, t, r_in, state)
        now = (r_in - state.decoded).abs()
        # where a gate withholds the nearest value, half of it is left
        share = 2.0 if gated else 3.0
        assert float(now) <= max(float(error) / share * (1 + 1e-9), least)
        error = now
    assert float(error) <= least
    assert state.events == 0


@settings(deadline=None, max_examples=30)
@given(levels=st.integers(1, 8), held=st.floats(0.0, 1.9), below=st.floats(-3.0, 0.0))
def test_a_rectifier_whose_input_turns_negative_halves_and_ends_at_zero(levels, held, below):
    site = site_with(levels, 1.0, gated=True)
    state = START
    for t in range(1, 20):
        state = site_step(site, t, torch.tensor([held], dtype=torch.float64), state)
    before = float(state.decoded)
    for t in range(20, 20 + levels + 3):
        state = site_step(site, t, torch.tensor([below], dtype=torch.float64), state)
        assert float(state.decoded) <= before / 2 + 1e-6
        before = float(state.decoded)
    if below < -0.75 * 2 ** (1 - levels):
        assert before == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("options", [{"levels": 4}, {"levels": 7, "schedule": ()}, {}])
def test_a_silent_network_stays_silent_near_its_activations(options):
    snn = ts.convert(network(), "sigma-delta", calibration=[pictures()], **options)
    x = pictures(8, seed=2)
    nodes = [n for n in snn.ann.graph.nodes if n.op == "call_module"]
    arriving = [n.all_input_nodes[0] for n in nodes]
    quiet = int(snn.settle(x).steps.max()) + 1
    *_, last = snn.watch(x, quiet, arriving)
    ended = last.logits.clone()
    for (name, site), r_in in zip(snn.sites.items(), last.values, strict=True):
        decoded, neuron = last.sites[name].decoded, site.neuron
        least = site.threshold / 2.0 ** (neuron.levels - 1)
        near = (torch.relu(r_in) - decoded).abs() <= 0.75 * least * (1 + 1e-9)
        assert bool((near | (least == 0)).all())
        multiples = torch.where(least > 0, decoded / least, 0.0)
        assert torch.allclose(multiples, multiples.round(), atol=1e-8)
    for step in snn.watch(x, quiet + 20):
        fired = sum(state.events for state in step.sites.values())
        assert step.t < quiet or fired == 0
    assert torch.equal(step.logits, ended)


@pytest.mark.slow
@torch.no_grad()
def test_errors_do_not_add_up_over_frames():
    model, frames = network(), pictures(101, seed=5)
    snn = ts.convert(model, "sigma-delta", calibration=[pictures()], levels=6)
    alone = torch.cat([snn.settle(frame[None]).logits[-1] for frame in frames])
    bound = float((alone - model(frames)).abs().max())
    records = snn.stream((frame[None] for frame in frames), steps=24)
    seen = torch.cat([record.logits.clone() for record in records])
    worst = (seen - model(frames)).abs().amax(1)
    assert float(worst[50:].max()) <= 2 * bound
    assert float(worst[:50].max()) <= 2 * bound


# literal membranes, literal events


def nearest(u: np.ndarray, theta: np.ndarray, levels: int, held: np.ndarray) -> np.ndarray:
    """The spike of every neuron, one comparison after the other."""
    s = np.zeros_like(u)
    for index, value in np.ndenumerate(u):
        for i in range(levels):
            step = theta[index] / 2**i
            if abs(value) >= 0.75 * step and (
                value > 0 or held[index] >= step - 1e-6 * theta[index]
            ):
                s[index] = np.sign(value) * step
                break
    return s


def literal_products(model: Products, snn: ts.SpikingNetwork, x: torch.Tensor, steps: int):
    """Simulate `Products` by membranes and spikes; return outputs and operations of each step."""
    weight = {k: v.detach().numpy() for k, v in model.state_dict().items()}
    sites = list(snn.sites.values())
    levels = [site.neuron.levels for site in sites]
    by_layer = dict(zip(("a", "c", "b"), sites, strict=True))
    outputs, operations = [], []
    for image in x.numpy():
        m = {"a": weight["a.weight"] @ image + weight["a.bias"]}
        m |= {"b": weight["b.weight"] @ image + weight["b.bias"], "c": weight["c.bias"].copy()}
        held = {k: np.zeros_like(v) for k, v in m.items()}
        theta = {
            k: np.broadcast_to(site.threshold.numpy().reshape(-1), m[k].shape)
            for k, site in by_layer.items()
        }
        y, curve, count = np.zeros((3, 2)), [], []
        for t in range(1, steps + 1):
            s = {}
            for k in ("a", "c", "b"):
                n = by_layer[k].neuron
                now = n.schedule[t - 1] if t <= len(n.schedule) else n.levels
                if k == "c":
                    m["c"] = m["c"] + weight["c.weight"] @ s["a"]
                s[k] = nearest(m[k], theta[k], now, held[k])
                m[k] = m[k] - s[k]
            links = weight["c.weight_mask"].sum(0)
            sops = float((links * (s["a"] != 0)).sum())
            left, right = s["c"].reshape(3, 4), s["b"].reshape(4, 2)
            before, after = held["c"].reshape(3, 4), (held["b"] + s["b"]).reshape(4, 2)
            y = y + left @ after + before @ right
            for i, k, j in np.ndindex(3, 4, 2):
                sops += int(left[i, k] != 0 and after[k, j] != 0)
                sops += int(before[i, k] != 0 and right[k, j] != 0)
            held = {k: held[k] + s[k] for k in held}
            curve.append(y.flatten())
            count.append(sops)
        outputs.append(curve)
        operations.append(count)
    assert len(levels) == 3
    return torch.tensor(np.array(outputs)).transpose(0, 1), np.array(operations)


def test_it_equals_membranes_and_spikes_and_their_events():
    model = Products().double().eval()
    x = torch.rand(12, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    snn = ts.convert(model, "sigma-delta", calibration=[x], levels=5)
    outputs, operations = literal_products(model, snn, x, 9)
    assert torch.allclose(snn(x, 9), outputs, atol=1e-10, rtol=0)
    labels = torch.zeros(12, dtype=torch.int64)
    counted = ts.evaluate(snn, [(x, labels)], timesteps=9)
    assert counted.conventions["products"] == "two_term"
    assert counted.sops == pytest.approx(operations.mean(0).cumsum(), abs=1e-9)


def test_with_integer_weights_it_is_exact_integer_arithmetic():
    torch.manual_seed(0)
    site = site_with(6, 32.0, gated=True)
    site.threshold = torch.full((9,), 32.0, dtype=torch.float64)
    weight = torch.randint(-127, 128, (4, 9))
    drive = 60 * torch.rand(5, 9, dtype=torch.float64)
    state, sums, held = START, torch.zeros(5, 4, dtype=torch.int64), None
    for t in range(1, 12):
        state = site_step(site, t, drive, state)
        codes = state.spikes.to(torch.int64)
        assert bool((codes == state.spikes).all())
        assert int(codes.abs().max()) <= 32
        sums = sums + codes @ weight.T
        held = state.decoded
    assert torch.equal(sums.double(), held @ weight.T.double())


# every way to run it


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_executors_and_steps_together_agree(dtype):
    model, x = network().to(dtype), pictures(20).to(dtype)
    snn = ts.convert(model, "sigma-delta", calibration=[x])
    dense = snn(x, 8)
    close = {"atol": 1e-4 if dtype == torch.float32 else 1e-10, "rtol": 0}
    assert torch.allclose(snn(x, 8, executor="event"), dense, **close)
    assert torch.allclose(snn(x[:1], 8), dense[:, :1], **close)
    assert float((snn(x, 8, executor="bf16")[-1] - dense[-1]).norm() / dense[-1].norm()) < 0.2


def test_it_is_saved_with_the_levels_of_every_site(tmp_path):
    snn = ts.convert(network(), "sigma-delta", calibration=[pictures()], tolerance=0.2)
    ts.save(snn, tmp_path)
    again = ts.load(tmp_path)
    assert torch.equal(again(pictures(4), 8), snn(pictures(4), 8))
    assert [s.neuron for s in again.sites.values()] == [s.neuron for s in snn.sites.values()]


# levels


@pytest.mark.slow
@torch.no_grad()
def test_levels_follow_the_tolerance_and_the_report_says_so():
    levels = []
    for tolerance in (0.3, 0.05, 0.005):
        snn = ts.convert(network(), "sigma-delta", calibration=[pictures()], tolerance=tolerance)
        again = ts.convert(network(), "sigma-delta", calibration=[pictures()], tolerance=tolerance)
        chosen = [site.neuron.levels for site in snn.sites.values()]
        assert chosen == [site.neuron.levels for site in again.sites.values()]
        levels.append(chosen)
        assert "levels a site" in snn.report.advice[-1]
        x = pictures()
        error = (snn.settle(x).logits[-1] - network()(x)).norm() / network()(x).norm()
        assert float(error) <= 1.5 * tolerance
    sums = [sum(chosen) for chosen in levels]
    assert sums == sorted(sums)
    assert sums[0] < sums[-1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": 5}, "schedule is 5"),
        ({"schedule": (0, 4)}, "schedule is 0"),
        ({"tolerance": 0.0}, "tolerance is 0"),
        ({"pixels": "yes"}, "pixels is 'yes'"),
        ({"levels": 17}, "levels is 17"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ConfigError, match=message):
        SigmaDeltaMethod(**options)


# silence and streams


def test_a_run_until_silence_ends_by_itself_and_names_images_that_do_not():
    x = pictures(6)
    snn = ts.convert(network(), "sigma-delta", calibration=[pictures()], levels=6)
    run = snn.settle(x)
    assert bool(run.silent.all())
    assert int(run.spikes[-1].sum()) == 0
    assert torch.equal(snn(x, "silent"), run.logits)
    assert torch.equal(snn(x, len(run.logits)), run.logits)
    cut = snn.settle(x, at_most=2)
    assert not bool(cut.silent.any())
    assert len(cut.logits) == 2
    with pytest.raises(ConfigError, match=r"never do.*sigma-delta"):
        ts.convert(network(), "dcgs", calibration=[x]).settle(x)


def test_coarse_first_steps_that_say_nothing_are_not_silence():
    """Activations too small for the coarse ladders of the first steps reach the full one."""
    model = nn.Sequential(nn.Linear(1, 3, bias=False), nn.ReLU(), nn.Linear(3, 2)).double()
    x = torch.linspace(0, 1, 33, dtype=torch.float64)[:, None]
    snn = ts.convert(model, "sigma-delta", calibration=[x], levels=8, schedule=(2, 3))
    faint = x[-1:] / 32
    run = snn.settle(faint)
    assert run.spikes[0].item() == 0
    assert run.spikes.sum().item() > 0
    near = 0.75 * max(float(site.threshold.max()) / 2**7 for site in snn.sites.values())
    bound = near * float(model[2].weight.detach().abs().sum(1).max())
    assert float((run.logits[-1] - model(faint)).detach().abs().max()) <= bound
    assert not bool(snn.settle(faint, at_most=2).silent.any())


@torch.no_grad()
def test_a_channel_hardly_seen_in_calibration_still_falls_silent():
    """Its own quantile would be a tiny threshold, by which it would move once a step."""
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)).double()
    model[0].weight.copy_(torch.eye(2))
    model[0].bias.copy_(torch.tensor([0.0, -1.0]))
    x = torch.rand(2000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x[0, 1] = 1.01  # the second channel is active in one of 2000 images, or in none
    seldom = torch.tensor([[0.5, 3.0]], dtype=torch.float64)
    for calibration in (x, x[1:]):
        snn = ts.convert(model, "sigma-delta", calibration=[calibration], levels=6)
        run = snn.settle(seldom)
        assert bool(run.silent.all())
        assert int(run.steps.max()) <= 20
        assert float((run.logits[-1] - model(seldom)).abs().max()) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("pixels", [False, True])
def test_a_silent_run_is_not_simulated_further_and_counted_the_same(pixels, monkeypatch):
    x = pictures(6)
    labels = torch.zeros(len(x), dtype=torch.int64)
    snn = ts.convert(network(), "sigma-delta", calibration=[pictures()], levels=6, pixels=pixels)
    conventions = Conventions(first_layer="mac_per_step")
    brief = ts.evaluate(snn, [(x, labels)], timesteps=40, conventions=conventions)
    program = type(snn.program(EXECUTORS["decoded"]))
    steps, step = [], program.step

    def counted(*given, together, **options):
        steps.extend(range(together))
        return step(*given, together=together, **options)

    monkeypatch.setattr(program, "step", counted)
    assert ts.evaluate(snn, [(x, labels)], timesteps=40, conventions=conventions) == brief
    assert len(steps) < 40
    for prepared in snn._programs.values():
        monkeypatch.setattr(prepared, "silent_from", 1000)
    steps.clear()
    assert ts.evaluate(snn, [(x, labels)], timesteps=40, conventions=conventions) == brief
    assert len(steps) == 40


def test_sites_on_the_pixels_leave_no_multiplication():
    x = pictures()
    snn = ts.convert(network(), "sigma-delta", calibration=[x], pixels=True)
    result = ts.evaluate(snn, [(x, torch.zeros(len(x), dtype=torch.int64))], timesteps=8)
    assert result.macs == 0
    assert all(layer.input == "spikes" for layer in result.layers)
    first = next(iter(snn.sites.values()))
    assert not first.gated

"""Input that changes with time: the running mean, against a simulation with spike trains."""

import copy
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import nn

import topospike as ts
from topospike.errors import ConfigError, ShapeError
from topospike.snn.executors import EXECUTORS
from topospike.snn.executors.forms import CostModel
from topospike.snn.frames import Shown, mean_of, running_means
from topospike.snn.neurons import at_step

ALWAYS = CostModel(dense_mac=1e9)
METHODS = ["dcgs", "qcfs", "sigma-delta"]


def counts(frames=5, batch=6, *, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    shape = (frames, batch, 2, 5, 5)
    return torch.poisson(torch.full(shape, 0.5), generator=generator).to(dtype)


def network(dtype=torch.float32):
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 3),
    ).to(dtype)  # fmt: skip


@cache
def converted(method="dcgs", input="events", dtype=torch.float32):
    return ts.convert(network(dtype), method, [counts(batch=32, seed=9, dtype=dtype)], input=input)


def as_image(snn):
    """The same network, which is shown an image."""
    other = copy.deepcopy(snn)
    other.report = replace(snn.report, input="image")
    return other


@cache
def suited(method, executor):
    """The integer executor runs networks with quantised weights."""
    snn = converted(method)
    return ts.quantise_weights(snn)[0] if executor == "integer" else snn


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("executor", list(EXECUTORS))
def test_constant_frames_give_the_bits_of_an_image(method, executor):
    snn, image = suited(method, executor), counts(1, batch=20)[0]
    expected = as_image(snn)(image, 9, executor=executor)  # too many images to take steps together
    for frames, hold in ((9, 1), (4, 1), (3, 3), (1, 1)):
        shown = image.expand(frames, *image.shape)
        assert torch.equal(snn(shown, 9, hold=hold, executor=executor), expected)


def test_a_single_frame_takes_its_steps_together():
    snn, image = converted(), counts(1, batch=1)[0]
    assert torch.equal(snn(image[None], 9), as_image(snn)(image, 9))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("executor", list(EXECUTORS))
@pytest.mark.parametrize("hold", [1, 2])
def test_a_run_read_off_at_t_is_a_run_on_what_was_shown_by_then(method, executor, hold):
    snn = copy.deepcopy(suited(method, executor))
    snn.costs = ALWAYS
    frames = counts()
    whole = snn(frames, 5 * hold + 3, hold=hold, executor=executor)
    for shown in range(1, 6):
        part = snn(frames[:shown], shown * hold, hold=hold, executor=executor)
        assert torch.equal(part, whole[: shown * hold])
    fewer = snn(frames, 2, hold=hold, executor=executor)
    assert torch.equal(fewer, whole[:2])


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_executors_agree(method):
    snn = copy.deepcopy(converted(method, dtype=torch.float64))
    snn.costs = ALWAYS
    frames = counts(dtype=torch.float64)
    decoded = snn(frames, 9)
    assert torch.allclose(snn(frames, 9, executor="event"), decoded, atol=1e-10, rtol=0)
    forms = [held.form for held in event_states(snn, frames)]
    assert "events" in forms
    whole, _ = ts.quantise_weights(snn)
    found = whole(frames, 9, executor="integer")
    assert torch.allclose(found, whole(frames, 9), atol=1e-10, rtol=0)


def event_states(snn, frames):
    """What the layers that follow events hold at the third step."""
    program = EXECUTORS["event"].prepare(snn)
    shown = Shown((frames,))
    state = program.start(shown.first)
    for t, moment in enumerate(shown.moments(3), start=1):
        state = program.show(moment.inputs, state) if t > 1 else state
        _, state = program.step(t, state)
    return [held for held in state.layers if hasattr(held, "form")]


def test_large_batches_are_divided_alike():
    snn, frames = converted(), counts(batch=200)
    whole = torch.stack([step.logits.clone() for step in snn.watch(frames, 6)])
    assert torch.allclose(snn(frames, 6), whole, atol=1e-6)


def neurons(snn):
    return list(snn.sites.values())


def fire(site, t, u, emitted):
    """Spikes of a site's neurons; ``emitted`` bounds what a negative spike may take back."""
    neuron = at_step(site.neuron, t)
    return neuron.fire(u, site.threshold, emitted if neuron.gated else None)


def layers_of(model):
    """The three products without their biases, and the biases."""
    conv, first, last = model[0], model[3], model[5]
    by_channel = conv.bias[:, None, None]
    return (
        (lambda x: nn.functional.conv2d(x, conv.weight, stride=2, padding=1), by_channel),
        (lambda x: nn.functional.linear(x.flatten(1), first.weight), first.bias),
        (lambda x: nn.functional.linear(x, last.weight), last.bias),
    )  # fmt: skip


@torch.no_grad()
def literal_rate(snn, model, frames, timesteps):
    """Membranes that add up the currents of frames and spikes; after the last frame their mean."""
    sites, layers = neurons(snn), layers_of(model)
    membranes, totals = [None, None], [0.0, 0.0]
    answer, logits = 0.0, []
    for t in range(1, timesteps + 1):
        # where nothing new is shown the network settles: its input is the mean of all there was
        x = frames[t - 1] if t <= len(frames) else frames.mean(0)
        for i, (site, (product, bias)) in enumerate(zip(sites, layers[:2], strict=True)):
            current = product(x) + bias
            if membranes[i] is None:
                start = site.threshold * at_step(site.neuron, 1).initial_membrane
                membranes[i] = start.expand_as(current).clone()
            membranes[i] = membranes[i] + current
            x = fire(site, t, membranes[i], totals[i] + torch.zeros_like(current))
            membranes[i] = membranes[i] - x
            totals[i] = totals[i] + x
        answer = answer + layers[2][0](x) + layers[2][1]
        logits.append(answer / t)
    return torch.stack(logits)


@torch.no_grad()
def literal_differential(snn, model, frames, timesteps):
    """Spike trains that encode e[t] = r[t-1] + s[t]; weights see spikes alone, never r."""
    sites, layers = neurons(snn), layers_of(model)
    mean = torch.zeros_like(frames[0])
    r_in, r_out, encoded_in, encoded_out = ([None] * 3 for _ in range(4))
    logits = []
    for t in range(1, timesteps + 1):
        spike = frames[t - 1] - mean if t <= len(frames) else torch.zeros_like(mean)
        mean = mean + spike / t
        for i, (product, bias) in enumerate(layers):
            arriving = product(spike)
            if r_in[i] is None:
                r_in[i] = bias.expand_as(arriving)
                encoded_in[i] = r_out[i] = encoded_out[i] = torch.zeros_like(arriving)
            encoded_in[i] = encoded_in[i] + r_in[i] + arriving
            r_in[i] = r_in[i] + arriving / t
            if i == 2:
                continue
            u = encoded_in[i] - encoded_out[i] - r_out[i]
            start = sites[i].threshold * at_step(sites[i].neuron, t).initial_membrane
            spike = fire(sites[i], t, u + start, r_out[i] * t)
            encoded_out[i] = encoded_out[i] + r_out[i] + spike
            r_out[i] = r_out[i] + spike / t
        logits.append(r_in[2])
    return torch.stack(logits)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("method", "literal"), [("dcgs", literal_differential), ("qcfs", literal_rate)]
)
def test_it_is_the_simulation_with_spike_trains(method, literal, seed):
    model, frames = network(torch.float64), counts(7, seed=seed, dtype=torch.float64)
    snn = converted(method, dtype=torch.float64)
    found, expected = snn(frames, 11), literal(snn, model, frames, 11)
    assert found.abs().max() > 0.1
    assert torch.allclose(found, expected, atol=1e-10, rtol=0)


def test_the_ann_beside_it_is_shown_the_mean():
    model, frames = network(), counts()
    snn = converted()
    assert torch.allclose(snn.analog(frames), model(frames.mean(0)), atol=1e-6)
    means = list(running_means(frames))
    assert torch.equal(means[-1], mean_of(frames))
    assert torch.allclose(
        torch.stack(means), frames.cumsum(0) / torch.arange(1, 6).view(-1, 1, 1, 1, 1)
    )


def test_held_frames_count_as_often_as_they_are_shown():
    frames = torch.tensor([[6.0], [0.0]])
    moments = list(Shown((frames,), hold=2).moments(5))
    assert [float(moment.inputs[0]) for moment in moments] == [6.0, 6.0, 4.0, 3.0, 3.0]
    arrived = [None if m.arrived is None else float(m.arrived[0]) for m in moments]
    assert arrived == [6.0, None, 0.0, None, None]
    assert [moment.shown is None for moment in moments] == [False] * 4 + [True]


def test_sigma_delta_settles_on_the_mean_after_the_last_frame():
    snn, frames = converted("sigma-delta", "frames"), counts(6)
    run = snn.settle(frames)
    assert len(run.logits) > 6
    assert bool(run.silent.all())
    scale = snn.analog(frames).abs().max()
    assert (run.logits[-1] - snn.analog(frames)).abs().max() < 0.1 * scale
    assert not snn.settle(frames, at_most=6).silent.any()  # the last frame has only just come
    blank = torch.zeros_like(frames)
    assert len(snn.settle(blank).logits) >= 6


def test_several_inputs():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other, self.head = nn.Linear(4, 6), nn.Linear(3, 6), nn.Linear(6, 2)

        def forward(self, one, other):
            return self.head(torch.relu(self.one(one) + self.other(other)))

    torch.manual_seed(0)
    model, one, other = Pair(), torch.rand(3, 20, 4), torch.rand(3, 20, 3)
    snn = ts.convert(model, calibration=[(one, other)], input="frames")
    run = snn({"other": other, "one": one}, 24)
    assert torch.allclose(run[-1], model(one.mean(0), other.mean(0)), atol=0.1)
    assert torch.equal(snn((one, other), 24), run)


def test_saved_networks_keep_their_input(tmp_path):
    snn, frames = converted(), counts()
    ts.save(snn, tmp_path)
    again = ts.load(tmp_path)
    assert again.report.input == "events"
    assert torch.equal(again(frames, 8), snn(frames, 8))
    labels = torch.arange(6) % 3
    one, other = (ts.evaluate(net, [(frames, labels)], 8) for net in (snn, again))
    assert one == other


def test_wrong_input_is_named():
    snn, frames = converted(), counts()
    with pytest.raises(ShapeError, match=r"\(6, 2, 5, 5\).*\(frame, batch, 2, 5, 5\)"):
        snn(frames[0], 4)
    with pytest.raises(ShapeError, match=r"\(batch, 2, 5, 5\)"):
        as_image(snn)(frames, 4)
    with pytest.raises(ShapeError, match="frames have shape"):
        snn(frames[:0], 4)
    for value, shown in ((-1.0, "-1"), (0.5, "0.5")):
        wrong = frames.clone()
        wrong[2, 1, 0, 0, 0] = value
        with pytest.raises(ConfigError, match=f"holds {shown}, which is no number of events"):
            snn(wrong, 4)
        assert converted(input="frames")(wrong, 4).isfinite().all()
        with pytest.raises(ConfigError, match="calibration batch 0 holds"):
            ts.convert(network(), calibration=[wrong], input="events")
    with pytest.raises(ConfigError, match="hold is 0"):
        snn(frames, 4, hold=0)
    with pytest.raises(ConfigError, match="hold is 2"):
        as_image(snn)(frames[0], 4, hold=2)
    with pytest.raises(ConfigError, match="Did you mean 'events'"):
        ts.convert(network(), calibration=[frames], input="event")


def test_methods_that_cannot_read_frames_say_so():
    frames = counts(batch=16)
    with pytest.raises(ConfigError, match="puts neurons on the pixels"):
        ts.convert(network(), "sigma-delta", [frames], input="events", pixels=True)
    snn = ts.convert(network(), "sigma-delta", [frames], input="frames", pixels=True)
    assert snn(frames, 6).isfinite().all()
    with pytest.raises(ConfigError, match="a stream shows the present one"):
        next(converted("sigma-delta").stream([frames[0]]))


def test_methods_that_look_ahead_say_so():
    model = ts.quantise_activations(network(), counts()[0], kind="s-qcfs", levels=4)
    with pytest.raises(ConfigError, match="frames are not known before they come"):
        ts.convert(model, "offset-spike", [counts(batch=16)], input="frames")

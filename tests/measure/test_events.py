"""Operations of networks that read frames: the first layer against a loop over single events."""

import pytest
import torch
from torch import nn

import topospike as ts
from topospike.conversion import conversion_text
from topospike.errors import ConfigError
from topospike.measure import Conventions, evaluate_conventions, split_saving
from topospike.measure.stream import settling
from topospike.topology import register_mask

FRAMES, BATCH = 2, 3


def frames(seed=0, batch=BATCH, rate=0.6):
    shape = (FRAMES, batch, 2, 5, 5)
    return torch.poisson(torch.full(shape, rate), generator=torch.Generator().manual_seed(seed))


def masked(*before):
    """A network whose first layer has missing links, strides, padding and borders."""
    torch.manual_seed(2)
    conv = nn.Conv2d(2, 4, 3, stride=2, padding=1)
    register_mask(conv, torch.rand(conv.weight.shape) < 0.6)
    with torch.no_grad():
        conv.weight.mul_(conv.weight_mask)
    return nn.Sequential(*before, conv, nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))


def convert(model, input="events", method="dcgs"):
    model(frames()[0])
    return ts.convert(model, method, [frames(seed=5, batch=32)], input=input)


def by_single_events(model, batch, *, nonzero=False, dense=False):
    """Accumulates per image of each frame: every event crosses each link that leaves its pixel."""
    conv = model[0]
    mask = torch.ones_like(conv.weight) if dense else conv.weight_mask
    found = []
    for frame in batch:
        operations = 0
        for image, polarity, y, x in frame.nonzero().tolist():
            events = 1 if nonzero else int(frame[image, polarity, y, x])
            for _ in range(events):
                for down in range(3):
                    for across in range(3):
                        for channel in range(4):
                            for ky in range(3):
                                for kx in range(3):
                                    reaches = (2 * down - 1 + ky, 2 * across - 1 + kx) == (y, x)
                                    operations += reaches and bool(mask[channel, polarity, ky, kx])
        found.append(operations / frame.shape[0])
    return found


def of_first_layer(snn, batch, timesteps=4, **options):
    conventions = Conventions(**{k: v for k, v in options.items() if k != "hold"})
    labels = torch.arange(batch.shape[1]) % 3
    result = ts.evaluate(
        snn, [(batch, labels)], timesteps, conventions=conventions, hold=options.get("hold")
    )
    return result, result.layers[0]


@pytest.mark.parametrize("method", ["dcgs", "qcfs"])
def test_the_first_layer_counts_what_a_loop_over_events_counts(method):
    model, batch = masked(), frames()
    snn = convert(model, method=method)
    result, layer = of_first_layer(snn, batch)
    one, two = by_single_events(model, batch)
    assert layer.input == "events"
    assert layer.sops == pytest.approx((one, one + two, one + two, one + two))
    assert layer.snn_macs == (0.0,) * 4
    entered = batch.sum((1, 2, 3, 4)) / BATCH
    assert result.input_events == pytest.approx([float(entered[0])] + [float(entered.sum())] * 3)


@pytest.mark.parametrize(
    ("options", "loop"),
    [
        ({"input_events": "nonzero"}, {"nonzero": True}),
        ({"first_layer": "ac"}, {"nonzero": True}),
        ({"links": "dense"}, {"dense": True}),
    ],
)
def test_other_conventions(options, loop):
    model, batch = masked(), frames()
    _, layer = of_first_layer(convert(model), batch, **options)
    one, two = by_single_events(model, batch, **loop)
    assert layer.sops[:2] == pytest.approx((one, one + two))


def test_held_frames_cost_once_or_at_every_step():
    model, batch = masked(), frames()
    one, two = by_single_events(model, batch)
    snn = convert(model)
    result, layer = of_first_layer(snn, batch, hold=2)
    assert layer.sops == pytest.approx((one, one, one + two, one + two))
    assert (result.conventions["hold"], result.conventions["input"]) == (2, "events")
    _, layer = of_first_layer(snn, batch, timesteps=5, hold=2, first_layer="mac_per_step")
    steps = (one, 2 * one, 2 * one + two, 2 * one + 2 * two, 2 * one + 2 * two)
    assert layer.sops == pytest.approx(steps)


def test_frames_of_numbers_cost_a_mac_for_each_link_and_frame():
    model, batch = masked(), frames()
    snn = convert(model, "frames")
    result, layer = of_first_layer(snn, batch)
    links = layer.macs
    assert links == sum(by_single_events(model, torch.ones(1, 1, 2, 5, 5)))
    assert layer.snn_macs == (links, 2 * links, 2 * links, 2 * links)
    assert layer.sops == (0.0,) * 4
    assert result.input_events == ()
    assert "input_events" not in result.conventions
    _, layer = of_first_layer(snn, batch, hold=2, first_layer="mac_per_step")
    assert layer.snn_macs == tuple(links * t for t in (1, 2, 3, 4))
    _, layer = of_first_layer(snn, batch, first_layer="ac")
    assert layer.sops[1] == pytest.approx(sum(by_single_events(model, batch, nonzero=True)))


def test_one_frame_costs_what_an_image_costs():
    model, batch = masked(), frames()[:1]
    _, layer = of_first_layer(convert(model, "frames"), batch)
    image = ts.convert(model, calibration=[frames(seed=5, batch=32).mean(0)])
    result = ts.evaluate(image, [(batch[0], torch.arange(BATCH) % 3)], 4)
    assert result.layers[0].snn_macs == layer.snn_macs
    assert "input" not in result.conventions
    assert result.ann_accuracy_per_step == result.input_events == ()


def test_events_pass_an_average_and_stop_at_a_maximum():
    batch = frames()
    pooled = convert(masked(nn.AvgPool2d(2, stride=1)))
    _, layer = of_first_layer(pooled, batch)
    fan_out = pooled.wiring[0].arrivals[0].fan_out
    expected = float((batch.sum(1) * fan_out).sum()) / BATCH
    assert layer.sops[-1] == pytest.approx(expected)
    assert fan_out[:, 0, 0].sum() < fan_out[:, 2, 2].sum()  # an inner pixel is in four windows
    stopped = convert(masked(nn.MaxPool2d(2, stride=1)))
    _, layer = of_first_layer(stopped, batch)
    assert layer.input == "image"
    assert layer.snn_macs == (layer.macs, 2 * layer.macs, 2 * layer.macs, 2 * layer.macs)
    said = "is counted as a MAC for each link and frame, because aten.max_pool2d"
    assert any(said in sentence for sentence in stopped.report.advice)
    assert "input: events" in conversion_text(stopped.report)


def test_curves_and_energy():
    model, batch = masked(), frames(batch=9)
    snn, labels = convert(model), torch.arange(9) % 3
    result = ts.evaluate(snn, [(batch[:, :5], labels[:5]), (batch[:, 5:], labels[5:])], 6)
    means = (batch[0], batch.mean(0))
    expected = [float((model(mean).argmax(1) == labels).float().mean()) for mean in means]
    assert result.ann_accuracy_per_step == pytest.approx(expected)
    assert result.ann_accuracy == pytest.approx(expected[-1])
    assert result.images == 9
    sops = [sum(layer.sops[t] for layer in result.layers) for t in range(6)]
    assert result.energy_joule == pytest.approx([s * 0.9e-12 for s in sops])
    saving = split_saving(result, 6)
    assert saving.ratio == pytest.approx(result.energy_joule[-1] / result.ann_dense_energy_joule)
    assert sum(saving.shares().values()) == pytest.approx(1)


def test_every_convention_is_printed_and_kept(tmp_path):
    snn, batch = convert(masked()), frames()
    found = evaluate_conventions(snn, [(batch, torch.arange(BATCH) % 3)], 3)
    assert {run.conventions["input_events"] for run in found} == {"count", "nonzero"}
    words = Conventions(input_events="nonzero").in_words()["input_events"]
    assert "one event, whatever its size" in words
    with pytest.raises(ConfigError, match="Did you mean 'count'"):
        Conventions(input_events="counts")
    found[0].save(tmp_path / "evaluation.json")
    assert type(found[0]).load(tmp_path / "evaluation.json") == found[0]


def test_single_recordings_until_silence():
    snn = convert(masked(), method="sigma-delta")
    run = settling(snn, [frames(batch=8)], images=4)
    assert all(run.silent)
    assert len(run.spikes) > FRAMES
    assert min(run.energy_joule) > 0

"""Answers that come late: read out from some step on, or after layers that wait."""

import math

import pytest
import torch
from torch import nn

import topospike as ts
from topospike.contracts import ActivationComparison, Evaluation
from topospike.conversion.methods.balancing import best_delay
from topospike.conversion.methods.method import method_of
from topospike.errors import ConfigError, ConversionError
from topospike.export import export_csr
from topospike.measure.compare import compare_activations
from topospike.measure.pareto import pareto_front


def network(depth: int = 3) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(6, 12)]
    for _ in range(depth - 1):
        layers += [nn.ReLU(), nn.Linear(12, 12)]
    return nn.Sequential(*layers, nn.ReLU(), nn.Linear(12, 4)).double().eval()


def rows(n: int = 40, seed: int = 1) -> torch.Tensor:
    return torch.randn(n, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def converted(delay: int, depth: int = 3) -> ts.SpikingNetwork:
    return ts.convert(network(depth), "cs-qcfs", calibration=[rows()], readout_delay=delay)


def test_one_neuron_by_hand() -> None:
    """theta = 1, r_in = 0.29, start at 1/2: spikes at steps 2 and 6 (0.5 + 0.29 t >= 1, then 2)."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False))
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[2].weight.fill_(2.0)
    x = torch.tensor([[0.29]])
    known = {"calibration": [torch.rand(9, 1)], "thresholds": {"1": 1.0}}
    mean = ts.convert(model, "qcfs", **known)(x, 6).flatten().tolist()
    assert mean == pytest.approx([0.0, 2 / 2, 2 / 3, 2 / 4, 2 / 5, 4 / 6])
    late = ts.convert(model, "qcfs", readout_delay=2, **known)(x, 6).flatten().tolist()
    assert all(math.isnan(value) for value in late[:2])
    assert late[2:] == pytest.approx([0.0, 0.0, 0.0, 2 / 4], abs=1e-6)


@torch.no_grad()
@pytest.mark.parametrize(("method", "delay"), [("cs-qcfs", 1), ("ltb", 4)])
def test_it_is_the_mean_of_the_late_outputs_of_a_slow_simulation(method, delay) -> None:
    """Spike trains, membranes and outputs written out; nothing is decoded."""
    model, x, steps = network(), rows(7, 2), 9
    snn = ts.convert(model, method, [rows()], readout_delay=delay)
    layers = [layer for layer in model if isinstance(layer, nn.Linear)]
    thetas = [site.threshold for site in snn.sites.values()]
    membranes = [theta / 2 for theta in thetas]
    outputs = []
    for _ in range(steps):
        sent = layers[0](x)
        for number, theta in enumerate(thetas):
            membranes[number] = membranes[number] + sent
            spikes = (membranes[number] >= theta) * theta
            membranes[number] = membranes[number] - spikes
            sent = layers[number + 1](spikes)
        outputs.append(sent)
    answers = snn(x, steps)
    assert bool(answers[:delay].isnan().all())
    for t in range(delay + 1, steps + 1):
        expected = torch.stack(outputs[delay:t]).mean(0)
        torch.testing.assert_close(answers[t - 1], expected, rtol=0, atol=1e-10)


@torch.no_grad()
def test_every_way_to_run_gives_the_same_answers() -> None:
    snn, x = converted(2), rows(3, 3)
    expected = torch.cat([snn(image[None], 7) for image in x], dim=1)  # steps taken together
    for executor in ("decoded", "event"):
        torch.testing.assert_close(snn(x, 7, executor=executor), expected, equal_nan=True)
    watched = torch.stack([step.logits.clone() for step in snn.watch(x, 7)])
    torch.testing.assert_close(watched, expected, equal_nan=True)
    stepped = torch.stack([logits.clone() for _, logits in snn.steps(x, 7)])
    torch.testing.assert_close(stepped, expected, equal_nan=True)
    plain = converted(0)
    assert bool(plain(x, 7).isfinite().all())
    twice = ts.convert(network(), "qcfs", [rows()], readout_delay=6)(x, 6)
    assert bool(twice.isnan().all())


def test_a_step_without_an_answer_is_wrong_and_no_part_of_t0(tmp_path) -> None:
    snn, x = converted(3), rows(40, 4)
    labels = network()(x).argmax(1)
    metrics = ["accuracy", "agreement", "perplexity", "mean_iou"]
    result = ts.evaluate(snn, [(x, labels)], 12, metric=metrics)
    plain = ts.evaluate(converted(0), [(x, labels)], 12)
    assert result.accuracy[:3] == (0.0, 0.0, 0.0) == result.metrics["agreement"][:3]
    assert min(result.accuracy[3:]) > 0.3
    assert all(math.isnan(value) for value in result.metrics["perplexity"][:3])
    answers = snn(x, 12)
    for t in range(4, 13):
        right = (answers[t - 1].argmax(1) == labels).double().mean()
        assert result.accuracy[t - 1] == pytest.approx(float(right))
    # the same spikes are paid for; T0 is read from step 4 on, as if that were the first
    assert result.sops == plain.sops
    late = ts.saturation_time(result.accuracy[3:])
    assert result.saturation_time == (None if late is None else late + 3)
    assert ts.saturation_time((0.0,) * 5 + (0.9,) * 5, first=6) == 10
    assert ts.saturation_time((0.0,) * 5 + (0.9,) * 5) == 5  # what it would be otherwise
    assert result.wider.first_answer == 4
    assert plain.wider.first_answer == 1
    result.save(tmp_path / "evaluation.json")
    again = Evaluation.load(tmp_path / "evaluation.json")
    assert again.accuracy == result.accuracy
    assert again.wider == result.wider
    assert min(point.timestep for point in pareto_front({"late": result})) >= 4


def test_the_comparison_of_activations_has_no_output_before_the_answer(tmp_path) -> None:
    found = compare_activations(converted(2), [rows(20, 5)], timesteps=(1, 6))
    first, last = (next(s for s in found.at(t) if s.site == "output") for t in (1, 6))
    assert (first.relative_error, first.correlation) == (1.0, None)
    assert last.relative_error < 1.0
    found.save(tmp_path / "activations.json")
    assert ActivationComparison.load(tmp_path / "activations.json") == found


def test_it_is_saved_said_and_refused_by_name(tmp_path) -> None:
    snn, x = converted(2), rows(5, 6)
    ts.save(snn, tmp_path / "network")
    again = ts.load(tmp_path / "network")
    torch.testing.assert_close(again(x, 5), snn(x, 5), rtol=0, atol=0, equal_nan=True)
    assert method_of(again.report).readout_delay == again.report.readout_delay == 2
    assert any("steps 3 and later" in sentence for sentence in snn.report.advice)
    assert not any("later; up to" in sentence for sentence in converted(0).report.advice)
    for export in (ts.export_nir, lambda net, path: ts.simulate_chip(net, x)):
        with pytest.raises(ConversionError, match=r"read out late \(readout_delay=2\)"):
            export(snn, tmp_path / "network.nir")
    with pytest.raises(ConversionError, match=r"read out late \(readout_delay=2\)"):
        ts.wrap_for_neurobench(snn)
    export_csr(snn, tmp_path / "csr")
    with pytest.raises(ConfigError, match="readout_delay is -1"):
        converted(-1)
    with pytest.raises(ConfigError, match="means anew"):
        ts.convert(network(), "srp", [rows()], readout_delay=2)
    with pytest.raises(ConfigError, match="has no option 'readout_delay'"):
        ts.convert(network(), "dcgs", [rows()], readout_delay=2)


@pytest.mark.slow
def test_ltb_chooses_the_delay_on_calibration_images() -> None:
    """The choice against every delay tried out; on a deep network it is not 0."""
    model, x = network(8), 3.0 * rows(64, 7)
    with torch.no_grad():  # as large behind every layer as before it
        for layer in model[1::2]:
            layer.weight.mul_(2.4)
            layer.bias.mul_(0.1)
    snn = ts.convert(model, "ltb", [x], passes=3)
    chosen = snn.report.readout_delay
    assert snn.report.options["readout_delay"] is None  # what was asked for
    error = []
    for delay in range(8):
        one = ts.convert(model, "ltb", [x], passes=3, readout_delay=delay)
        error.append(float((one(x, 8)[-1] - model(x)).norm().detach()))
    assert chosen == min(range(8), key=error.__getitem__) > 0
    undelayed = ts.convert(model, "ltb", [x], passes=3, readout_delay=0)
    assert best_delay(undelayed, (x,), 8) == chosen
    assert bool(snn(x, 8)[chosen - 1].isnan().all())
    assert bool(snn(x, 8)[chosen:].isfinite().all())


@pytest.mark.slow
@pytest.mark.parametrize(("method", "steps"), [("parallel", 5), ("phase", 5), ("graded", 1)])
def test_layers_that_wait_answer_at_t_and_take_layers_times_t_on_a_chip(method, steps) -> None:
    options = {} if method == "graded" else {"steps": steps}
    snn, x = ts.convert(network(), method, [rows()], **options), rows(20, 8)
    labels = network()(x).argmax(1)
    result = ts.evaluate(snn, [(x, labels)], 9)
    assert result.saturation_time == steps  # nothing changes after it
    assert len(set(result.accuracy[steps - 1 :])) == 1
    layers = len(snn.wiring)
    assert result.wider.chip_steps[steps - 1] == layers * steps
    assert result.wider.first_answer == steps
    if steps > 1:
        early = ts.evaluate(snn, [(x, labels)], steps - 1)
        assert early.saturation_time is None
    usual = ts.evaluate(converted(0), [(x, labels)], 9)
    assert usual.wider.chip_steps[8] == 9 + layers - 1

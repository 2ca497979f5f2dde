"""Every metric against its definition; labels that do not fit are an error and never a number."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from topospike.contracts import Evaluation
from topospike.conversion import convert
from topospike.errors import ConfigError, ShapeError
from topospike.measure import METRICS, Metric, evaluate, pareto_front, reprice, saturation_time
from topospike.measure.metrics import MetricSums
from topospike.measure.pareto import FrontPoint, iso_accuracy_energy

CLASSES = 7


def measured(name: str, outputs: Tensor, targets: Tensor | None, parts: int = 1) -> float:
    """Return a metric of some outputs, added up over parts of them."""
    sums = MetricSums(METRICS[name], 1)
    pieces = [None] * parts if targets is None else targets.tensor_split(parts)
    for piece, target in zip(outputs.tensor_split(parts), pieces, strict=True):
        sums.begin_batch(piece, target, "batch 0")
    return sums.values()[0]


def outputs_and_labels(seed: int, places: tuple[int, ...], last: bool) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    shape = (6, *places, CLASSES) if last else (6, CLASSES, *places)
    labels = torch.randint(0, CLASSES, (6, *places), generator=g)
    labels[torch.rand(labels.shape, generator=g) < 0.2] = -100
    return torch.randn(shape, generator=g), labels


@settings(deadline=None, derandomize=True, max_examples=20)
@given(st.integers(0, 1000), st.sampled_from([(), (5,), (3, 4)]), st.booleans(), st.integers(1, 4))
def test_metrics_are_what_their_names_say(
    seed: int, places: tuple[int, ...], last: bool, parts: int
) -> None:
    outputs, labels = outputs_and_labels(seed, places, last)
    flat = (outputs if last or not places else outputs.movedim(1, -1)).reshape(-1, CLASSES)
    y = labels.reshape(-1)
    kept = y != -100
    if not kept.any():
        return
    found = flat.argmax(1)

    def value(name: str) -> float:
        return measured(name, outputs, labels, parts)

    assert value("accuracy") == pytest.approx(float((found == y)[kept].double().mean()))
    best = flat.topk(5, 1).indices
    assert value("top5") == pytest.approx(float((best == y[:, None]).any(1)[kept].double().mean()))
    assert value("perplexity") == pytest.approx(math.exp(float(F.cross_entropy(flat, y))), 1e-5)
    shares = []
    for k in range(CLASSES):
        a, b = (found == k) & kept, (y == k) & kept
        if (a | b).any():
            shares.append(float((a & b).sum()) / float((a | b).sum()))
    assert value("mean_iou") == pytest.approx(sum(shares) / len(shares))
    targets = torch.randn(outputs.shape)
    assert measured("mse", outputs, targets, parts) == pytest.approx(
        float(F.mse_loss(outputs, targets)), 1e-5
    )


@pytest.mark.parametrize("shape", [(6, 4), (6, 5, 4), (6, 4, 3, 3)])
def test_agreement_is_the_share_of_equal_answers(shape: tuple[int, ...]) -> None:
    of_ann, outputs = torch.randn(shape), torch.randn(shape)
    sums = MetricSums(METRICS["agreement"], 1)
    sums.begin_batch(of_ann, None, "batch 0")
    sums.add(1, outputs)
    axis = 2 if len(shape) == 3 else 1
    expected = float((of_ann.argmax(axis) == outputs.argmax(axis)).double().mean())
    assert sums.values() == [1.0, pytest.approx(expected)]


def network(outputs: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, outputs)).eval()


X = torch.rand(8, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(8) % 3


@pytest.fixture(scope="module")
def snn():
    return convert(network(), calibration=[X])


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (torch.zeros(8), r"labels are torch\.float32.*metric='mse'"),
        (torch.rand(8, 3), r"labels are torch\.float32.*argmax\(1\) of soft labels"),
        (F.one_hot(Y, 3), r"labels of shape \(8, 3\).*labels of shape \(8,\) would fit.*one-hot"),
        (Y[:, None], r"labels of shape \(8, 1\) do not belong to outputs of shape \(8, 3\)"),
        (torch.zeros(8, 6, 6, dtype=torch.int64), r"labels of shape \(8, 6, 6\) do not belong"),
        (Y[:5], "5 labels came with 8 images"),
        (Y + 1, r"a label is 3, but the network has 3 classes.*-100"),
        (Y - 1, "a label is -1"),
        ([0, 1], "the labels are list"),
    ],
)
@pytest.mark.parametrize("metric", ["accuracy", "perplexity", "mean_iou"])
def test_labels_that_do_not_fit_are_refused(snn, targets, message: str, metric: str) -> None:
    with pytest.raises(ShapeError, match=message):
        evaluate(snn, [(X, targets)], 1, metric=metric)


@pytest.mark.parametrize(
    ("targets", "metric", "error", "message"),
    [
        (torch.rand(8), "mse", ShapeError, r"targets have shape \(8,\), the outputs \(8, 3\)"),
        (Y, "top5", ConfigError, "3 classes; at least 6"),
        (None, "accuracy", ConfigError, "batch 0 has no labels.*metric='agreement'"),
        (Y, "acuracy", ConfigError, "unknown metric 'acuracy'.*Did you mean 'accuracy'"),
        (Y, [], ConfigError, "at least one"),
        (Y, ["mse", "mse"], ConfigError, "each of another name"),
        (Y, 3, ConfigError, "metric is 3"),
    ],
)
def test_a_metric_that_cannot_be_measured_is_refused(snn, targets, metric, error, message) -> None:
    with pytest.raises(error, match=message):
        evaluate(snn, [(X, targets)], 1, metric=metric)


def test_one_output_is_no_classification() -> None:
    single = convert(network(1), calibration=[X])
    for metric, y in (("accuracy", torch.zeros(8, dtype=torch.int64)), ("agreement", None)):
        with pytest.raises(ShapeError, match=r"at least two classes|several classes"):
            evaluate(single, [(X, y)], 1, metric=metric)
    assert evaluate(single, [(X, torch.zeros(8, 1))], 1, metric="mse").metrics["mse"][0] > 0


def test_labels_that_fit_two_axes_are_refused() -> None:
    outputs, labels = torch.randn(2, 4, 4), torch.zeros(2, 4, dtype=torch.int64)
    with pytest.raises(ShapeError, match="both axes fit"):
        METRICS["accuracy"].check(outputs, labels)


def test_several_metrics_functions_and_their_record(snn, tmp_path) -> None:
    def wrong(outputs: Tensor, labels: Tensor) -> tuple[Tensor, int]:
        return (outputs.argmax(1) != labels).sum(), len(labels)

    error = Metric("error", wrong, lower_is_better=True)
    result = evaluate(snn, [(X, Y)], 6, metric=[error, "accuracy", wrong, "agreement"])
    assert list(result.metrics) == ["error", "accuracy", "wrong", "agreement"]
    assert result.metrics["accuracy"] == result.accuracy
    assert result.metrics["wrong"] == result.metrics["error"]
    assert result.metrics["error"] == pytest.approx([1 - a for a in result.accuracy])
    assert result.ann_metrics["accuracy"] == result.ann_accuracy
    assert result.lower_is_better == ("error",)
    assert result.saturation_time == saturation_time(result.metrics["error"], lower_is_better=True)
    assert pareto_front({"a": result}, "error")[-1].value == min(result.metrics["error"])
    result.save(tmp_path / "evaluation.json")
    assert Evaluation.load(tmp_path / "evaluation.json") == result


def test_a_record_without_accuracy_is_saved_as_valid_json_and_read_again(snn, tmp_path) -> None:
    path = tmp_path / "evaluation.json"
    result = evaluate(snn, [X], 3, metric="agreement")
    assert result.accuracy == ()
    assert math.isnan(result.ann_accuracy)
    result.save(path)
    assert json.loads(path.read_text(), parse_constant=pytest.fail)["ann_accuracy"] is None
    again = Evaluation.load(path)
    assert again.metrics == result.metrics
    assert again.sops == result.sops
    with pytest.raises(ConfigError, match=r"'accuracy'.*measured for agreement"):
        pareto_front({"a": again})


def test_a_record_of_an_earlier_version_is_read(snn, tmp_path) -> None:
    path = tmp_path / "evaluation.json"
    result = evaluate(snn, [(X, Y)], 3)
    result.save(path)
    old = json.loads(path.read_text())
    for key in ("metrics", "ann_metrics", "lower_is_better", "advice"):
        del old[key]
    path.write_text(json.dumps(old))
    again = Evaluation.load(path)
    assert again.metrics == {"accuracy": result.accuracy}
    assert again.ann_metrics == {"accuracy": result.ann_accuracy}


def test_fronts_and_targets_follow_the_direction_of_the_metric(snn) -> None:
    result = evaluate(snn, [(X, torch.zeros(8, 3))], 8, metric="mse")
    front = pareto_front({"a": result}, "mse")
    values = [point.value for point in front]
    assert values == sorted(values, reverse=True)
    assert values[-1] == min(result.metrics["mse"])
    reached = iso_accuracy_energy(result, 1e9, "mse")
    assert reached == FrontPoint("", 1, result.energy_joule[0], result.metrics["mse"][0])
    assert iso_accuracy_energy(result, -1.0, "mse") is None


def test_a_network_dearer_than_its_ann_says_so() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 200)).eval()
    long = convert(model, "qcfs", [X], timesteps=64)
    result = evaluate(long, [X], 64, metric="agreement")
    assert result.energy_joule[-1] > result.ann_energy_joule
    (sentence,) = result.advice
    cheaper = sum(energy < result.ann_energy_joule for energy in result.energy_joule)
    times = result.energy_joule[-1] / result.ann_energy_joule
    assert f"At t = 64 the spiking network costs {times:.2f} times its ANN" in sentence
    assert str(cheaper) in sentence or cheaper == 0
    assert evaluate(long, [X], 1, metric="agreement").advice == ()
    assert reprice(result, "loihi").advice != result.advice

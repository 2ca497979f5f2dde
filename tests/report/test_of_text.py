"""A page about a language model: perplexity where other pages have accuracy."""

import dataclasses
import json
import math

import pytest

from topospike.report.charts.accuracy import accuracy_figure, pareto_figure
from topospike.report.charts.svg import write_svg_figures
from topospike.report.charts.training import learning_curves, perplexities, training_figure
from topospike.report.folder import read_run
from topospike.report.page import build_page
from topospike.report.simulation import Measured, trajectories

CURVE = tuple(3.0 + 20.0 / t for t in range(1, 33))


@pytest.fixture
def run_of_text(run_writer, evaluation_of):
    folder = run_writer(methods=("dcgs",), dense=False)
    result = dataclasses.replace(
        evaluation_of(sparse=True, method="dcgs"),
        metrics={
            "perplexity": CURVE,
            "accuracy": evaluation_of(sparse=True, method="dcgs").accuracy,
        },
        ann_metrics={"perplexity": 3.25, "accuracy": 0.975},
        lower_is_better=("perplexity",),
    )
    result.save(folder / "conversions" / "dcgs" / "evaluation.json")
    summary = json.loads((folder / "summary.json").read_text())
    for row in summary["rows"]:
        row |= {"metric": "perplexity", "ann_value": 3.25, "snn_value": CURVE[7]}
    (folder / "summary.json").write_text(json.dumps(summary))
    record = json.loads((folder / "record.json").read_text())
    record["data"] |= {"channels": 0, "image_size": [0, 0], "context": 128}
    (folder / "record.json").write_text(json.dumps(record))
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    with_loss = [json.loads(line) for line in lines]
    for line in with_loss:
        if line["kind"] == "epoch":
            line["validation_loss"] = math.log(2.0)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in with_loss))
    return folder


def test_the_page_speaks_of_perplexity(run_of_text):
    page = build_page(read_run(run_of_text))
    assert "has a perplexity of 5.500 on the test data, 2.25 above its ANN" in page.headline
    assert page.headline.count("per context") == 1
    groups = {group.key: group for group in page.groups}
    assert groups["result"].tables[0].columns[1:4] == (
        "ANN perplexity", "SNN perplexity", "energy per context"
    )  # fmt: skip
    assert groups["result"].tables[0].rows[0][1:3] == ("3.250", "5.500")
    assert groups["energy"].title == "Perplexity and energy"
    assert "a token costs 1/128 of it" in groups["energy"].sentences[0]
    assert [figure.title for figure in groups["energy"].figures[:2]] == [
        "Perplexity against energy", "Perplexity over time",
    ]  # fmt: skip
    assert ("tokens of a context", "128") in page.facts


def test_the_charts_hold_the_perplexities(run_of_text):
    lines = trajectories(read_run(run_of_text))
    for figure in (pareto_figure(lines), accuracy_figure(lines)):
        (panel,) = figure.panels  # no close-up: that is of shares
        assert panel.layout["yaxis"]["type"] == "log"
        assert list(CURVE) in [list(trace["y"]) for trace in panel.traces]
    assert "down and to the left" in pareto_figure(lines).caption
    assert (run_of_text / "figures" / "pareto.svg") in write_svg_figures(read_run(run_of_text))


def test_the_learning_curve_is_of_perplexity(run_of_text):
    curves = learning_curves(read_run(run_of_text))
    loss, quality = training_figure(curves, of_text=True).panels
    assert (loss.key, quality.key) == ("learning-loss", "learning-perplexity")
    train, validation = quality.traces
    assert train["y"] == pytest.approx([math.exp(x) for x in curves[0].train_loss])
    assert validation["y"] == pytest.approx([2.0] * len(curves[0].epochs))
    assert perplexities((None, 0.0, 1e4)) == (None, 1.0, None)


@pytest.mark.parametrize(
    ("name", "value", "written"),
    [("accuracy", 0.5, "50.00"), ("perplexity", 12.3456, "12.35"), ("mse", None, "–")],  # noqa: RUF001
)
def test_values_as_they_are_written(name, value, written):
    assert Measured(name).written(value).startswith(written)

"""Data behind the training figures."""

import json

import pytest

from topospike.report.charts.training import learning_curves, topology_histories
from topospike.report.folder import read_run
from topospike.report.page import build_page


def read_lines(path, kind):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def test_learning_curves_are_the_columns_of_the_log(complete_run):
    for curve in learning_curves(read_run(complete_run)):
        place = complete_run / "dense" if curve.network == "dense" else complete_run
        lines = read_lines(place / "metrics.jsonl", "epoch")
        for name in ("train_loss", "train_accuracy", "validation_accuracy"):
            assert list(getattr(curve, name)) == [line[name] for line in lines]
        assert curve.epochs == tuple(range(24))


def test_topology_changes_are_summed_over_layers(complete_run):
    (history,) = topology_histories(read_run(complete_run))
    lines = read_lines(complete_run / "metrics.jsonl", "topology_update")
    for name in ("removed", "percolated", "grown"):
        expected = [sum(layer[name] for layer in line["layers"].values()) for line in lines]
        assert list(getattr(history, name)) == expected
    links = [sum(layer["active_after"] for layer in line["layers"].values()) for line in lines]
    assert list(history.links) == links
    assert list(history.anp) == [line["anp"] for line in lines]


def test_a_dense_network_has_no_topology_history(complete_run):
    assert [item.network for item in topology_histories(read_run(complete_run))] == ["chts"]


@pytest.mark.parametrize("unit", ["epoch", "step"])
def test_updates_are_numbered_by_what_the_recipe_counts(run_writer, unit):
    folder = run_writer()
    record = json.loads((folder / "record.json").read_text())
    record["recipe"]["sparsity"]["update_unit"] = unit
    (folder / "record.json").write_text(json.dumps(record))
    page = build_page(read_run(folder))
    (updates,) = (figure for figure in page.figures if figure.key == "updates")
    for panel in updates.panels:
        assert panel.layout["xaxis"]["title"]["text"] == unit
        assert all(text.startswith(f"{unit} ") for trace in panel.traces for text in trace["text"])

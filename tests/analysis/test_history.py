"""Topologies over training, and what training recorded."""

import json

import numpy as np
import pytest

from topospike.analysis import (
    analyse,
    read_history,
    read_updates,
    save_history,
    topology_history,
)
from topospike.analysis.history import evolution, percolation
from topospike.contracts import LayerChange, TopologyUpdate, to_json
from topospike.errors import CheckpointError, ConfigError, MissingDataError


def series():
    rng = np.random.default_rng(0)
    return {
        20: {"fc1": rng.random((30, 40)) < 0.05, "fc2": rng.random((20, 30)) < 0.05},
        10: {"fc1": rng.random((30, 40)) < 0.1, "fc2": rng.random((20, 30)) < 0.1},
        30: {"fc1": np.zeros((30, 40), dtype=bool), "fc2": np.zeros((20, 30), dtype=bool)},
    }


def update(index, percolated):
    change = LayerChange(10, 3, percolated, 3 + percolated, 10, 10, 0, 0.0)
    return TopologyUpdate(index, 2 * index, {"fc1": change, "fc2": change}, 0.9, 0.8, 0.7, 0.3)


def written(tmp_path, lines):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_points_are_ordered_and_agree_with_the_report():
    points = topology_history(series(), nulls=3)
    assert [point.update for point in points] == [10, 20, 30]
    report = analyse(series()[10], nulls=3)
    assert (points[0].gamma, points[0].anp) == (report.gamma, report.anp)
    assert points[0].index == report.meta_depth.index
    assert (points[2].links, points[2].gamma, points[2].index) == (0, None, None)


def test_training_records_are_read_back(tmp_path):
    lines = [json.dumps({"kind": "thresholds", "sites": {}})]
    lines += [json.dumps({"kind": "topology_update", **to_json(update(k, k))}) for k in (1, 2)]
    points = read_updates(written(tmp_path, lines))
    assert [(p.update, p.epoch, p.percolated) for p in points] == [(1, 2, 2), (2, 4, 4)]
    assert (points[0].anp, points[0].anp_hidden, points[0].itop_rate) == (0.8, 0.7, 0.3)
    assert points[0].seconds is None
    timed = {"kind": "topology_update", **to_json(update(3, 3)), "seconds": 0.5}
    assert read_updates(written(tmp_path, [json.dumps(timed)]))[0].seconds == 0.5


def test_figures_hold_one_line_per_measure(tmp_path):
    figure = evolution(topology_history(series(), nulls=2))
    assert [len(axes.lines) for axes in figure.axes] == [1, 2, 1, 1]
    assert np.isnan(figure.axes[0].lines[0].get_ydata()[2])
    lines = [json.dumps({"kind": "topology_update", **to_json(update(1, 5))})]
    figure = percolation(read_updates(written(tmp_path, lines)))
    assert figure.axes[1].lines[0].get_ydata().tolist() == [10]


def test_points_have_an_error_and_a_file(tmp_path):
    points = topology_history(series(), nulls=2)
    report = analyse(series()[10], nulls=0)
    assert (points[0].sigma, points[0].active) == (report.sigma, report.graph.active_nodes)
    band = evolution(points).axes[0].collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == min(p.gamma - p.sigma for p in points[:2])
    path = tmp_path / "history.json"
    assert read_history(path) == ()
    save_history(points, path)
    assert read_history(path) == points
    path.write_text('{"points": [{"update": 1}]}')
    with pytest.raises(CheckpointError, match=r"history.json is damaged.*analyse the run again"):
        read_history(path)


def test_bad_input_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no topology was given"):
        topology_history({})
    with pytest.raises(ConfigError, match="no point to draw"):
        evolution(())
    with pytest.raises(ConfigError, match="may be dense or static"):
        percolation(())
    with pytest.raises(MissingDataError, match="does not exist"):
        read_updates(tmp_path / "metrics.jsonl")
    broken = json.dumps({"kind": "topology_update", "epoch": 1})
    with pytest.raises(CheckpointError, match="line 1 is damaged"):
        read_updates(written(tmp_path, [broken]))

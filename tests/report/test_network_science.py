"""The tables of the topology chapter say what the report holds, and nothing it does not."""

import numpy as np
import pytest

from topospike.analysis import analyse
from topospike.report.network_science import measures_table, parts_table, rivals_table


@pytest.fixture(scope="module")
def report():
    rng = np.random.default_rng(0)
    masks = [rng.random((30, 40)) < 0.1, rng.random((20, 30)) < 0.1]
    return analyse(masks, nulls=2, bootstrap=3, consistency=1, embedding=False)


def test_every_layer_and_block_has_a_row(report):
    rows = parts_table(report).rows
    assert [row[0] for row in rows] == [
        "layer 0",
        "layer 1",
        "layer 2",
        "block layer1",
        "block layer2",
    ]
    assert [row[1] for row in rows[:3]] == [str(n) for n in report.graph.active]
    assert all(
        f"k ≥ {row.xmin}" in cells[5] for row, cells in zip(report.layers, rows, strict=False)
    )


def test_rivals_are_listed_with_the_bootstrap(report):
    table = rivals_table(report)
    assert [row[0] for row in table.rows] == ["lognormal", "exponential", "truncated"]
    assert "Bootstrap p" in table.caption
    assert "Bootstrap p" not in rivals_table(analyse([np.tri(5, dtype=bool)], nulls=0)).caption


def test_what_was_asked_for_is_among_the_measures(report):
    named = {row[0]: row for row in measures_table(report).rows}
    assert "±" in named["structural consistency"][2]
    assert any("lattice" in name for name in named)


def test_equal_degrees_leave_the_exponent_empty():
    report = analyse([np.ones((3, 3), dtype=bool)], nulls=0)
    assert {row[5] for row in parts_table(report).rows} == {""}
    assert rivals_table(report).rows == ()

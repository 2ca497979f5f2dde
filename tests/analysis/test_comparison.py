"""Several topologies side by side."""

import numpy as np
import pytest

from topospike.analysis import analyse, compare
from topospike.analysis.comparison import compared_degrees, compared_disks
from topospike.errors import ConfigError


@pytest.fixture(scope="module")
def reports():
    rng = np.random.default_rng(0)
    return {
        "random": analyse([rng.random((30, 40)) < 0.1, rng.random((20, 30)) < 0.1], nulls=2),
        "empty": analyse([np.zeros((4, 4), dtype=bool)], nulls=2),
    }


def test_rows_repeat_the_reports(reports):
    random, empty = compare(reports)
    report = reports["random"]
    assert (random.name, random.gamma, random.sizes) == ("random", report.gamma, (40, 30, 20))
    assert random.small_world == report.small_world.sigma
    assert random.gamma_null == report.gamma_null.mean
    assert (empty.gamma, empty.meta_depth, empty.separation, empty.anp) == (None, None, None, 0.0)


def test_figures_show_what_can_be_drawn(reports):
    disks, degrees = compared_disks(reports), compared_degrees(reports)
    assert [axes.get_title()[:6] for axes in disks.axes] == ["random"]
    assert len(degrees.axes[0].lines) == 2


def test_nothing_to_draw_is_refused(reports):
    only = {"empty": reports["empty"]}
    with pytest.raises(ConfigError, match="none of the reports has a hyperbolic disk"):
        compared_disks(only)
    with pytest.raises(ConfigError, match="none of the reports has a degree"):
        compared_degrees(only)

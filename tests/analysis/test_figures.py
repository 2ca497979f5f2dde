"""Figures are drawn without a display and show what the report says."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topospike.analysis import analyse, coalescent_embedding, layered_graph
from topospike.analysis.figures import (
    adjacency_spy,
    degree_ccdf,
    geodesic,
    hyperbolic_disk,
    layer_colours,
)
from topospike.errors import ConfigError


@pytest.fixture(scope="module")
def masks():
    rng = np.random.default_rng(0)
    return [rng.random((30, 40)) < 0.1, rng.random((20, 30)) < 0.1]


@pytest.fixture(scope="module")
def report(masks):
    return analyse(masks, nulls=0)


def saved(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    return buffer.getvalue().decode()


@pytest.mark.parametrize("model", ["native", "poincare"])
@pytest.mark.parametrize("links", ["straight", "geodesic"])
def test_disk_draws_every_node_and_link(report, model, links):
    figure = hyperbolic_disk(report, model=model, links=links)
    lines, nodes = figure.axes[0].collections
    assert len(lines.get_paths()) == len(report.disk.edges)
    assert len(nodes.get_offsets()) == len(report.disk.theta)
    rim = 1.0 if model == "poincare" else 2 * np.log(len(report.disk.theta))
    assert np.hypot(*np.asarray(nodes.get_offsets()).T).max() <= rim + 1e-9
    assert "<svg" in saved(figure)


def test_an_embedding_draws_as_the_report_does(report, masks):
    embedding = coalescent_embedding(layered_graph(masks))
    one, two = (
        hyperbolic_disk(s).axes[0].collections[1].get_offsets() for s in (report, embedding)
    )
    np.testing.assert_allclose(one, two)


def test_colours_run_from_red_over_yellow_to_blue():
    red, yellow, blue = layer_colours(3)
    assert red[0] > 0.7 > red[2]
    assert min(yellow[:2]) > 0.7 > yellow[2]
    assert blue[2] > blue[0]
    np.testing.assert_allclose(layer_colours(5)[1], (red + yellow) / 2)
    np.testing.assert_allclose(layer_colours(1), [red])


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.tuples(*[st.floats(-0.65, 0.65)] * 4))
def test_geodesics_end_at_their_nodes_and_meet_the_rim_at_right_angles(ends):
    p, q = np.array(ends[:2]), np.array(ends[2:])
    arc = geodesic(p, q, native=False)
    np.testing.assert_allclose(arc[[0, -1]], [p, q], atol=1e-9)
    assert (np.hypot(*arc.T) < 1).all()
    # Hyperbolic length is additive along a line and along nothing else.
    assert length(arc) == pytest.approx(length(arc[[0, -1]]), rel=1e-2, abs=1e-6)


def length(points):
    a, b = points[:-1], points[1:]
    gap = ((a - b) ** 2).sum(axis=1)
    ratio = 2 * gap / ((1 - (a**2).sum(axis=1)) * (1 - (b**2).sum(axis=1)))
    return np.arccosh(1 + ratio).sum()


def test_native_geodesics_keep_the_hyperbolic_radius():
    arc = geodesic(np.array([np.tanh(1.0), 0.0]), np.array([0.0, np.tanh(0.5)]), native=True)
    assert np.hypot(*arc[0]) == pytest.approx(2.0)
    assert np.hypot(*arc[-1]) == pytest.approx(1.0)


def test_degree_figure_shows_points_and_the_fit(report):
    axes = degree_ccdf(report).axes[0]
    points, line = axes.lines
    assert len(points.get_xdata()) == len(report.degrees.degree)
    assert line.get_xdata()[0] == report.xmin
    assert f"{report.gamma:.2f}" in axes.get_legend().get_texts()[1].get_text()


def test_spy_is_symmetric(masks):
    embedding = coalescent_embedding(layered_graph(masks))
    one, two = adjacency_spy(embedding).axes[0].collections
    a, b = np.asarray(one.get_offsets()), np.asarray(two.get_offsets())
    np.testing.assert_array_equal(a, b[:, ::-1])
    assert len(a) == embedding.graph.n_links


def test_a_report_draws_the_same_matrix_as_its_embedding(report, masks):
    drawn = [
        {
            tuple(point)
            for part in adjacency_spy(source).axes[0].collections
            for point in part.get_offsets()
        }
        for source in (report, coalescent_embedding(layered_graph(masks)))
    ]
    assert drawn[0] == drawn[1]


def test_what_cannot_be_drawn_is_refused(report):
    empty = analyse([np.zeros((3, 3), dtype=bool)], nulls=0)
    with pytest.raises(ConfigError, match="no hyperbolic disk to draw: The chain has no link"):
        hyperbolic_disk(empty)
    with pytest.raises(ConfigError, match="no hyperbolic disk to draw"):
        adjacency_spy(empty)
    with pytest.raises(ConfigError, match="no degree to draw"):
        degree_ccdf(empty)
    with pytest.raises(ConfigError, match="'native' or 'poincare'"):
        hyperbolic_disk(report, model="klein")

"""Charts as plotly JSON: valid against plotly's own schema, and true to the data."""

import json

import pytest

from topospike.analysis import read_history
from topospike.report.charts.accuracy import pareto_figure
from topospike.report.charts.figure import log_axis, log_ticks, plain_text
from topospike.report.charts.network import evolution_figure
from topospike.report.folder import read_run
from topospike.report.labels import ramp_colour, series_style
from topospike.report.page import build_page
from topospike.report.render import finite, script_json
from topospike.report.simulation import Trajectory


@pytest.fixture(scope="module")
def panels(complete_run):
    figures = build_page(read_run(complete_run)).figures
    return {panel.key: panel for figure in figures for panel in figure.panels}


def test_every_panel_is_valid_plotly(panels):
    from plotly.graph_objects import Figure

    assert len(panels) == 19
    for panel in panels.values():
        drawn = Figure(data=list(panel.traces), layout=panel.layout)
        assert len(drawn.data) == len(panel.traces) > 0


def test_every_panel_says_in_words_what_it_shows(panels):
    assert all(len(panel.label) > 30 for panel in panels.values())


def test_the_pareto_panel_holds_the_files_numbers_and_a_log_axis(panels, evaluation_of):
    panel = panels["pareto"]
    assert panel.layout["xaxis"]["type"] == "log"
    drawn = {trace["legendgroup"]: trace for trace in panel.traces if "line" in trace}
    for network in ("dense", "chts"):
        for method in ("dcgs", "qcfs"):
            result = evaluation_of(sparse=network != "dense", method=method)
            trace = drawn[f"{network}|{method}"]
            assert trace["x"] == list(result.energy_joule)
            assert trace["y"] == list(result.accuracy)
            assert "t = 17<br>" in trace["text"][16]
    stars = {
        (trace["x"][0], trace["y"][0])
        for trace in panel.traces
        if trace["marker"]["symbol"] == "star"
    }
    results = [evaluation_of(sparse=sparse, method="dcgs") for sparse in (False, True)]
    assert stars == {(result.ann_energy_joule, result.ann_accuracy) for result in results}


def test_the_close_up_shows_the_same_curves_near_the_ann(panels):
    near = panels["pareto-near"]
    assert near.traces == panels["pareto"].traces
    low, high = near.layout["yaxis"]["range"]
    assert 0.93 < low < 0.9750 < 0.9806 < high < 0.99


def test_curves_that_stay_near_the_ann_need_no_close_up():
    steady = Trajectory("chts", "dcgs", (1, 2), (0.97, 0.98), (1e-7, 2e-7), 0.98, 1e-6, 2, None)
    assert [panel.key for panel in pareto_figure((steady,)).panels] == ["pareto"]


def test_only_the_marked_step_has_a_large_marker(panels):
    for trace in panels["pareto"].traces:
        if "line" in trace and trace["mode"] == "lines+markers":
            sizes = trace["marker"]["size"]
            assert [place for place, size in enumerate(sizes) if size == max(sizes)] == [7]


def test_mac_layers_are_hatched(panels):
    for trace in panels["sops-0"].traces:
        hatched = dict(zip(trace["y"], trace["marker"]["pattern"]["shape"], strict=True))
        assert {name for name, shape in hatched.items() if shape} == {"features.0"}


def test_panels_of_one_figure_share_their_range(panels):
    ranges = {tuple(panels[f"sops-{k}"].layout["xaxis"]["range"]) for k in range(2)}
    rates = {tuple(panels[f"rates-{k}"].layout["yaxis"]["range"]) for k in range(4)}
    assert (len(ranges), len(rates)) == (1, 1)


def test_the_disk_has_every_node_in_its_layers_colour(panels, complete_run):
    disk = json.loads((complete_run / "topology_report.json").read_text())["disk"]
    nodes = [trace for trace in panels["disk"].traces if trace["mode"] == "markers"]
    assert [trace["marker"]["color"] for trace in nodes] == ["#d62f27", "#f0c419", "#2b62c4"]
    assert [len(trace["x"]) for trace in nodes] == [disk["layer"].count(k) for k in range(3)]
    radius = max(r for r in disk["r"])
    for trace in nodes:
        for x, y, text in zip(trace["x"], trace["y"], trace["text"], strict=True):
            assert (x**2 + y**2) ** 0.5 <= radius + 1e-3
            assert all(word in text for word in ("layer", "degree", "radius"))


def test_the_evolution_holds_gamma_with_its_error_and_gaps(panels, complete_run):
    points = read_history(complete_run / "topology_history.json")
    (gamma,) = panels["evolution-gamma"].traces
    assert gamma["x"] == [point.update for point in points]
    assert gamma["y"] == [point.gamma for point in points]
    assert gamma["error_y"]["array"] == [point.sigma for point in points]
    assert gamma["y"][0] is None
    assert gamma["text"][1].endswith("or more")
    assert "±" in gamma["text"][2]
    shares = [trace["y"] for trace in panels["evolution-active"].traces]
    assert shares == [[p.anp for p in points], [p.anp_hidden for p in points]]
    assert panels["evolution-links"].traces[0]["y"] == [point.links for point in points]


def test_the_evolution_is_told_in_words(complete_run):
    run = read_run(complete_run)
    caption = evolution_figure(run.history[1:]).caption
    assert "from 2 to 16 topology updates" in caption
    assert "10 or more to 3." in caption


def test_links_of_the_disk_are_separated_by_gaps(panels, complete_run):
    disk = json.loads((complete_run / "topology_report.json").read_text())["disk"]
    links = panels["disk"].traces[1]
    assert links["x"][2::3] == [None] * len(disk["edges"])


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (1e-9, 1e-5, [1e-9, 1e-8, 1e-7, 1e-6, 1e-5]),
        (0.9, 1.2, [1.0]),
        (3e-7, 4e-6, [5e-7, 1e-6, 2e-6]),
    ],
)
def test_log_ticks_are_round_and_inside(low, high, ticks):
    found = log_ticks(low, high)
    assert set(ticks) <= set(found)
    assert all(low <= tick <= high for tick in found)


def test_a_log_axis_ignores_zeros_and_survives_a_single_value():
    axis = log_axis("energy", [0.0, 5e-7], written=str)
    low, high = axis["range"]
    assert low < -6.301 < high


def test_names_are_data_not_markup():
    assert plain_text("<b>&") == "&lt;b&gt;&amp;"
    assert script_json({"a": "</script><!--"}) == '{"a":"\\u003c/script>\\u003c!--"}'


def test_numbers_json_cannot_hold_become_gaps():
    assert finite({"x": (1.0, float("inf")), "y": [float("nan")]}) == {
        "x": [1.0, None],
        "y": [None],
    }


def test_colour_says_network_and_dash_says_method():
    names = {"networks": ("dense", "chts"), "methods": ("dcgs", "qcfs")}
    looks = {
        (network, method): series_style(network, method, **names)
        for network in names["networks"]
        for method in names["methods"]
    }
    assert len({(look.colour, look.dash) for look in looks.values()}) == 4
    assert looks["dense", "dcgs"].colour == looks["dense", "qcfs"].colour
    assert looks["dense", "dcgs"].dash == looks["chts", "dcgs"].dash


def test_a_ramp_of_one_layer_is_its_first_colour():
    assert ramp_colour(0, 1) == ramp_colour(0, 3)

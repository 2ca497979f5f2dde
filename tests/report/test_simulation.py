"""Data behind the figures of accuracy, energy and operations."""

import dataclasses
import json

import pytest

from topospike.contracts import Settling
from topospike.report.folder import read_run
from topospike.report.page import activity_group, energy_group
from topospike.report.simulation import (
    Trajectory,
    bars_at,
    cost_sentences,
    layer_bars,
    on_front,
    site_rates,
    trajectories,
)


def make_trajectory(energy, accuracy):
    steps = tuple(range(1, len(energy) + 1))
    return Trajectory("chts", "dcgs", steps, accuracy, energy, 0.9, 1e-6, 1, None)


def test_trajectories_hold_the_numbers_of_the_files_unrounded(complete_run):
    for item in trajectories(read_run(complete_run)):
        place = complete_run / "dense" if item.network == "dense" else complete_run
        path = place / "conversions" / item.method / "evaluation.json"
        raw = json.loads(path.read_text())
        assert list(item.energy_joule) == raw["energy_joule"]
        assert list(item.values) == raw["accuracy"]
        assert item.saturation_time == raw["saturation_time"]
        assert (item.ann_value, item.ann_energy_joule) == (
            raw["ann_accuracy"],
            raw["ann_energy_joule"],
        )


def test_the_marked_step_is_that_of_the_summary_row(run_writer):
    folder = run_writer()
    summary = json.loads((folder / "summary.json").read_text())
    for row in summary["rows"]:
        row["timesteps"] = 16 if row["method"] == "qcfs" else 4
    (folder / "summary.json").write_text(json.dumps(summary))
    marked = {(item.network, item.method): item.marked for item in trajectories(read_run(folder))}
    assert marked == {
        ("dense", "dcgs"): 4,
        ("chts", "dcgs"): 4,
        ("dense", "qcfs"): 16,
        ("chts", "qcfs"): 16,
    }


def shortened(whole, steps):
    """An evaluation of the first steps alone."""
    curves = ("timesteps", "accuracy", "energy_joule", "sops", "macs_per_step")
    cut = {name: getattr(whole, name)[:steps] for name in curves}
    layers = [
        dataclasses.replace(one, sops=one.sops[:steps], snn_macs=one.snn_macs[:steps])
        for one in whole.layers
    ]
    sites = [dataclasses.replace(one, firing_rate=one.firing_rate[:steps]) for one in whole.sites]
    metrics = {name: curve[:steps] for name, curve in whole.metrics.items()}
    return dataclasses.replace(
        whole, **cut, layers=tuple(layers), sites=tuple(sites), metrics=metrics
    )


def test_without_a_summary_the_marked_step_is_eight_or_the_last(run_writer, evaluation_of):
    folder = run_writer(methods=("dcgs",), dense=False)
    (folder / "summary.json").unlink()
    assert trajectories(read_run(folder))[0].marked == 8
    whole = evaluation_of(sparse=True, method="dcgs")
    short = shortened(whole, 4)
    short.save(folder / "conversions" / "dcgs" / "evaluation.json")
    assert trajectories(read_run(folder))[0].marked == 4


def test_what_an_evaluation_says_of_its_cost_is_shown(run_writer, evaluation_of):
    folder = run_writer(methods=("dcgs",), dense=False)
    said = dataclasses.replace(
        evaluation_of(sparse=True, method="dcgs"), advice=("It costs more.",)
    )
    said.save(folder / "conversions" / "dcgs" / "evaluation.json")
    run = read_run(folder)
    assert cost_sentences(run) == ("chts, dcgs: It costs more.",)
    assert energy_group(run).sentences == cost_sentences(run)


def test_an_evaluation_of_another_metric_is_shown_by_it(run_writer, evaluation_of):
    folder = run_writer(methods=("dcgs",), dense=False)
    other = dataclasses.replace(
        evaluation_of(sparse=True, method="dcgs"),
        accuracy=(),
        ann_accuracy=float("nan"),
        metrics={"mse": (0.1,) * 32},
        ann_metrics={"mse": 0.05},
        lower_is_better=("mse",),
    )
    other.save(folder / "conversions" / "dcgs" / "evaluation.json")
    (line,) = trajectories(read_run(folder))
    assert (line.values, line.ann_value) == ((0.1,) * 32, 0.05)
    assert (line.measured.name, line.measured.lower_is_better) == ("mse", True)
    assert on_front((line,)) == {(0, 0)}  # nothing gets better, so the first step is the best buy


def test_the_front_by_hand():
    cheap = make_trajectory((1.0, 2.0, 3.0), (0.5, 0.8, 0.8))
    costly = make_trajectory((1.5, 2.5, 4.0), (0.4, 0.9, 0.9))
    assert on_front((cheap, costly)) == {(0, 0), (0, 1), (1, 1)}


def test_no_point_outside_the_front_is_undominated(complete_run):
    lines = trajectories(read_run(complete_run))
    front = on_front(lines)
    points = {
        (line, place): (item.energy_joule[place], item.values[place])
        for line, item in enumerate(lines)
        for place in range(len(item.timesteps))
    }
    for key, (energy, accuracy) in points.items():
        dominated = any(
            e <= energy and a >= accuracy and (e, a) != (energy, accuracy)
            for e, a in points.values()
        )
        assert dominated != (key in front)


def test_bars_are_cumulative_sops_and_macs_that_add_up_to_the_energy(evaluation_of):
    result = evaluation_of(sparse=True, method="dcgs")
    bars = bars_at(result, 8)
    assert [bar.is_mac for bar in bars] == [True, False, False, False, False]
    macs = sum(bar.operations for bar in bars if bar.is_mac)
    sops = sum(bar.operations for bar in bars if not bar.is_mac)
    assert (macs, sops) == pytest.approx((result.macs_per_step[7], result.sops[7]))
    assert macs * 4.6e-12 + sops * 0.9e-12 == pytest.approx(result.energy_joule[7])


def test_an_image_layer_counted_in_accumulates_is_no_mac_layer(evaluation_of):
    result = evaluation_of(sparse=True, method="dcgs")
    first = dataclasses.replace(result.layers[0], sops=(9.0,) * 32, snn_macs=(0.0,) * 32)
    bars = bars_at(dataclasses.replace(result, layers=(first,)), 8)
    assert (bars[0].is_mac, bars[0].operations) == (False, 9.0)


def test_every_converted_network_has_bars_and_rates(complete_run):
    run = read_run(complete_run)
    order = [("dense", "dcgs"), ("dense", "qcfs"), ("chts", "dcgs"), ("chts", "qcfs")]
    assert [(group.network, group.method) for group in layer_bars(run)] == order
    assert [(group.network, group.method) for group in site_rates(run)] == order


def test_networks_that_fall_silent_get_a_figure_of_what_single_images_took(
    run_writer, evaluation_of
):
    folder = run_writer(methods=("dcgs",), dense=False)
    assert "silence" not in [f.key for f in activity_group(read_run(folder)).figures]
    joules = (1e-6, 3e-6, 2e-6, 9e-6)
    run = Settling((3, 5, 4, 64), (True, True, True, False), joules, (8.0, 0.5), 64)
    quiet = dataclasses.replace(evaluation_of(sparse=True, method="dcgs"), settling=run)
    quiet.save(folder / "conversions" / "dcgs" / "evaluation.json")
    (figure,) = (f for f in activity_group(read_run(folder)).figures if f.key == "silence")
    spikes, steps, spent = (panel.traces[0] for panel in figure.panels)
    assert (spikes["x"], spikes["y"]) == ([1, 2], [8.0, 0.5])
    assert (steps["x"], steps["y"]) == ([3, 4, 5], [0.25, 0.5, 0.75])  # the fourth never is
    assert spent["x"] == pytest.approx([j / quiet.ann_energy_joule for j in sorted(joules)[:3]])
    joules = ("2.50\u202fµJ", "9.00\u202fµJ")
    assert figure.tables[0].rows[0][1:] == ("4.50", "64", "64", *joules, "1 of 4")

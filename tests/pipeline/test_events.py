"""Recipes on recordings of events, from files of every raw format to the page."""

import json
from dataclasses import replace

import numpy as np
import pytest
from tests.data.events.formats import (
    WRITERS,
    some_events,
    write_aedat2,
    write_aedat3,
    write_bin,
)

import topospike as ts
from topospike.cli.main import main
from topospike.contracts import Evaluation, Raster
from topospike.errors import ConfigError
from topospike.pipeline import verify_run
from topospike.pipeline.names import check_names
from topospike.recipe.files import resolve
from topospike.recipe.parts import parts
from topospike.report.folder import read_run

pytest.importorskip("plotly")


def tiny(recipe, **changes):
    """The recipe with changes that make it run in seconds."""
    base = {
        "data": {"batch_size": 8, "validation_fraction": 0.25},
        "train": {"epochs": 2, "warmup_epochs": 0},
        "model": {"widths": [4, 6], "hidden": [20]},
        "quantise": {} if recipe.endswith("ch-snn") else {"epochs": 1, "channel_epochs": 1},
        "measure": {"timesteps": 8 if recipe.endswith("ch-snn") else 10},
    }
    together = {name: {**value, **changes.get(name, {})} for name, value in base.items()}
    return resolve(recipe, {**together, "analyse": False, "threads": 1})


@pytest.fixture(scope="module")
def digits_events(tmp_path_factory):
    small = {"batch_size": 16, "limit_train": 120, "limit_test": 40}
    folder = tmp_path_factory.mktemp("runs") / "digits-events"
    return ts.run_recipe(tiny("digits-events", data=small), folder)


@pytest.mark.slow
def test_digits_events_at_the_size_of_a_check(digits_events):
    folder = digits_events.folder
    assert {row.method for row in digits_events.rows if row.network != "ch-snn"} == {
        "dcgs", "dcgs-frames", "cs-qcfs",
    }  # fmt: skip
    assert digits_events.networks == (folder / "dense", folder, folder / "direct")
    for network in digits_events.networks[:2]:
        events, frames = (
            Evaluation.load(network / "conversions" / name / "evaluation.json")
            for name in ("dcgs", "dcgs-frames")
        )
        assert events.accuracy == frames.accuracy  # the same network, counted otherwise
        assert len(events.ann_accuracy_per_step) == 8
        assert events.ann_accuracy_per_step[-1] == events.ann_accuracy
        assert events.layers[0].snn_macs[-1] == frames.layers[0].sops[-1] == 0
        assert frames.layers[0].snn_macs[-1] == 8 * frames.layers[0].macs
        assert [e.sops for e in events.layers[1:]] == [f.sops for f in frames.layers[1:]]
        assert events.input_events[7] == events.input_events[-1] > 100
    drawn = Raster.load(folder / "conversions" / "dcgs" / "raster.json")
    assert drawn.rows[0].name == "input"
    assert drawn.rows[0].t
    assert max(drawn.rows[0].t) <= 8
    page = (folder / "report.html").read_text()
    for words in ("While frames arrive", "One recording", "events that enter the first layer"):
        assert words in page


@pytest.mark.slow
def test_a_network_trained_through_time_lies_beside_the_converted_ones(digits_events):
    folder, beside = digits_events.folder, digits_events.folder / "direct"
    found = Evaluation.load(beside / "conversions" / "direct" / "evaluation.json")
    assert found.conventions["input"] == "events"
    assert found.ann_accuracy_per_step == ()
    assert found.layers[0].input == "events"
    assert found.accuracy[-1] == found.ann_accuracy
    lines = [json.loads(line) for line in (beside / "metrics.jsonl").read_text().splitlines()]
    assert any(entry["kind"] == "topology_update" for entry in lines)
    # the tables and the page of the whole run have it beside the others
    row = digits_events.rows[-1]
    assert (row.network, row.method, row.snn_accuracy) == ("ch-snn", "direct", found.accuracy[-1])
    assert digits_events.rows == read_run(folder).rows
    assert [network.name for network in read_run(folder).networks] == ["dense", "chts", "ch-snn"]
    for page in (folder, beside):
        text = (page / "report.html").read_text()
        assert "CH-SNN · direct" in text
        assert "trained through time has no ANN" in text
    own = json.loads((folder / "record.json").read_text())["seconds"]
    shown = read_run(folder).record["seconds"]
    assert shown.keys() - own.keys() >= {"direct, train ch-snn", "direct, measure ch-snn direct"}
    # it is a run folder of its own: measured again, it is shown so by the next summary
    assert "direct/model.safetensors" in {file.name for file in verify_run(folder).files}
    assert not verify_run(folder).failed
    assert main(["simulate", str(beside), "--timesteps", "4"]) == 0
    assert main(["simulate", str(folder), "--method", "dcgs", "--timesteps", "3"]) == 0
    assert [r.timesteps for r in read_run(folder).rows if r.method in ("dcgs", "direct")] == [
        3, 3, 4,
    ]  # fmt: skip


def nmnist(folder):
    for split, count in (("Train", 8), ("Test", 2)):
        for label in range(2):
            place = folder / split / str(label)
            place.mkdir(parents=True)
            for number in range(count):
                seed = 100 * label + number + 50 * (split == "Test")
                write_bin(place / f"{number:05d}.bin", some_events(seed, sensor=(34, 34), count=80))


def cifar10_dvs(folder):
    for label, name in enumerate(("airplane", "automobile")):
        (folder / name).mkdir(parents=True)
        for number in range(10):
            events = some_events(100 * label + number, sensor=(128, 128), count=80)
            write_aedat2(folder / name / f"cifar10_{name}_{number}.aedat", events)


def dvs_gesture(folder):
    folder.mkdir()
    names = [f"user{number:02d}_led" for number in range(4)]
    for seed, name in enumerate(names):
        events = some_events(seed, sensor=(128, 128), count=400)
        write_aedat3(folder / f"{name}.aedat", events)
        rows = [f"{1 + piece % 3},{100 * piece},{100 * piece + 100}" for piece in range(9)]
        table = "\n".join(["class,startTime_usec,endTime_usec", *rows])
        (folder / f"{name}_labels.csv").write_text(table + "\n")
    for file, part in (("trials_to_train.txt", names[:3]), ("trials_to_test.txt", names[3:])):
        (folder / file).write_text("".join(f"{name}.aedat\n" for name in part))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "write", "side"),
    [
        ("nmnist-2conv2fc", nmnist, 16),
        ("dvs-gesture-2conv2fc", dvs_gesture, 16),
        ("cifar10-dvs-6conv2fc", cifar10_dvs, 32),
    ],
)
@pytest.mark.parametrize("ending", ["", "-ch-snn"])
def test_the_recipes_of_raw_sets_run_on_tiny_files(tmp_path, recipe, write, side, ending):
    source = tmp_path / "set"
    write(source)
    widths = [4] * (6 if "6conv" in recipe else 2)
    data = {"source": str(source), "batch_size": 4}
    chosen = tiny(recipe + ending, data=data, model={"widths": widths})
    result = ts.run_recipe(chosen, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["data"]["image_size"] == [side, side]
    assert record["data"]["channels"] == 2
    assert len(result.rows) == (1 if ending else 4)
    method = "direct" if ending else "dcgs"
    path = tmp_path / "run" / "conversions" / method / "evaluation.json"
    assert np.isfinite(Evaluation.load(path).accuracy).all()


@pytest.mark.slow
def test_a_recipe_reads_the_own_formats(tmp_path):
    sensor = (34, 34)
    for split, count in (("train", 6), ("test", 3)):
        for label in "ab":
            place = tmp_path / "set" / split / label
            place.mkdir(parents=True)
            for number in range(count):
                suffix = (".npz", ".npy", ".h5")[number % 3]
                events = some_events(number + 50 * (label == "b"), sensor=sensor, count=80)
                WRITERS[suffix](place / f"{number}{suffix}", events)
    data = {"source": str(tmp_path / "set"), "batch_size": 4, "events": {"sensor": sensor}}
    chosen = tiny("nmnist-2conv2fc", data=data)
    chosen = replace(chosen, dense_twin=False, convert=chosen.convert[:1])
    (row,) = ts.run_recipe(chosen, tmp_path / "run").rows
    assert (row.network, row.method) == ("chts", "dcgs")
    record = json.loads((tmp_path / "run" / "record.json").read_text())["data"]
    assert (record["train"] + record["validation"], record["test"]) == (12, 6)


def test_recipes_that_contradict_themselves_are_refused():
    def check(recipe):
        for part in parts(recipe):
            check_names(part)

    frames = {"convert": [{"method": "dcgs", "input": "frames"}]}
    with pytest.raises(ConfigError, match="the data are images"):
        check(resolve("demo", frames))
    with pytest.raises(ConfigError, match=r"names dcgs.*set direct\.rule to null"):
        check(resolve("digits-events", frames))
    stacked = {"data": {"events": {"stack": True}}, "direct": {"rule": None}, **frames}
    with pytest.raises(ConfigError, match=r"data\.events\.stack off"):
        check(resolve("digits-events", stacked))
    with pytest.raises(ConfigError, match=r"convert\.input"):
        resolve("digits-events", {"convert": [{"method": "dcgs", "input": "event"}]})
    with pytest.raises(ConfigError, match="input_events='counts'"):
        check(resolve("digits-events", {"measure": {"input_events": "counts"}}))
    with pytest.raises(ConfigError, match=r"measure\.hold is 0"):
        resolve("digits-events", {"measure": {"hold": 0}})
    with pytest.raises(ConfigError, match=r"data\.events\.clip is 300"):
        resolve("digits-events", {"data": {"events": {"clip": 300}}})

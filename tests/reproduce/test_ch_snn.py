"""CH-SNN's published results, and ours beside them."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from topospike.cli.main import main
from topospike.cli.reproduce import job_of
from topospike.recipe.files import resolve
from topospike.recipe.parts import parts
from topospike.reproduce import TARGETS, chosen_rows
from topospike.reproduce.ch_snn import BASES, IMAGES

TARGET = TARGETS["ch-snn"]


def recipe_of(key, scale="full"):
    (row,) = chosen_rows(TARGET, [key])
    return job_of(row, Path(), scale=scale, seed=0, plan=TARGET.plan).recipe


def test_every_set_of_events_has_its_conversions_beside_the_rival():
    found = {name: [] for name in BASES}
    for row in TARGET.table.rows:
        parts_of_key = (row.labels["method"], row.labels["conversion"], row.timesteps)
        found[row.labels["dataset"]].append(parts_of_key)
    own = [(m, c, t) for c, t in (("dcgs", 8), ("cs-qcfs", 16)) for m in ("dense", "chts")]
    for name, rows in found.items():
        assert rows == [*([] if name in IMAGES else own), ("ch-snn", "direct", 8)]


@pytest.mark.parametrize("base", [base for base in BASES.values() if base != "digits-events"])
def test_at_full_scale_the_rival_is_its_recipe(base):
    (row,) = [
        row
        for row in TARGET.table.rows
        if BASES[row.labels["dataset"]] == base and row.labels["method"] == "ch-snn"
    ]
    found, packaged = recipe_of(row.key), resolve(f"{base}-ch-snn")
    assert replace(found, name=packaged.name) == packaged


@pytest.mark.parametrize("scale", ["full", "cpu"])
def test_the_embedded_set_is_trained_as_its_recipe_says(scale):
    converted, direct = parts(resolve("digits-events"))
    found = recipe_of("digits-events/ch-snn", scale)
    for name in ("data", "model", "train", "sparsity", "direct", "measure"):
        assert getattr(found, name) == getattr(direct, name)
    assert (found.dense_twin, found.sparse_twin) == (False, True)
    sparse = recipe_of("digits-events/chts/dcgs", scale)
    for name in ("data", "model", "train", "sparsity", "quantise", "measure"):
        assert getattr(sparse, name) == getattr(converted, name)


def reproduce(folder, *options):
    return main(["reproduce", "ch-snn", "--folder", str(folder), *options])


def rows_in(folder):
    with (folder / "ch-snn.csv").open() as lines:
        return {row["row"]: row for row in csv.DictReader(lines)}


def test_a_row_without_data_is_not_run(tmp_path, monkeypatch):
    monkeypatch.setenv("TOPOSPIKE_DATA", str(tmp_path / "empty"))
    assert reproduce(tmp_path, "--scale", "cpu", "--row", "nmnist/ch-snn") != 0
    rows = rows_in(tmp_path / "cpu")
    row = rows.pop("nmnist/2conv2fc/ch-snn/direct")
    assert row["state"].startswith("not run: MissingDataError: data.source = 'nmnist'")
    assert (row["snn_accuracy published"], row["snn_accuracy measured"]) == ("99.15", "")
    assert {row["state"] for row in rows.values()} == {"not run"}
    text = (tmp_path / "cpu" / "ch-snn.md").read_text()
    assert "Published: CH-SNN (ICLR 2026, arXiv 2511.05581)" in text


@pytest.mark.slow
def test_a_row_of_events_and_its_rival_run(tmp_path):
    chosen = ["digits-events/ch-snn", "digits-events/chts/cs-qcfs"]
    assert reproduce(tmp_path, "--scale", "smoke", "--row", *chosen) == 0
    rows = rows_in(tmp_path / "smoke")
    for key in ("ch-snn/direct", "chts/cs-qcfs"):
        row = rows[f"digits-events/2conv2fc/{key}"]
        assert row["state"] == "done"
        assert float(row["energy_joule measured"]) > 0
        assert float(row["network_sparsity measured"]) > 0

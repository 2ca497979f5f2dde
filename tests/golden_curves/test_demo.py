"""The demo's table as a golden curve: a short demo run must stay inside a band around it.

``demo.json`` was written by this file run as a script (``python tests/golden_curves/test_demo.py``)
on the torch of ``constraints.txt``. The bands are what two other seeds and a change of thread
number move, doubled; a wrong threshold, mask, count or schedule moves far more.
"""

import json
import sys
import tempfile
from pathlib import Path

import pytest

from topospike.cli.main import main

pytestmark = pytest.mark.slow

GOLDEN = Path(__file__).with_name("demo.json")
SHORT = ["--train.epochs", "8", "--measure.timesteps", "8", "--threads", "1"]
ACCURACY_BAND = 0.03
ENERGY_BAND = 0.15
COLUMNS = ("network", "method", "ann_accuracy", "snn_accuracy", "energy_joule", "energy_ratio")


def short_demo(folder: Path) -> dict[str, list[dict]]:
    assert main(["demo", "--folder", str(folder), *SHORT]) == 0
    rows = json.loads((folder / "summary.json").read_text())["rows"]
    curves = {}
    for row in rows:
        network = folder / "dense" if row["network"] == "dense" else folder
        path = network / "conversions" / row["method"] / "evaluation.json"
        curves[f"{row['network']} {row['method']}"] = json.loads(path.read_text())["accuracy"]
    return {"rows": [{c: row[c] for c in COLUMNS} for row in rows], "accuracy": curves}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return short_demo(tmp_path_factory.mktemp("golden"))


def test_table_stays_inside_its_band(measured: dict) -> None:
    golden = json.loads(GOLDEN.read_text())
    assert len(measured["rows"]) == len(golden["rows"]) == 4
    for ours, committed in zip(measured["rows"], golden["rows"], strict=True):
        assert (ours["network"], ours["method"]) == (committed["network"], committed["method"])
        for column in ("ann_accuracy", "snn_accuracy"):
            assert ours[column] == pytest.approx(committed[column], abs=ACCURACY_BAND)
        for column in ("energy_joule", "energy_ratio"):
            assert ours[column] == pytest.approx(committed[column], rel=ENERGY_BAND)


def test_accuracy_over_time_stays_inside_its_band(measured: dict) -> None:
    golden = json.loads(GOLDEN.read_text())["accuracy"]
    assert measured["accuracy"].keys() == golden.keys()
    for name, curve in measured["accuracy"].items():
        # the first two steps of rate coding differ by ten points between seeds
        assert curve[2:] == pytest.approx(golden[name][2:], abs=2 * ACCURACY_BAND), name


def test_spiking_networks_follow_their_anns_and_sparsity_saves_energy(measured: dict) -> None:
    dense, sparse = {}, {}
    for row in measured["rows"]:
        assert abs(row["snn_accuracy"] - row["ann_accuracy"]) <= 0.03
        (dense if row["network"] == "dense" else sparse)[row["method"]] = row["energy_joule"]
    assert all(sparse[method] < dense[method] for method in dense)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        GOLDEN.write_text(json.dumps(short_demo(Path(temporary)), indent=1) + "\n")
    sys.stdout.write(f"wrote {GOLDEN}\n")

"""``topospike export`` on a finished run."""

import csv
import json

import numpy as np
import pytest
import torch

from topospike.cli.main import main
from topospike.export import read_csr, simulate_nir
from topospike.topology import Topology


def test_each_format_is_written_where_it_is_expected(finished_run, capsys):
    for options in (
        ["--to", "nir", "--method", "qcfs"],
        ["--to", "csr"],
        ["--to", "csv"],
        ["--to", "npz", "--output", str(finished_run / "graph.npz")],
    ):
        assert main(["export", str(finished_run), *options]) == 0
    assert "reset by subtraction" in capsys.readouterr().out
    exports = finished_run / "export"
    run = simulate_nir(exports / "chts-qcfs.nir", torch.rand(3, 2, 1, 8, 8))
    assert run.output.flatten(2).shape == (3, 2, 10)
    topology = Topology.load(finished_run / "topology.npz")
    links = sum(int(mask.sum()) for mask in topology.masks.values())
    with (exports / "chts.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == links
    with np.load(finished_run / "graph.npz", allow_pickle=False) as graph:
        assert len(graph["edges"]) == links
    layers = read_csr(exports / "chts-dcgs-csr").layers
    for name, mask in topology.masks.items():
        assert torch.equal(layers[name.removesuffix(".weight")].mask, mask)


def test_what_cannot_be_exported_is_told_on_one_line(finished_run, capsys):
    assert main(["export", str(finished_run), "--to", "nir"]) == 2
    assert "multi-threshold" in capsys.readouterr().err
    assert main(["export", str(finished_run), "--to", "nir", "--method", "cs-qcfs"]) == 2
    assert "topospike convert" in capsys.readouterr().err
    assert main(["export", str(finished_run), "--to", "csv", "--network", "dense"]) == 2
    assert "has no topology" in capsys.readouterr().err
    assert main(["export", str(finished_run), "--to", "csr", "--network", "chtx"]) == 2
    assert "Did you mean 'chts'?" in capsys.readouterr().err


@pytest.mark.slow
def test_a_simulated_chip_writes_what_it_cost(finished_run, capsys):
    assert main(["chip", str(finished_run), "--images", "2"]) == 0
    assert "energy an image" in capsys.readouterr().out
    for network in ("", "dense/"):
        folder = finished_run / f"{network}conversions" / "qcfs"
        assert folder.is_dir()
    written = json.loads((finished_run / "conversions" / "qcfs" / "chip.json").read_text())
    assert written["images"] == 2
    assert written["energy_joule"]["total"] > 0
    assert main(["chip", str(finished_run), "--method", "dcgs"]) == 2
    assert "method='qcfs'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_part_of_a_network_alone_on_the_chip(finished_run, capsys):
    assert main(["chip", str(finished_run), "--part", "layers", "--images", "1"]) == 0
    assert "layers alone" in capsys.readouterr().out
    written = json.loads((finished_run / "conversions" / "qcfs" / "chip.json").read_text())
    assert written["part"] == "layers"
    assert main(["chip", str(finished_run), "--part", "layer"]) == 2
    assert "Did you mean 'layers'?" in capsys.readouterr().err

"""Topologies saved every few updates."""

import pytest
import torch
from torch import nn

from topospike.errors import ConfigError, TopologyViolation
from topospike.evolve import sparsify
from topospike.topology import Topology, TopologySeries, saved_series, series_path


def network():
    return nn.Sequential(
        nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 5)
    )


def test_the_topology_after_every_second_update_is_saved(tmp_path):
    model = network()
    sparsifier = sparsify(model, "set", sparsity=0.8, epochs=10, seed=0, percolation=False)
    series = TopologySeries(model, tmp_path, every=2)
    seen = {0: Topology.from_model(model).digest}
    for epoch in range(5):
        update = sparsifier.update_topology(epoch)
        series(update)
        seen[update.update_index] = Topology.from_model(model).digest
    saved = {update: Topology.load(path) for update, path in saved_series(tmp_path).items()}
    assert {update: topology.digest for update, topology in saved.items()} == {
        update: seen[update] for update in (0, 2, 4)
    }
    assert len(set(seen.values())) == 6
    assert saved[4].provenance == {"update": 4, "epoch": 3}


def test_only_the_process_that_writes_leaves_files(tmp_path):
    model = network()
    sparsify(model, "set", sparsity=0.8, epochs=10, seed=0, percolation=False)
    TopologySeries(model, tmp_path, every=1, writes=False)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_saved_is_refused(tmp_path):
    with pytest.raises(TopologyViolation, match="no parameter of Sequential has a mask"):
        TopologySeries(network(), tmp_path, every=1)
    with pytest.raises(ConfigError, match="every=0 was given; 1 or more"):
        TopologySeries(network(), tmp_path, every=0)
    assert not list(tmp_path.iterdir())


def test_a_file_is_small(tmp_path):
    layer = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
    with torch.random.fork_rng():
        sparsify(layer, "set", sparsity=0.99, epochs=10, seed=0)
    TopologySeries(layer, tmp_path, every=1)
    assert saved_series(tmp_path)[0].stat().st_size < 512 * 512 / 8 / 4


def test_files_are_found_by_their_number_and_in_its_order(tmp_path):
    for update in (12, 0, 10_000, 9_999):
        path = series_path(tmp_path, update)
        path.parent.mkdir(exist_ok=True)
        path.touch()
    for stray in ("update-3.npz.tmp", "topology.npz", ".update-0001.npz.x1"):
        (tmp_path / "topologies" / stray).touch()
    found = saved_series(tmp_path)
    assert list(found) == [0, 12, 9_999, 10_000]
    assert found[12].name == "update-0012.npz"

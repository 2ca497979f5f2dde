"""Topologies as edge lists, GraphML and arrays."""

import csv

import igraph
import numpy as np
import pytest
import torch

from topospike.errors import ConfigError
from topospike.export import export_graph
from topospike.topology import Topology


@pytest.fixture
def topology():
    generator = torch.Generator().manual_seed(0)

    def mask(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator) < 0.4

    return Topology.from_masks(
        {"conv.weight": mask(4, 3, 3, 3), "fc1.weight": mask(8, 6), "fc2.weight": mask(5, 8)}
    )


def test_the_edge_list_holds_every_link_once(topology, tmp_path):
    path = export_graph(topology, tmp_path / "edges.csv")
    with path.open() as stream:
        links = list(csv.DictReader(stream))
    rebuilt = {name: torch.zeros_like(mask) for name, mask in topology.masks.items()}
    for link in links:
        place = [int(link[key]) for key in ("target", "source", "row", "column")]
        rebuilt[link["layer"]][tuple(place[: rebuilt[link["layer"]].ndim])] = True
    assert Topology.from_masks(rebuilt).digest == topology.digest
    assert len(links) == sum(int(mask.sum()) for mask in topology.masks.values())


def test_graphml_and_arrays_hold_the_same_layered_graph(topology, tmp_path):
    graph = igraph.Graph.Read_GraphML(str(export_graph(topology, tmp_path / "g.graphml")))
    with np.load(export_graph(topology, tmp_path / "g.npz"), allow_pickle=False) as stored:
        assert stored["sizes"].tolist() == [6, 8, 5]
        assert np.array_equal(np.array(graph.get_edgelist()), stored["edges"])
        assert graph.vs["layer"] == stored["layers"].tolist()
    links = {(e.source, e.target) for e in graph.es}
    first = topology.masks["fc1.weight"].nonzero().tolist()
    assert {(i, 6 + o) for o, i in first} <= links
    assert graph.vs[6]["index"] == 0


def test_convolutions_join_channels_with_their_taps(topology, tmp_path):
    path = export_graph(topology, tmp_path / "conv.npz", layers=["conv"])
    with np.load(path, allow_pickle=False) as stored:
        assert stored["sizes"].tolist() == [3, 4]
        assert stored["taps"].sum() == int(topology.masks["conv.weight"].sum())


def test_other_formats_and_layers_are_refused(topology, tmp_path):
    with pytest.raises(ConfigError, match=r"g.gexf ends in '.gexf'; one of .csv, .graphml, .npz"):
        export_graph(topology, tmp_path / "g.gexf")
    with pytest.raises(ConfigError, match=r"layer 'fc9' is not in the topology"):
        export_graph(topology, tmp_path / "g.csv", layers=["fc9"])

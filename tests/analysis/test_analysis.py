"""The whole analysis: real shapes, degenerate topologies, saving and loading."""

import json
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch

from topospike.analysis import TopologyReport, analyse
from topospike.errors import CheckpointError, ConfigError, MissingDataError, ShapeError
from topospike.topology import Topology


def uniform_masks(sizes, density, seed=0):
    rng = np.random.default_rng(seed)
    masks = []
    for n_in, n_out in pairwise(sizes):
        mask = np.zeros(n_out * n_in, dtype=bool)
        mask[rng.choice(mask.size, size=round(density * mask.size), replace=False)] = True
        masks.append(mask.reshape(n_out, n_in))
    return masks


@pytest.fixture(scope="module")
def report():
    return analyse(uniform_masks((60, 50, 40), 0.08), nulls=3, seed=1)


def test_report_describes_its_graph(report):
    assert report.chain == ("layer1", "layer2")
    assert report.graph.sizes == (60, 50, 40)
    assert report.graph.links == 240 + 160 == sum(row.links for row in report.masks)
    assert [row.nodes for row in report.layers] == [60, 50, 40]
    assert report.graph.active == tuple(row.active for row in report.layers)
    assert len(report.blocks) == len(report.small_world.block_clustering) == 2
    assert report.meta_depth.meta_deep is False
    assert 0 < report.anp_hidden <= 1
    assert report.modularity > 0.2
    assert 0 <= report.separation.index <= 1
    assert report.gamma_null.value == report.gamma
    assert report.gamma_null.draws == 3


def test_disk_and_distribution_can_be_drawn(report):
    disk = report.disk
    n = report.graph.largest_nodes
    assert len(disk.theta) == len(disk.r) == len(disk.layer) == len(disk.degree) == n
    assert disk.links >= len(disk.edges) > 0
    assert max(max(pair) for pair in disk.edges) < n
    assert report.degrees.share[0] == 1.0
    assert report.degrees.fit_degree[0] == report.xmin
    assert report.degrees.fit_degree[-1] == report.degrees.degree[-1]


def test_report_survives_the_file(report, tmp_path):
    path = tmp_path / "topology_report.json"
    report.save(path)
    assert TopologyReport.load(path) == report
    assert json.loads(path.read_text())["gamma"] == report.gamma


def test_same_seed_same_report_whatever_the_mask_type(report):
    masks = [torch.tensor(mask) for mask in uniform_masks((60, 50, 40), 0.08)]
    again = analyse(masks, nulls=3, seed=1)
    for name in ("gamma", "meta_depth", "small_world", "separation", "modularity", "disk"):
        assert getattr(again, name) == getattr(report, name)


def test_links_to_draw_are_a_sample_above_the_limit():
    masks = [np.random.default_rng(0).random((200, 200)) < 0.6]
    disk = analyse(masks, nulls=0).disk
    assert disk.links > len(disk.edges) == 20_000
    assert len(set(disk.edges)) == 20_000


def conv_masks(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "conv1.weight": torch.tensor(rng.random((8, 3, 3, 3)) < 0.3),
        "conv2.weight": torch.tensor(rng.random((12, 8, 3, 3)) < 0.1),
    }


def test_conv_networks_use_the_linear_head_and_measure_every_layer(tmp_path):
    masks = conv_masks()
    for name, mask in zip(("fc1", "fc2"), uniform_masks((48, 30, 20), 0.2), strict=True):
        masks[f"{name}.weight"] = torch.tensor(mask)
    topology = Topology.from_masks(masks)
    topology.save(tmp_path / "topology.npz")
    report = analyse(tmp_path / "topology.npz", nulls=2)
    assert report.chain == ("fc1.weight", "fc2.weight")
    assert report.digest == topology.digest
    assert [row.kind for row in report.masks] == ["conv", "conv", "linear", "linear"]
    assert [row.inputs for row in report.masks] == [27, 72, 48, 30]
    assert report.masks[1].links == int(masks["conv2.weight"].sum())
    assert report.masks[1].gamma is not None


def test_without_linear_layers_the_channel_graph_is_used_and_said():
    report = analyse(conv_masks(), nulls=2)
    assert (report.chain_kind, report.graph.sizes) == ("channel", (3, 8, 12))
    assert any("Channel graph" in note for note in report.notes)
    assert analyse(conv_masks(), chain=["conv2"], nulls=0).graph.sizes == (8, 12)


DEGENERATE = {
    "empty mask": ([np.zeros((4, 5), dtype=bool)], "no link"),
    "complete blocks of one size": ([np.ones((4, 4), dtype=bool)], "same degree"),
    "all degrees equal": ([np.eye(5, dtype=bool)], "same degree"),
    "one link": ([np.eye(1, dtype=bool)], "same degree"),
    "disconnected": ([np.kron(np.eye(4, dtype=bool), np.ones((2, 3), dtype=bool))], "components"),
    "two-level degrees": ([np.ones((3, 7), dtype=bool)], ""),
    "equal degrees in the largest piece": (
        [np.block([[np.ones((4, 4)), np.zeros((4, 3))], [np.zeros((1, 4)), np.ones((1, 3))]])],
        "largest component are equal",
    ),
}


@pytest.mark.parametrize("case", list(DEGENERATE))
def test_degenerate_topologies_give_a_defined_report(case, tmp_path):
    masks, said = DEGENERATE[case]
    report = analyse(masks, nulls=2)
    assert said in " ".join(report.notes)
    report.save(tmp_path / "report.json")
    assert TopologyReport.load(tmp_path / "report.json") == report
    assert (report.disk is None) == (case not in ("disconnected", "two-level degrees"))


@pytest.mark.slow
def test_two_fully_connected_layers_of_vgg_are_a_random_network():
    report = analyse(uniform_masks((512, 512, 512), 0.01))
    assert 5 < report.gamma <= 10
    assert report.small_world.sigma == pytest.approx(1, abs=0.15)
    assert report.meta_depth.meta_deep is False


def test_progress_names_each_measure():
    said = []
    analyse(uniform_masks((20, 20), 0.2), nulls=1, progress=said.append)
    assert said[0].startswith("degrees of")
    assert said[-1] == "hyperbolic embedding"


def test_bad_arguments_are_refused():
    masks = uniform_masks((10, 10), 0.3)
    with pytest.raises(ConfigError, match="no mask"):
        analyse({})
    for option in ("nulls", "bootstrap", "consistency"):
        with pytest.raises(ConfigError, match=f"{option}=-1"):
            analyse(masks, **{option: -1})
    with pytest.raises(ConfigError, match="Did you mean 'ISO'"):
        analyse(masks, reduction="IS0", nulls=0)
    with pytest.raises(ConfigError, match="a int was given"):
        analyse(3)
    with pytest.raises(ShapeError, match="n_in must equal"):
        analyse([masks[0], np.ones((3, 4), dtype=bool)], chain=["layer1", "layer2"])


def test_damaged_files_are_refused(tmp_path, report):
    path = tmp_path / "report.json"
    with pytest.raises(MissingDataError, match="does not exist"):
        TopologyReport.load(path)
    path.write_text('{"format": 1}')
    with pytest.raises(
        CheckpointError, match=r"is damaged .*missing required field.*Analyse the topology again"
    ):
        TopologyReport.load(path)
    report.save(path)
    path.write_text(path.read_text()[:-100])
    with pytest.raises(CheckpointError, match="damaged"):
        TopologyReport.load(path)
    report.save(path)
    path.write_text(path.read_text().replace('"format": 1', '"format": 99'))
    with pytest.raises(CheckpointError, match="its format is 99; this version reads 1"):
        TopologyReport.load(path)


def test_importing_the_stage_loads_no_training_code_nor_heavy_packages():
    code = (
        "import sys, topospike.analysis\n"
        "bad = [m for m in sys.modules if m.split('.')[0] in ('igraph', 'matplotlib', 'sklearn')"
        " or m.startswith(('scipy.', 'topospike.train', 'topospike.evolve'))]\n"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_power_law_is_weighed_against_its_rivals():
    report = analyse(uniform_masks((60, 60), 0.1), nulls=0, bootstrap=10)
    assert [row.name for row in report.alternatives] == ["lognormal", "exponential", "truncated"]
    assert 0 <= report.p_value <= 1


def test_consistency_is_measured_where_it_is_asked_for_and_defined():
    report = analyse(uniform_masks((30, 30), 0.2), nulls=0, consistency=2, embedding=False)
    assert report.consistency.draws == 2
    empty = analyse([np.zeros((4, 4), dtype=bool)], nulls=0, consistency=2)
    assert empty.consistency is None
    assert any("Structural consistency is left out" in note for note in empty.notes)


def test_a_file_without_later_fields_still_loads(report, tmp_path):
    path = tmp_path / "report.json"
    report.save(path)
    raw = json.loads(path.read_text())
    del raw["alternatives"], raw["p_value"], raw["consistency"]
    path.write_text(json.dumps(raw))
    assert TopologyReport.load(path).alternatives == ()

"""Networks with branches: shared node sets, recognised residual names."""

import numpy as np
import pytest

from topospike.analysis import analyse, residual_chain, wired_chain
from topospike.analysis.connectivity import active_share
from topospike.analysis.graphs.chains import is_residual, residual_wiring
from topospike.errors import ConfigError, ShapeError


def ones(*shape):
    return np.ones(shape, dtype=bool)


def residual_masks(density=1.0, seed=0):
    shapes = {
        "conv1": (4, 3, 3, 3),
        "stages.0.0.conv1": (4, 4, 3, 3),
        "stages.0.0.conv2": (4, 4, 3, 3),
        "stages.1.0.conv1": (8, 4, 3, 3),
        "stages.1.0.conv2": (8, 8, 3, 3),
        "stages.1.0.shortcut.0": (8, 4, 1, 1),
        "stages.1.1.conv1": (8, 8, 3, 3),
        "stages.1.1.conv2": (8, 8, 3, 3),
    }
    rng = np.random.default_rng(seed)
    return {f"{name}.weight": rng.random(shape) < density for name, shape in shapes.items()}


def test_residual_blocks_share_the_tensor_after_the_addition():
    wiring = residual_wiring(residual_masks())
    assert wiring["conv1.weight"] == ("input", "conv1")
    assert wiring["stages.0.0.conv1.weight"] == ("conv1", "stages.0.0.conv1")
    assert wiring["stages.0.0.conv2.weight"] == ("stages.0.0.conv1", "stages.0.0")
    assert wiring["stages.1.0.shortcut.0.weight"] == ("stages.0.0", "stages.1.0")
    assert wiring["stages.1.1.conv1.weight"] == ("stages.1.0", "stages.1.1.conv1")


def test_residual_chain_counts_every_channel_pair_once():
    chain = residual_chain(residual_masks())
    graph = chain.graph()
    assert graph.sizes == (3, 4, 4, 4, 8, 8, 8, 8)
    assert graph.n_links == 12 + 16 + 16 + 32 + 64 + 32 + 64 + 64
    assert sorted(set(graph.taps.tolist())) == [1, 9]
    assert (graph.taps == 1).sum() == 32


def test_bottlenecks_and_missing_layers_are_wired_by_name():
    masks = {
        "layer1.0.conv1.weight": ones(2, 8, 1, 1),
        "layer1.0.conv3.weight": ones(8, 2, 1, 1),
        "layer1.0.downsample.0.weight": ones(8, 8, 1, 1),
        "layer1.1.conv2.weight": ones(2, 2, 3, 3),
        "layer1.1.conv3.weight": ones(8, 2, 1, 1),
    }
    wiring = residual_wiring(masks)
    assert wiring["layer1.0.conv3.weight"] == ("layer1.0.conv2", "layer1.0")
    assert wiring["layer1.1.conv2.weight"] == ("layer1.1.conv1", "layer1.1.conv2")
    assert residual_chain(masks).graph().n_links == 16 + 16 + 64 + 4 + 16


def test_networks_are_told_apart_by_names():
    assert is_residual(residual_masks())
    assert not is_residual({"conv1.weight": ones(4, 3, 3, 3), "conv2.weight": ones(4, 4, 3, 3)})
    assert not is_residual({"features.0.weight": ones(4, 3, 3, 3)})


def test_a_sparse_residual_network_is_analysed_as_a_whole():
    masks = residual_masks(0.02)
    report = analyse(masks, nulls=2)
    assert (report.chain_kind, len(report.graph.sizes)) == ("wired", 8)
    assert report.small_world is None
    assert any("odd cycles" in note for note in report.notes)
    assert report.graph.links <= sum(row.links for row in report.masks)
    assert 0 < report.anp_hidden < 1
    assert report.meta_depth.pooled_gini.draws == 2


def test_attention_block_as_named_node_sets():
    masks = {name: ones(4, 4) for name in ("q", "k", "v", "o")}
    wiring = {"q": ("x", "q"), "k": ("x", "k"), "v": ("x", "v"), "o": ("v", "y")}
    report = analyse(masks, wiring=wiring, nulls=0)
    assert report.graph.sizes == (4, 4, 4, 4, 4)
    assert report.graph.links == 64
    assert report.small_world is not None  # a tree of blocks has no odd cycle


def test_active_share_of_branches():
    mask = np.array([[1, 0], [0, 0]], dtype=bool)
    blocks = [(0, 1, mask), (0, 2, mask[::-1, ::-1]), (1, 3, mask)]
    # Set 0 sends from both nodes; sets 1 and 3 have one active neuron each, set 2 one.
    assert active_share((2, 2, 2, 2), blocks) == (pytest.approx(5 / 8), 0.5)


def test_bad_wiring_is_refused():
    masks = {"a": ones(4, 3), "b": ones(5, 4)}
    with pytest.raises(ConfigError, match="names no layer"):
        wired_chain(masks, {})
    with pytest.raises(ConfigError, match="'c' is not in the topology"):
        wired_chain(masks, {"c": ("x", "y")})
    with pytest.raises(ConfigError, match="from 'x' to itself"):
        wired_chain(masks, {"a": ("x", "x")})
    with pytest.raises(ConfigError, match="writes 5 channels to 'y', which has 4"):
        wired_chain(masks, {"a": ("x", "y"), "b": ("z", "y")})
    with pytest.raises(ShapeError, match="cannot read 5 channels"):
        wired_chain(masks, {"b": ("x", "y"), "a": ("y", "z")})
    with pytest.raises(ConfigError, match="both chain and wiring"):
        analyse(masks, chain=["a"], wiring={"a": ("x", "y")})

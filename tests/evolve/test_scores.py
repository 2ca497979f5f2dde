from math import sqrt

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from topospike.errors import ConfigError, ShapeError
from topospike.evolve import SCORE_RULES, ch_scores, nodes

LAYERS = ["ch_tiny_6x8", "ch_50x30_d10", "ch_200x100_d05", "ch_32x48_d50", "ch_edge_12x14"]
NODE_RULES = ["CH2-L3n", "CH3-L3n"]
PATH_RULES = ["RA-L3p", "CH1-L3p", "CH2-L3p", "CH3-L3p"]
METHODS = ["auto", "dense", "gather", "sparse"]

derandomised = settings(deadline=None, derandomize=True, max_examples=25)


@st.composite
def layer_masks(draw, largest=9):
    rows, columns = draw(st.integers(1, largest)), draw(st.integers(1, largest))
    density = draw(st.sampled_from([0.0, 0.15, 0.4, 0.8, 1.0]))
    seed = draw(st.integers(0, 10_000))
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(rows, columns, generator=generator) < density


def literal_scores(mask, rule):
    """The formulas as printed, one absent link at a time, over explicit paths."""
    rows, columns = mask.shape
    scores = torch.zeros(rows, columns, dtype=torch.float64)
    row_degree, column_degree = mask.sum(1), mask.sum(0)
    for u in range(rows):
        for v in range(columns):
            if mask[u, v]:
                continue
            paths = [
                (c, z)
                for c in range(columns)
                for z in range(rows)
                if mask[u, c] and mask[z, c] and mask[z, v]
            ]
            inner = {}
            for c, z in paths:
                inner["c", c] = inner.get(("c", c), 0) + 1
                inner["z", z] = inner.get(("z", z), 0) + 1
            degree = {("c", c): int(column_degree[c]) for c, _ in paths}
            degree |= {("z", z): int(row_degree[z]) for _, z in paths}
            outer = {node: degree[node] - inner[node] - 1 for node in inner}
            scores[u, v] = literal_score(rule, paths, inner, outer, degree)
    return scores


def literal_score(rule, paths, i, e, d):
    pairs = [(("c", c), ("z", z)) for c, z in paths]
    return {
        "CH2-L3n": lambda: sum((1 + i[n]) / (1 + e[n]) for n in i),
        "CH3-L3n": lambda: sum(1 / (1 + e[n]) for n in i),
        "CH2-L3p": lambda: sum(
            sqrt((1 + i[c]) * (1 + i[z])) / sqrt((1 + e[c]) * (1 + e[z])) for c, z in pairs
        ),
        "CH3-L3p": lambda: sum(1 / sqrt((1 + e[c]) * (1 + e[z])) for c, z in pairs),
        "CH1-L3p": lambda: sum(sqrt(i[c] * i[z]) / sqrt(d[c] * d[z]) for c, z in pairs),
        "RA-L3p": lambda: sum(1 / sqrt(d[c] * d[z]) for c, z in pairs),
    }[rule]()


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("rule", NODE_RULES)
@pytest.mark.parametrize("method", METHODS)
def test_node_scores_equal_the_reference_to_1e_5(oracle, name, rule, method):
    stored = oracle(name)
    expected = stored[rule.replace("-", "_")]
    scores = ch_scores(torch.from_numpy(stored["mask"]).bool(), rule, method=method)
    assert scores.dtype == torch.float32
    assert np.abs(scores.numpy() - expected).max() <= 1e-5 * expected.max()
    assert np.array_equal(scores.numpy() > 0, stored["n_L3_paths"] * (1 - stored["mask"]) > 0)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("rule", PATH_RULES)
def test_path_scores_equal_the_reference_to_1e_10(oracle, name, rule):
    stored = oracle(name)
    expected = stored[rule.replace("-", "_")]
    scores = ch_scores(torch.from_numpy(stored["mask"]).bool(), rule)
    assert scores.dtype == torch.float64
    assert np.abs(scores.numpy() - expected).max() <= 1e-10 * expected.max()


@pytest.mark.parametrize("name", ["zeros", "ones", "ones_but_one", "eye"])
@pytest.mark.parametrize("rule", ["CH2-L3n", "CH3-L3n", "CH2-L3p", "CH3-L3p"])
def test_degenerate_layers_equal_the_reference(oracle, name, rule):
    stored = oracle("ch_degenerate")
    scores = ch_scores(torch.from_numpy(stored[f"{name}_mask"]).bool(), rule)
    expected = stored[f"{name}_{rule.replace('-', '_')}"]
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("rule", ["CH2-L3n", "CH3-L3n", "CH2-L3p", "CH3-L3p"])
def test_a_784_x_1000_layer_equals_the_reference_to_1e_5(oracle, rule):
    stored = oracle("ch_784x1000_d01")
    rows, columns = (int(size) for size in stored["shape"])
    bits = np.unpackbits(stored["mask_packed"], count=rows * columns)
    scores = ch_scores(torch.from_numpy(bits).bool().view(rows, columns), rule).double()
    key = rule.replace("-", "_")
    assert int((scores > 0).sum()) == int(stored[f"{key}_nnz"])
    assert float(scores.sum()) == pytest.approx(float(stored[f"{key}_sum"]), rel=1e-5)
    top, level = stored[f"{key}_top_score"], stored[f"{key}_top_score"][-1]
    ours = scores.flatten().sort(descending=True).values[: len(top)].numpy()
    assert np.abs(ours - top).max() <= 1e-5 * top[0]
    above = stored[f"{key}_top_flat_index"][top > level * (1 + 1e-5)]
    assert (scores.flatten().numpy()[above] > level).all()
    if rule in NODE_RULES:
        for axis, side in ((1, "row"), (0, "col")):
            np.testing.assert_allclose(
                scores.sum(axis).numpy(), stored[f"{key}_{side}_sum"], rtol=1e-5, atol=1e-5
            )


@derandomised
@given(mask=layer_masks(largest=6), rule=st.sampled_from(sorted(SCORE_RULES)))
def test_scores_equal_the_printed_formula(mask, rule):
    expected = literal_scores(mask, rule)
    torch.testing.assert_close(ch_scores(mask, rule).double(), expected, rtol=2e-6, atol=0)


@derandomised
@given(mask=layer_masks(), rule=st.sampled_from(sorted(SCORE_RULES)))
def test_scores_are_positive_exactly_where_a_path_exists(mask, rule):
    links = mask.double()
    reachable = ((links @ links.T @ links) > 0) & ~mask
    assert torch.equal(ch_scores(mask, rule) > 0, reachable)


@derandomised
@given(mask=layer_masks(), rule=st.sampled_from(sorted(SCORE_RULES)), seed=st.integers(0, 99))
def test_scores_do_not_depend_on_the_names_or_sides_of_neurons(mask, rule, seed):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(mask.shape[0], generator=generator)
    columns = torch.randperm(mask.shape[1], generator=generator)
    scores = ch_scores(mask, rule)
    close = {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(
        ch_scores(mask[rows][:, columns], rule), scores[rows][:, columns], **close
    )
    torch.testing.assert_close(ch_scores(mask.T, rule).T, scores, **close)


@derandomised
@given(mask=layer_masks())
def test_ch2_is_at_least_ch3(mask):
    assert bool((ch_scores(mask, "CH2-L3n") >= ch_scores(mask, "CH3-L3n")).all())
    assert bool((ch_scores(mask, "CH2-L3p") >= ch_scores(mask, "CH3-L3p")).all())


@pytest.mark.parametrize("method", ["dense", "gather", "sparse"])
def test_tiles_do_not_change_the_result(monkeypatch, method):
    mask = torch.rand(70, 45, generator=torch.Generator().manual_seed(1)) < 0.1
    whole = ch_scores(mask, method=method)
    for name in ("CPU_TILE", "DEVICE_TILE"):
        monkeypatch.setattr(nodes, name, 500)
    assert len(nodes.row_tiles(70, 70, 500)) == 10
    torch.testing.assert_close(ch_scores(mask, method=method), whole, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("narrow", [True, False])
def test_counts_are_exact_in_bytes_and_in_floats(monkeypatch, narrow):
    # 700 shared neighbours: beyond what a byte, or bfloat16, could hold.
    mask = torch.rand(37, 1400, generator=torch.Generator().manual_seed(2)) < 0.8
    monkeypatch.setattr(nodes, "has_int8_products", lambda: narrow)
    count = nodes.Counts(mask, mask.float())
    assert (count.left.dtype == torch.int8) is narrow
    expected = mask.double() @ mask.double().T
    assert expected.max() > 1000
    assert torch.equal(count.tile(slice(5, 20)).double(), expected[5:20, 5:])


@pytest.mark.parametrize("shape", [(3, 1), (1, 3), (1, 1), (65, 1), (1, 65), (2, 64)])
def test_counts_survive_axes_of_length_one(shape):
    mask = torch.ones(shape[::-1], dtype=torch.bool).T.contiguous()
    count = nodes.Counts(mask, mask.float())
    for first in range(shape[0]):
        tile = count.tile(slice(first, first + 1))
        assert tile.tolist() == [[float(shape[1])] * (shape[0] - first)]


def test_both_triangles_of_the_counts_are_used(monkeypatch):
    monkeypatch.setattr(nodes, "CPU_TILE", 70 * 8)
    mask = torch.rand(70, 45, generator=torch.Generator().manual_seed(3)) < 0.4
    shared, degree = mask.double() @ mask.double().T, mask.double().sum(1)
    weight = torch.where(shared > 0, 1 / (degree - shared).clip(1), 0.0)
    found = nodes.one_side_dense(mask, SCORE_RULES["CH3-L3n"])
    torch.testing.assert_close(found.double(), weight @ mask.double(), rtol=1e-5, atol=1e-6)


def test_tiles_bound_the_memory_of_wide_layers():
    tiles = nodes.row_tiles(32_768, 32_768, 2**24)
    assert max(rows.stop - rows.start for rows in tiles) * 32_768 <= 2**24
    assert tiles[0].start == 0
    assert tiles[-1].stop == 32_768


@pytest.mark.parametrize(
    ("shape", "density", "expected"),
    [((4096, 4096), 0.002, "sparse"), ((1568, 1568), 0.01, "gather"), ((200, 100), 0.3, "dense")],
)
def test_the_method_follows_the_density(shape, density, expected):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < density
    assert nodes.cheapest_method(mask) == expected


def test_scores_are_float32_and_exact_under_autocast():
    mask = torch.rand(60, 50, generator=torch.Generator().manual_seed(3)) < 0.4
    exact = ch_scores(mask, method="dense")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = ch_scores(mask, method="dense")
    assert inside.dtype == torch.float32
    assert torch.equal(inside, exact)


def test_the_global_generator_is_not_touched():
    before = torch.random.get_rng_state()
    ch_scores(torch.ones(4, 4, dtype=torch.bool), "CH3-L3p")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_unknown_rule_suggests_the_nearest():
    with pytest.raises(ConfigError, match=r"unknown score rule 'CH2-L3'.*Did you mean 'CH2-L3"):
        ch_scores(torch.ones(2, 2, dtype=torch.bool), "CH2-L3")


def test_an_unknown_method_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"'fast'.*auto, dense, gather, sparse"):
        ch_scores(torch.ones(2, 2, dtype=torch.bool), method="fast")


@pytest.mark.parametrize("mask", [torch.ones(2, 2), torch.ones(2, 2, 3, 3, dtype=torch.bool)])
def test_a_mask_that_is_no_bool_matrix_is_refused(mask):
    with pytest.raises(ShapeError, match=r"bool matrix \(n_out, n_in\) is required"):
        ch_scores(mask)

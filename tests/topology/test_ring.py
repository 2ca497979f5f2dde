import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from topospike.errors import ConfigError
from topospike.topology import brf_mask, bsw_mask
from topospike.topology.initial import node_degrees

ORACLES = Path(__file__).parents[1] / "oracles" / "cht"
BRF = json.loads((ORACLES / "brf_stats.json").read_text())
BSW = json.loads((ORACLES / "bsw_stats.json").read_text())


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def ring_distances(shape):
    """Distance of every cell from its row's centre, spelled out cell by cell."""
    rows, columns = shape
    table = torch.zeros(shape)
    for i in range(rows):
        centre = (i + 0.5) * columns / rows - 0.5
        for j in range(columns):
            table[i, j] = min(abs(j - centre), columns - abs(j - centre))
    return table


@pytest.mark.parametrize(
    "row", BRF, ids=lambda row: f"{row['shape']}-r{row['r']}-{row['degree_dist']}"
)
def test_brf_statistics_are_those_of_the_reference(row):
    # The reference controls the degrees of the smaller side, whichever it is: compare with our
    # rows on that side. What it calls uniform is a binomial law.
    shape = tuple(sorted(row["shape"]))
    law = {"fixed": "fixed", "uniform": "binomial"}[row["degree_dist"]]
    links = round((1 - row["sparsity"]) * shape[0] * shape[1])
    assert [links, links] == row["n_links"]
    generator, table = seeded(), ring_distances(shape)
    distance, small, large = [], [], []
    for _ in range(12):
        mask = brf_mask(shape, links=links, r=row["r"], degree=law, generator=generator)
        assert int(mask.sum()) == links
        distance.append(table[mask].mean())
        small.append(mask.sum(1).double().std(correction=0))
        large.append(mask.sum(0).double().std(correction=0))
    ours = torch.stack(distance).mean()
    # Two means of 12 draws each: five standard errors, plus the shift between the centres.
    margin = 5 * row["sd_over_reps"] * (2 / 12) ** 0.5 + 0.01 * row["mean_ring_distance"]
    assert abs(ours - row["mean_ring_distance"]) < margin
    small_margin = 1e-9 if law == "fixed" else 0.15
    assert torch.stack(small).mean() == pytest.approx(
        row["std_of_degree_small_side"], rel=small_margin
    )
    # Ties between two inputs equally near are broken in another order: only r = 0 on a square.
    assert torch.stack(large).mean() == pytest.approx(row["std_of_degree_large_side"], abs=0.15)


@pytest.mark.parametrize("row", BSW, ids=lambda row: f"{row['shape']}-beta{row['beta']}")
def test_bsw_overlap_with_its_lattice_is_that_of_the_reference(row):
    shape = tuple(row["shape"])
    links = round((1 - row["sparsity"]) * shape[0] * shape[1])
    assert [links, links] == row["n_links"]
    overlaps = []
    for seed in range(20):
        lattice = bsw_mask(shape, links=links, beta=0.0, generator=seeded(seed))
        mask = bsw_mask(shape, links=links, beta=row["beta"], generator=seeded(seed))
        assert int(mask.sum()) == links
        overlaps.append((mask & lattice).sum() / links)
    # One draw scatters by at most 0.028; means of 20 of ours and 10 of theirs.
    assert torch.stack(overlaps).mean() == pytest.approx(
        row["overlap_with_lattice"], abs=0.03 if row["beta"] else 0.0
    )


def test_lattice_windows_are_the_ones_of_the_formula():
    rows, columns, links = 30, 12, 100
    mask = bsw_mask((rows, columns), links=links, beta=0.0, generator=seeded(3))
    degrees = node_degrees(rows, links=links, capacity=columns, generator=seeded(3))
    for j, k in enumerate(degrees.tolist()):
        start = (2 * j * columns - k * rows) // (2 * rows)
        assert set(mask[j].nonzero().flatten().tolist()) == {
            (start + step) % columns for step in range(k)
        }


def test_lattice_lies_on_the_larger_side_either_way():
    tall = bsw_mask((30, 12), links=100, beta=0.0, generator=seeded(3))
    wide = bsw_mask((12, 30), links=100, beta=0.0, generator=seeded(3))
    assert torch.equal(wide, tall.T)
    assert int(tall.sum(1).max() - tall.sum(1).min()) == 1


@settings(deadline=None, derandomize=True, max_examples=25)
@given(rows=st.integers(1, 12), columns=st.integers(1, 12), data=st.data())
def test_brf_without_randomness_takes_the_nearest_inputs(rows, columns, data):
    links = data.draw(st.integers(1, rows * columns))
    law = data.draw(st.sampled_from(["fixed", "uniform", "binomial"]))
    mask = brf_mask((rows, columns), links=links, r=0.0, degree=law, generator=seeded())
    table = ring_distances((rows, columns))
    assert int(mask.sum()) == links
    for i in range(rows):
        if mask[i].any() and not mask[i].all():
            assert table[i][mask[i]].max() <= table[i][~mask[i]].min() + 1e-5


def test_brf_degrees_belong_to_the_output_nodes():
    for shape in ((256, 64), (64, 256), (50, 137)):
        mask = brf_mask(shape, links=1638, r=0.25, generator=seeded())
        degrees = mask.sum(1)
        assert int(degrees.max() - degrees.min()) <= 1
        assert int(mask.sum()) == 1638


def test_brf_covers_every_input_of_a_layer_that_is_no_multiple():
    # 86 x 128: integer strides would leave the last third of the inputs without a centre.
    mask = brf_mask((86, 128), links=860, r=0.0, generator=seeded())
    assert int(mask.sum(0).min()) >= 5


def test_brf_draws_follow_their_probabilities():
    # One output node with 5 inputs and one link: the shares are the probabilities themselves.
    shape, r, draws = (1, 5), 0.4, 4000
    weight = (1 + ring_distances(shape)[0]) ** (-(1 - r) / r)
    generator = seeded()
    counts = sum(
        brf_mask(shape, links=1, r=r, generator=generator)[0].double() for _ in range(draws)
    )
    expected = weight / weight.sum()
    error = (expected * (1 - expected) / draws).sqrt()
    assert ((counts / draws - expected).abs() < 5 * error).all()


def test_same_seed_gives_the_same_mask_and_another_seed_another():
    for draw in (brf_mask, bsw_mask):
        first = draw((20, 30), links=60, generator=seeded(1))
        assert torch.equal(first, draw((20, 30), links=60, generator=seeded(1)))
        assert not torch.equal(first, draw((20, 30), links=60, generator=seeded(2)))


def test_impossible_options_are_refused():
    with pytest.raises(ConfigError, match=r"beta is 1\.5"):
        bsw_mask((3, 3), links=2, beta=1.5, generator=seeded())
    with pytest.raises(ConfigError, match=r"r is -0\.1"):
        brf_mask((3, 3), links=2, r=-0.1, generator=seeded())
    with pytest.raises(ConfigError, match="unknown degree law"):
        brf_mask((3, 3), links=2, degree="normal", generator=seeded())

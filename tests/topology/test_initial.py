import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from topospike.errors import ConfigError, ShapeError
from topospike.topology import (
    INITIAL_TOPOLOGIES,
    active_count,
    er_mask,
    feature_correlation,
    initial_mask,
)

RANDOM_KINDS = sorted(set(INITIAL_TOPOLOGIES) - {"csti", "sscti"})
AWKWARD = [(1, 1), (1, 7), (7, 1), (2, 9), (5, 5), (13, 4)]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", RANDOM_KINDS)
@pytest.mark.parametrize("shape", AWKWARD, ids=str)
def test_every_possible_number_of_links_is_met_exactly(kind, shape):
    for links in range(1, shape[0] * shape[1] + 1):
        mask = initial_mask(shape, kind, links=links, generator=seeded())
        assert mask.dtype is torch.bool
        assert tuple(mask.shape) == shape
        assert int(mask.sum()) == links


@pytest.mark.parametrize("shape", AWKWARD, ids=str)
def test_csti_meets_one_link_and_the_full_layer(shape):
    correlation = feature_correlation(torch.rand(20, 3, generator=seeded()))
    size = shape[0] * shape[1]
    # A one-cell layer holds only the empty diagonal: no correlation, but one link is required.
    for links in {1, size} if size > 1 else {1}:
        mask = initial_mask(shape, "csti", links=links, correlation=correlation, generator=seeded())
        assert int(mask.sum()) == links


@pytest.mark.parametrize("kind", RANDOM_KINDS)
@settings(deadline=None, derandomize=True, max_examples=20)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    sparsity=st.floats(0, 0.9999),
    seed=st.integers(0, 1000),
    option=st.floats(0, 1),
    degree=st.sampled_from(["fixed", "uniform", "binomial"]),
)
def test_totals_are_exact_for_any_shape_and_option(
    kind, rows, columns, sparsity, seed, option, degree
):
    links = active_count(rows * columns, sparsity)
    mask = initial_mask(
        (rows, columns),
        kind,
        links=links,
        generator=seeded(seed),
        beta=option,
        r=option,
        degree=degree,
    )
    assert int(mask.sum()) == links


def test_er_reaches_every_position_equally_often():
    generator, draws = seeded(), 3000
    counts = sum(er_mask((3, 4), links=3, generator=generator).double() for _ in range(draws))
    error = (0.25 * 0.75 / draws) ** 0.5
    assert ((counts / draws - 0.25).abs() < 5 * error).all()


def test_convolutions_and_groups_share_links_evenly():
    mask = initial_mask((6, 2, 3, 3), links=32, groups=3, generator=seeded())
    assert tuple(mask.shape) == (6, 2, 3, 3)
    assert mask.flatten(1).sum(1).reshape(3, 2).sum(1).tolist() == [11, 11, 10]
    full = initial_mask((6, 2, 3, 3), "brf", links=108, groups=3, generator=seeded())
    assert full.all()


def test_depthwise_convolutions_may_have_groups_without_links():
    mask = initial_mask((4, 1, 3, 3), links=2, groups=4, generator=seeded())
    assert mask.flatten(1).sum(1).tolist() == [1, 1, 0, 0]


def test_one_generator_gives_different_layers_and_one_seed_the_same():
    generator = seeded(4)
    first = er_mask((10, 10), links=20, generator=generator)
    assert not torch.equal(first, er_mask((10, 10), links=20, generator=generator))
    assert torch.equal(first, er_mask((10, 10), links=20, generator=seeded(4)))


def test_the_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    for kind in RANDOM_KINDS:
        initial_mask((8, 9), kind, links=20, generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)


def test_impossible_requests_are_refused():
    with pytest.raises(ConfigError, match=r"unknown initial topology 'bfr'.*Did you mean"):
        initial_mask((3, 3), "bfr", links=2, generator=seeded())
    with pytest.raises(ConfigError, match=r"0 links .* 3 x 3 layer; 1 to 9"):
        er_mask((3, 3), links=0, generator=seeded())
    with pytest.raises(ConfigError, match="10 links"):
        initial_mask((3, 3), links=10, generator=seeded())
    with pytest.raises(ConfigError, match="csti needs the correlation"):
        initial_mask((3, 3), "csti", links=2, generator=seeded())
    with pytest.raises(ShapeError, match=r"3 output channels .* 2 groups"):
        initial_mask((3, 3), links=2, groups=2, generator=seeded())

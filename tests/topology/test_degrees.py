import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from topospike.errors import ConfigError
from topospike.topology import node_degrees

LAWS = ["fixed", "uniform", "binomial"]


@pytest.mark.parametrize("law", LAWS)
@settings(deadline=None, derandomize=True, max_examples=40)
@given(nodes=st.integers(1, 40), capacity=st.integers(1, 40), data=st.data())
def test_sum_is_exact_and_every_degree_possible(law, nodes, capacity, data):
    links = data.draw(st.integers(0, nodes * capacity))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    degrees = node_degrees(nodes, links=links, capacity=capacity, law=law, generator=generator)
    assert degrees.shape == (nodes,)
    assert int(degrees.sum()) == links
    assert int(degrees.min()) >= (1 if links >= nodes else 0)
    assert int(degrees.max()) <= capacity


def test_fixed_takes_two_neighbouring_values_in_random_order():
    generator = torch.Generator().manual_seed(0)
    degrees = node_degrees(1000, links=6400, capacity=64, generator=generator)
    assert degrees.bincount(minlength=9).tolist() == [0, 0, 0, 0, 0, 0, 600, 400, 0]
    assert degrees[:600].sum() != 3600


def test_uniform_is_flat_between_one_and_twice_the_mean():
    generator = torch.Generator().manual_seed(0)
    degrees = node_degrees(
        20_000, links=20_000 * 8, capacity=64, law="uniform", generator=generator
    )
    counts = degrees.bincount(minlength=16).double()
    assert counts[0] == 0
    assert len(counts) == 16
    # 15 values, 1333 expected each: five standard deviations of a count are about 180.
    assert (counts[1:] - 20_000 / 15).abs().max() < 180


def test_uniform_above_half_density_is_flat_up_to_the_capacity():
    generator = torch.Generator().manual_seed(0)
    degrees = node_degrees(
        20_000, links=20_000 * 8, capacity=10, law="uniform", generator=generator
    )
    counts = degrees.bincount(minlength=11).double()
    assert counts[:6].sum() == 0
    assert (counts[6:] - 4000).abs().max() < 300


def test_binomial_has_the_variance_of_thrown_links():
    generator = torch.Generator().manual_seed(0)
    degrees = node_degrees(
        20_000, links=20_000 * 26, capacity=256, law="binomial", generator=generator
    )
    # One link is given, 25 on average are thrown: variance 25, with a sampling error of 1 %.
    assert float(degrees.double().var()) == pytest.approx(25, rel=0.05)


def test_impossible_requests_are_refused():
    generator = torch.Generator()
    with pytest.raises(ConfigError, match="7 links cannot be shared by 2 nodes of at most 3"):
        node_degrees(2, links=7, capacity=3, generator=generator)
    with pytest.raises(ConfigError, match=r"unknown degree law 'unifrom'.*Did you mean 'uniform'"):
        node_degrees(2, links=2, capacity=3, law="unifrom", generator=generator)

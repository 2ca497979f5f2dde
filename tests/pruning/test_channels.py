"""Channels that stay, against the published table of widths and hand-computed cases."""

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topospike.errors import ConfigError
from topospike.pruning.channels import (
    HiddenLayer,
    channels_left,
    equal_neurons_left,
    neurons_left,
    weights_left,
)


@pytest.mark.parametrize(
    ("sparsity", "left"), [(0.78, [30, 60, 120, 240]), (0.99, [6, 12, 25, 51])]
)
def test_sparsity_compounds_over_inputs_and_outputs(sparsity, left):
    assert [channels_left(width, sparsity, layer="c") for width in (64, 128, 256, 512)] == left
    assert 1 - math.sqrt(1 - 0.78) == pytest.approx(0.530958, abs=1e-6)


def test_binary_rounding_does_not_take_a_channel():
    # 10 * (1 - 0.9) is 0.9999999999999998
    assert channels_left(10, 0.99, layer="c") == 1


def test_hidden_layers_are_solved_one_after_the_other():
    first = neurons_left(512, 512, 240, 0.99, layer="fc1")
    second = neurons_left(512, 512, first, 0.99, layer="fc2")
    assert (first, second) == (11, 238)
    assert pytest.approx(0.9899, abs=5e-5) == 1 - 240 * 11 / 512**2
    assert pytest.approx(0.9900, abs=5e-5) == 1 - 11 * 238 / 512**2


def test_no_more_neurons_than_there_are():
    assert neurons_left(100, 10, 1, 0.5, layer="fc") == 10


def test_a_group_that_rounds_to_nothing_is_an_error():
    with pytest.raises(ConfigError, match=r"stem: sparsity 0.999 rounds to none of its 8 channels"):
        channels_left(8, 0.999, layer="stem")
    with pytest.raises(ConfigError, match=r"fc1: sparsity 0.99 rounds to none of its 10"):
        neurons_left(20, 10, 20, 0.99, layer="fc1")
    with pytest.raises(ConfigError, match="every hidden layer"):
        equal_neurons_left([HiddenLayer(10, 10, 10)], 0.99)


@settings(deadline=None, derandomize=True, max_examples=25)
@given(
    sizes=st.lists(st.integers(8, 200), min_size=2, max_size=5),
    sparsity=st.floats(0.1, 0.9),
)
def test_equal_widths_are_the_largest_that_meet_the_total(sizes, sparsity):
    pairs = list(pairwise(sizes))
    layers = [HiddenLayer(a, b, a if not i else None) for i, (a, b) in enumerate(pairs)]
    width = equal_neurons_left(layers, sparsity)
    budget = (1 - sparsity) * sum(a * b for a, b in pairs)
    assert weights_left(layers, width) <= budget + 1e-6
    wider = weights_left(layers, width + 1)
    assert wider > budget or width == max(sizes[1:])

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from topospike.errors import ShapeError
from topospike.evolve import Coupling, Feeding, percolate, percolate_network
from topospike.evolve.percolation import has_input, has_output

derandomised = settings(deadline=None, derandomize=True, max_examples=25)


@st.composite
def chains(draw):
    """Masks of a chain: convolutions first, a flatten, then linear layers."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 9999)))
    density = draw(st.sampled_from([0.0, 0.1, 0.3, 0.7]))
    widths = draw(st.lists(st.integers(1, 7), min_size=2, max_size=5))
    convolutions = draw(st.integers(0, len(widths) - 1))
    masks = []
    for layer, (n_in, n_out) in enumerate(pairwise(widths)):
        if layer < convolutions:
            shape = (n_out, n_in, 2, 2)
        else:
            shape = (n_out, n_in * (3 if layer == convolutions and layer else 1))
        masks.append(torch.rand(shape, generator=generator) < density)
    return masks


@pytest.mark.parametrize(("name", "layers"), [("chain3", 3), ("chain4", 4)])
def test_a_chain_equals_the_reference_exactly(oracle, name, layers):
    stored = oracle(f"percolation_{name}")
    masks = [torch.from_numpy(stored[f"in_{layer}"]).bool() for layer in range(layers)]
    for layer, mask in enumerate(percolate(masks)):
        assert np.array_equal(mask.numpy(), stored[f"out_{layer}"].astype(bool))


def test_attention_and_gated_layers_equal_the_reference_exactly(oracle):
    stored = oracle("percolation_transformer")
    names = ["q", "k", "v", "o", "gate", "up", "down"]
    masks = {name: torch.from_numpy(stored[name]).bool() for name in names}
    width, hidden = tuple(range(24)), tuple(range(40))
    relations = [
        Coupling("q", "k", width, width),
        Coupling("gate", "up", hidden, hidden),
        Feeding("v", "o", width),
        Feeding("gate", "down", hidden),
        Feeding("up", "down", hidden),
    ]
    for name, mask in percolate_network(masks, relations).items():
        assert np.array_equal(mask.numpy(), stored[f"{name}_out"].astype(bool)), name


def test_a_fused_projection_percolates_like_its_slices(oracle):
    stored = oracle("percolation_transformer")
    fused = torch.cat([torch.from_numpy(stored[name]).bool() for name in "qkv"])
    masks = {"qkv": fused, "o": torch.from_numpy(stored["o"]).bool()}
    q, k, v = (tuple(range(start, start + 24)) for start in (0, 24, 48))
    result = percolate_network(masks, [Coupling("qkv", "qkv", q, k), Feeding("qkv", "o", v)])
    expected = np.concatenate([stored[f"{name}_out"] for name in "qkv"]).astype(bool)
    assert np.array_equal(result["qkv"].numpy(), expected)
    assert np.array_equal(result["o"].numpy(), stored["o_out"].astype(bool))
    assert torch.equal(masks["qkv"], fused)


def test_a_key_shared_by_two_queries_dies_with_both():
    empty_first = torch.tensor([[False], [True], [False], [False]])
    masks = {"q": empty_first, "k": torch.ones(2, 1, dtype=torch.bool)}
    relation = Coupling("q", "k", (0, 1, 2, 3), (0, 0, 1, 1))
    assert percolate_network(masks, [relation])["k"].tolist() == [[True], [False]]


def test_sweeps_repeat_until_no_neuron_is_half_dead():
    # Emptying a row of k by q leaves a neuron of the layer before it without output.
    masks = {
        "before": torch.eye(2, dtype=torch.bool),
        "q": torch.tensor([[True, True], [False, False]]),
        "k": torch.eye(2, dtype=torch.bool),
    }
    result = percolate_network(masks, [("before", "k"), Coupling("q", "k", (0, 1), (0, 1))])
    assert result["before"].tolist() == [[True, False], [False, False]]


def test_one_update_of_a_chain_equals_the_reference_exactly(oracle):
    stored = oracle("evolve_topk_ch2l3n")
    removed = [torch.from_numpy(stored[f"mask_removed_{layer}"]).bool() for layer in range(3)]
    for layer, mask in enumerate(percolate(removed)):
        assert np.array_equal(mask.numpy(), stored[f"mask_percolated_{layer}"].astype(bool))


def test_a_channel_dies_only_with_its_whole_kernel():
    first = torch.ones(2, 1, 3, 3, dtype=torch.bool)
    second = torch.zeros(1, 2, 3, 3, dtype=torch.bool)
    second[0, 0, 1, 1] = True
    first_after, second_after = percolate([first, second])
    assert first_after[0].all()
    assert not first_after[1].any()
    assert torch.equal(second_after, second)


def test_behind_a_flatten_a_channel_owns_a_block_of_columns():
    kernel = torch.zeros(2, 1, 1, 1, dtype=torch.bool)
    kernel[1] = True
    after = percolate([kernel, torch.ones(1, 8, dtype=torch.bool)])[1]
    assert after.tolist() == [[False] * 4 + [True] * 4]


@derandomised
@given(masks=chains())
def test_percolation_is_a_fixpoint_that_leaves_no_half_dead_neuron(masks):
    untouched = [mask.clone() for mask in masks]
    result = percolate(masks)
    assert all(torch.equal(mask, before) for mask, before in zip(masks, untouched, strict=True))
    for mask, before in zip(result, masks, strict=True):
        assert mask.shape == before.shape
        assert not (mask & ~before).any()
    for before, after in pairwise(result):
        assert torch.equal(has_input(before), has_output(before.shape[0], after))
    again = percolate(result)
    assert all(torch.equal(mask, before) for mask, before in zip(again, result, strict=True))


def test_a_single_layer_and_an_empty_chain_stay_as_they_are():
    mask = torch.tensor([[True, False]])
    assert percolate([]) == []
    assert percolate([mask])[0].tolist() == [[True, False]]


def test_memory_layout_does_not_matter():
    first = torch.ones(3, 2, 2, 2, dtype=torch.bool).contiguous(memory_format=torch.channels_last)
    second = torch.ones(2, 3, 2, 2, dtype=torch.bool).contiguous(memory_format=torch.channels_last)
    second[:, 1] = False
    assert not percolate([first, second])[0][1].any()


def test_errors_name_the_position_in_the_chain():
    with pytest.raises(ShapeError, match="mask 1 of the chain has 3 inputs, the one before 2"):
        percolate([torch.ones(2, 2, dtype=torch.bool), torch.ones(2, 3, dtype=torch.bool)])
    with pytest.raises(ShapeError, match=r"mask 0 .* dtype torch.float32"):
        percolate([torch.ones(2, 2)])

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from topospike.errors import ShapeError
from topospike.evolve import percolate
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


@pytest.mark.parametrize(
    "chain", [("v", "o"), pytest.param(("gate", "up", "down"), id="gated feed-forward")]
)
def test_transformer_pairs_equal_the_reference_exactly(oracle, chain):
    stored = oracle("percolation_transformer")
    masks = {name: torch.from_numpy(stored[name]).bool() for name in chain}
    if chain == ("v", "o"):
        masks = dict(zip(chain, percolate([masks["v"], masks["o"]]), strict=True))
    else:
        # Gate and up multiply element by element: a row goes from both if empty in either.
        alive = has_input(masks["gate"]) & has_input(masks["up"])
        masks["gate"], masks["up"] = masks["gate"] & alive[:, None], masks["up"] & alive[:, None]
        masks["gate"], masks["down"] = percolate([masks["gate"], masks["down"]])
        masks["up"], masks["down"] = percolate([masks["up"], masks["down"]])
    for name in chain:
        assert np.array_equal(masks[name].numpy(), stored[f"{name}_out"].astype(bool)), name


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

import pytest
import torch

from topospike.evolve import Coupling, Feeding, active_hidden_neurons, active_neurons


def test_the_reference_count_takes_all_inputs_and_the_last_outputs():
    first = torch.tensor([[True, False, False], [True, False, False]])
    second = torch.tensor([[True, False], [False, False], [False, False]])
    # Inputs 1 of 3, then 1 of 2, outputs 1 of 3.
    assert active_neurons([first, second]) == pytest.approx(3 / 8)


def test_convolutions_count_by_channel():
    kernel = torch.zeros(2, 3, 2, 2, dtype=torch.bool)
    kernel[1, 2, 0, 0] = True
    assert active_neurons([kernel]) == pytest.approx((1 + 1) / (3 + 2))


def test_hidden_neurons_need_links_on_both_sides():
    masks = {
        "a": torch.tensor([[True], [True], [False]]),
        "b": torch.tensor([[True, False, True]]),
    }
    # Neuron 0 has both sides, 1 no output, 2 no input; the neuron behind b feeds something dense.
    assert active_hidden_neurons(masks, [("a", "b")]) == pytest.approx(2 / 4)
    assert active_hidden_neurons(masks, []) == pytest.approx(3 / 4)


def test_behind_a_flatten_a_channel_owns_a_block():
    masks = {
        "conv": torch.ones(2, 1, 1, 1, dtype=torch.bool),
        "fc": torch.tensor([[False, False, False, True]]),
    }
    assert active_hidden_neurons(masks, [("conv", "fc")]) == pytest.approx(2 / 3)


def test_nothing_hidden_is_nothing_active():
    assert active_hidden_neurons({}, []) == 0.0


def test_attention_needs_both_factors_and_a_reader():
    masks = {
        "q": torch.tensor([[True], [True], [False]]),
        "k": torch.tensor([[True], [False], [True]]),
        "v": torch.tensor([[True], [True], [False]]),
        "o": torch.tensor([[True, False, True]]),
    }
    relations = [Coupling("q", "k", (0, 1, 2), (0, 1, 2)), Feeding("v", "o", (0, 1, 2))]
    # One of three in q, in k and in v; the output of o goes to something dense.
    assert active_hidden_neurons(masks, relations) == pytest.approx(4 / 10)
    assert masks["q"].sum() == 2

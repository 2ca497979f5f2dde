import pytest
import torch
from torch import nn

from topospike.errors import TopologyViolation
from topospike.evolve.gradients import GradientMasker, clear_slots
from topospike.topology import masked_layers, register_mask, set_mask


def masker_of(model, *, record=False):
    return GradientMasker(masked_layers(model), record=record)


@pytest.fixture
def layer():
    module = nn.Linear(3, 2, bias=False)
    register_mask(module, torch.tensor([[True, False, True], [False, True, False]]))
    module.weight.grad = torch.arange(1.0, 7.0).view(2, 3)
    return module


def test_only_gradients_of_present_links_survive(layer):
    masker_of(layer).mask_now()
    assert layer.weight.grad.tolist() == [[1, 0, 3], [0, 5, 0]]


def test_a_changed_mask_is_noticed(layer):
    masker = masker_of(layer)
    masker.mask_now()
    set_mask(layer, ~layer.weight_mask)
    layer.weight.grad = torch.arange(1.0, 7.0).view(2, 3)
    masker.mask_now()
    assert layer.weight.grad.tolist() == [[0, 2, 0], [4, 0, 6]]


def test_the_cache_follows_the_dtype(layer):
    masker = masker_of(layer)
    masker.mask_now()
    layer.to(torch.bfloat16)
    layer.weight.grad = torch.ones(2, 3, dtype=torch.bfloat16)
    masker.mask_now()
    assert layer.weight.grad.sum() == 3
    assert masker.cache[0].values.dtype == torch.bfloat16


def test_layers_without_a_gradient_are_skipped(layer):
    idle = nn.Linear(1, 1)
    register_mask(idle, torch.ones(1, 1, dtype=torch.bool))
    masker = masker_of(nn.Sequential(idle, layer), record=True)
    masker.before_step(torch.optim.SGD(layer.parameters(), lr=0.1), (), {})
    assert masker.recorded[0] is None
    assert masker.recorded[1].tolist() == [[1, 2, 3], [4, 5, 6]]


def test_nan_in_an_absent_gradient_is_not_hidden(layer):
    layer.weight.grad[0, 1] = float("nan")
    masker_of(layer).mask_now()
    assert layer.weight.grad[0, 1].isnan()


def test_a_deleted_mask_is_named(layer):
    masker = masker_of(layer)
    del layer.weight_mask
    with pytest.raises(TopologyViolation, match="has lost its weight_mask"):
        masker.mask_now()


def test_slots_are_found_by_shape():
    weight = nn.Parameter(torch.ones(2, 2))
    optimizer = torch.optim.Adam([weight], lr=0.1, amsgrad=True)
    weight.sum().backward()
    optimizer.step()
    positions = torch.tensor([[True, False], [False, False]])
    clear_slots(optimizer, weight, positions)
    state = optimizer.state[weight]
    assert float(state["step"]) == 1.0
    for name in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"):
        assert (state[name] == 0).tolist() == positions.tolist()


def test_an_optimizer_that_has_not_stepped_has_nothing_to_clear():
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    clear_slots(optimizer, weight, torch.ones(2, dtype=torch.bool))
    assert weight not in optimizer.state

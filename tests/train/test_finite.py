import math

import pytest
import torch
from torch import nn

from topospike.errors import NonFiniteError
from topospike.train.finite import LossGuard, check_weights, diagnose, first_nonfinite_layer


@pytest.mark.parametrize("value", [0.0, -1e38, math.nan, math.inf, -math.inf])
def test_guard_agrees_with_isfinite(value):
    guard = LossGuard(torch.device("cpu"))
    guard.watch(torch.tensor(value))
    assert guard.passed() is math.isfinite(value)


class Ratio(nn.Module):
    """Divides between two layers, outside any module of its own."""

    def __init__(self):
        super().__init__()
        self.before, self.after = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x):
        return self.after(self.before(x) / 0)


def test_the_layer_with_the_broken_weight_is_named():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        model[2].weight[1, 1] = math.inf
    found = first_nonfinite_layer(model, lambda: model(torch.ones(4, 2)))
    assert "layer '2' (Linear, output shape (4, 2))" in found
    assert "its weight holds 1 of them and its bias reaches" in found


def test_overflow_is_blamed_on_the_layer_that_overflows():
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1), nn.Linear(1, 1))
    for layer in model:
        nn.init.constant_(layer.weight, 1e30)
    found = first_nonfinite_layer(model, lambda: model(torch.ones(1, 1)))
    assert "layer '1'" in found
    assert "its weight reaches 1e+30" in found


def test_an_operation_between_layers_is_found_at_the_next_input():
    model = Ratio()
    found = first_nonfinite_layer(model, lambda: model(torch.ones(1, 2)))
    assert found.startswith("They first reach a module as the input of layer 'after'")


def test_finite_everywhere_says_so_and_leaves_no_hook():
    model = nn.Sequential(nn.Linear(2, 2))
    found = first_nonfinite_layer(model, lambda: model(torch.ones(1, 2)))
    assert "the loss itself is not" in found
    assert not model._forward_hooks
    assert not model[0]._forward_hooks


def test_a_broken_batch_is_not_blamed_on_a_layer():
    model = nn.Linear(2, 2)
    images = torch.tensor([[1.0, math.nan]])
    error = diagnose(model, images, lambda: model(images), loss=math.nan, place="step 17")
    assert isinstance(error, NonFiniteError)
    assert "loss is nan at step 17" in str(error)
    assert "batch itself holds 1 non-finite values of 2" in str(error)


def test_weights_are_checked_by_name():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    check_weights(model, epoch=0)
    with torch.no_grad():
        model[1].bias[0] = math.nan
    with pytest.raises(NonFiniteError, match=r"epoch 5 the bias of layer '1' holds 1 .* of 2"):
        check_weights(model, epoch=5)

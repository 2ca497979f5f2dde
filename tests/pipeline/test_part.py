"""A part of a network that is looked at by itself."""

import pytest
import torch
from torch import nn

from topospike.pipeline.part import reaching


def test_a_network_is_left_as_it_was_also_after_an_error():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4).eval(), nn.Linear(4, 2))
    before = [module.training for module in model.modules()]
    assert reaching(model, "2", torch.rand(5, 3)).shape == (5, 4)
    with pytest.raises(RuntimeError, match="shapes"):
        reaching(model, "0", torch.rand(5, 7))
    assert [module.training for module in model.modules()] == before
    assert not any(module._forward_pre_hooks for module in model.modules())

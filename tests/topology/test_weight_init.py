import math

import pytest
import torch
from torch import nn

from topospike.errors import ConfigError, ShapeError
from topospike.topology import er_mask, init_weights, initial_mask


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_swi_uses_the_sparse_fan_in_of_a_layer_that_is_not_square():
    layer = nn.Linear(800, 300)
    mask = er_mask((300, 800), links=24_000, generator=seeded(1))
    init_weights(layer, mask, sparsity=0.9, generator=seeded())
    present = layer.weight[mask]
    # 24000 normal values: the deviation is known to 0.5 %; fan-out would be off by 63 %.
    assert present.std().item() == pytest.approx(math.sqrt(2 / (0.1 * 800)), rel=0.02)
    assert abs(present.mean().item()) < 5 * 0.16 / math.sqrt(24_000)
    assert (layer.weight[~mask] == 0).all()


def test_swi_of_a_convolution_uses_channels_times_kernel():
    conv = nn.Conv2d(32, 64, 3)
    mask = initial_mask(conv.weight.shape, links=64 * 288 // 2, generator=seeded(1))
    init_weights(conv, mask, generator=seeded())
    assert conv.weight[mask].std().item() == pytest.approx(math.sqrt(2 / 144), rel=0.03)


def test_swi_of_a_grouped_convolution_uses_the_fan_in_of_one_group():
    conv = nn.Conv2d(32, 64, 3, groups=4)
    mask = torch.ones_like(conv.weight, dtype=torch.bool)
    init_weights(conv, mask, sparsity=0.0, generator=seeded())
    assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / 72), rel=0.03)


def test_sparse_kaiming_uses_the_links_of_each_neuron():
    layer = nn.Linear(4000, 3)
    mask = torch.zeros(3, 4000, dtype=torch.bool)
    mask[0, :1000] = mask[1] = True
    init_weights(layer, mask, kind="sparse_kaiming", generator=seeded())
    assert layer.weight[0, :1000].std().item() == pytest.approx(math.sqrt(2 / 1000), rel=0.1)
    assert layer.weight[1].std().item() == pytest.approx(math.sqrt(2 / 4000), rel=0.1)
    assert not layer.weight[2].any()


def test_swi_keeps_the_variance_of_activations_and_dense_kaiming_does_not():
    x = torch.randn(500, 1000, generator=seeded(3))
    layer, mask = (
        nn.Linear(1000, 400, bias=False),
        er_mask((400, 1000), links=8000, generator=seeded(1)),
    )
    init_weights(layer, mask, sparsity=0.98, generator=seeded())
    assert layer(x).var().item() == pytest.approx(2.0, rel=0.1)
    init_weights(layer, mask, sparsity=0.0, generator=seeded())
    assert layer(x).var().item() == pytest.approx(0.04, rel=0.1)


def test_the_models_own_weights_stay_or_are_scaled():
    layer = nn.Linear(40, 30)
    before = layer.weight.detach().clone()
    mask = er_mask((30, 40), links=300, generator=seeded())
    init_weights(layer, mask, kind="model", generator=seeded())
    assert torch.equal(layer.weight, before.masked_fill(~mask, 0))
    init_weights(layer, mask, kind="model_scaled", generator=seeded())
    torch.testing.assert_close(layer.weight.detach(), 2 * before.masked_fill(~mask, 0))


def test_the_weight_of_a_link_does_not_depend_on_the_other_links():
    one, other = nn.Linear(20, 10), nn.Linear(20, 10)
    mask = er_mask((10, 20), links=50, generator=seeded(1))
    init_weights(one, mask, sparsity=0.5, generator=seeded())
    init_weights(other, torch.ones_like(mask), sparsity=0.5, generator=seeded())
    assert torch.equal(one.weight[mask], other.weight[mask])


def test_dtype_bias_and_gradient_flag_are_kept():
    layer = nn.Linear(20, 10).to(torch.bfloat16)
    bias = layer.bias.detach().clone()
    init_weights(layer, torch.ones(10, 20, dtype=torch.bool), generator=seeded())
    assert layer.weight.dtype is torch.bfloat16
    assert layer.weight.requires_grad
    assert torch.equal(layer.bias, bias)


def test_an_empty_mask_gives_zero_weights():
    layer = nn.Linear(4, 3)
    for kind in ("swi", "sparse_kaiming", "model", "model_scaled"):
        init_weights(layer, torch.zeros(3, 4, dtype=torch.bool), kind=kind, generator=seeded())
        assert not layer.weight.any()


def test_errors():
    layer, mask = nn.Linear(4, 3), torch.ones(3, 4, dtype=torch.bool)
    with pytest.raises(ConfigError, match=r"unknown weight initialisation 'swy'.*'swi'"):
        init_weights(layer, mask, kind="swy", generator=seeded())
    with pytest.raises(ConfigError, match="ReLU has no weight"):
        init_weights(nn.ReLU(), mask, generator=seeded())
    with pytest.raises(ShapeError, match=r"\(4, 3\) but the weight of Linear \(3, 4\)"):
        init_weights(layer, mask.T, generator=seeded())
    with pytest.raises(ConfigError, match=r"sparsity is 1\.0"):
        init_weights(layer, mask, sparsity=1.0, generator=seeded())

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from topospike.errors import ConfigError, ShapeError, TopologyViolation
from topospike.topology import (
    check_masks,
    enforce,
    get_mask,
    masked_layers,
    register_mask,
    set_mask,
)


def half_mask(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.5


def small_net():
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    register_mask(net[0], half_mask(4, 2, 3, 3))
    return net


def test_registering_zeroes_absent_links_and_leaves_the_rest_bitwise():
    layer = nn.Linear(6, 5)
    before, mask = layer.weight.detach().clone(), half_mask(5, 6)
    register_mask(layer, mask)
    assert torch.equal(layer.weight[mask], before[mask])
    assert (layer.weight[~mask] == 0).all()
    # +0 exactly: hashes of weights must not depend on how the zeros came about.
    assert not torch.signbit(layer.weight[~mask]).any()
    assert layer.weight.requires_grad


def test_the_buffer_is_a_copy():
    layer, mask = nn.Linear(6, 5), half_mask(5, 6)
    register_mask(layer, mask)
    mask.fill_(True)
    assert not get_mask(layer).all()


def test_state_dict_round_trip_gives_the_same_output():
    x = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    net, other = small_net(), small_net()
    set_mask(net[0], half_mask(4, 2, 3, 3, seed=5))
    assert "0.weight_mask" in net.state_dict()
    other.load_state_dict(net.state_dict())
    assert torch.equal(get_mask(other[0]), get_mask(net[0]))
    assert torch.equal(other(x), net(x))
    check_masks(other)


def test_masks_survive_deepcopy_and_keep_their_dtype_in_half_precision():
    net = copy.deepcopy(small_net()).half()
    assert get_mask(net[0]).dtype is torch.bool
    assert net[0].weight.dtype is torch.float16
    check_masks(net)


def test_set_mask_works_in_place_and_zeroes_removed_links():
    layer = nn.Linear(6, 5)
    register_mask(layer, torch.ones(5, 6, dtype=torch.bool))
    buffer, before, mask = get_mask(layer), layer.weight.detach().clone(), half_mask(5, 6)
    set_mask(layer, mask)
    assert get_mask(layer) is buffer
    assert torch.equal(buffer, mask)
    assert torch.equal(layer.weight, before.masked_fill(~mask, 0))


def test_the_mask_follows_the_memory_layout_of_the_weight():
    conv = nn.Conv2d(2, 4, 3).to(memory_format=torch.channels_last)
    register_mask(conv, half_mask(4, 2, 3, 3))
    assert get_mask(conv).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(get_mask(conv), half_mask(4, 2, 3, 3))


def test_iteration_names_every_masked_parameter_in_module_order():
    net = nn.ModuleDict({"b": nn.Linear(2, 2), "a": nn.Linear(2, 2), "dense": nn.Linear(2, 2)})
    attention = nn.MultiheadAttention(4, 1)
    net["attention"] = attention
    register_mask(net["b"], half_mask(2, 2))
    register_mask(net["a"], half_mask(2, 2))
    register_mask(attention, half_mask(12, 4), name="in_proj_weight")
    assert [layer.name for layer in masked_layers(net)] == ["b", "a", "attention"]
    assert [layer.parameter for layer in masked_layers(net)] == [
        "b.weight",
        "a.weight",
        "attention.in_proj_weight",
    ]
    assert get_mask(net["dense"]) is None


def test_a_module_that_is_itself_the_model_has_the_bare_name():
    layer = nn.Linear(2, 2)
    register_mask(layer, half_mask(2, 2))
    assert [(found.name, found.parameter) for found in masked_layers(layer)] == [("", "weight")]


def test_a_foreign_float_mask_is_not_ours():
    layer = nn.Linear(2, 2)
    layer.register_buffer("weight_mask", torch.ones(2, 2))
    assert get_mask(layer) is None
    with pytest.raises(ConfigError, match="already has 'weight_mask'"):
        register_mask(layer, half_mask(2, 2))


@settings(deadline=None, derandomize=True, max_examples=25)
@given(
    rows=st.integers(1, 6),
    columns=st.integers(1, 6),
    seed=st.integers(0, 10**6),
    junk=st.sampled_from([1.0, -1e-30, float("inf"), float("nan"), -0.0]),
)
def test_enforce_zeroes_whatever_was_written_and_keeps_present_links(rows, columns, seed, junk):
    layer, mask = nn.Linear(columns, rows), half_mask(rows, columns, seed=seed)
    register_mask(layer, mask)
    kept = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight.masked_fill_(~mask, junk)
    if not mask.all() and junk != 0:
        with pytest.raises(TopologyViolation, match=f"{int((~mask).sum())} weights? off the mask"):
            check_masks(layer)
    enforce(layer)
    check_masks(layer)
    assert torch.equal(layer.weight, kept)
    assert not torch.signbit(layer.weight[~mask]).any()


def test_a_violation_names_layer_count_first_index_and_value():
    net = nn.Sequential(nn.Linear(3, 3))
    register_mask(net[0], torch.eye(3, dtype=torch.bool))
    with torch.no_grad():
        net[0].weight[0, 0] = 7.0
        net[0].weight[1, 2] = 2.5
        net[0].weight[2, 0] = -2.5
    message = r"0\.weight: 2 weights off the mask .* index \(1, 2\) with value 2\.5.*enforce"
    with pytest.raises(TopologyViolation, match=message):
        check_masks(net)


def test_opposite_errors_do_not_cancel():
    layer = nn.Linear(2, 1)
    register_mask(layer, torch.zeros(1, 2, dtype=torch.bool))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -1.0]]))
    with pytest.raises(TopologyViolation, match="2 weights"):
        check_masks(layer)


def test_wrong_masks_are_refused():
    layer = nn.Linear(3, 2, bias=False)
    with pytest.raises(ShapeError, match=r"Linear\.weight has shape \(3, 2\); \(2, 3\)"):
        register_mask(layer, half_mask(3, 2))
    with pytest.raises(ConfigError, match=r"torch\.float32; torch\.bool is required"):
        register_mask(layer, torch.ones(2, 3))
    with pytest.raises(ConfigError, match="no parameter 'bias' of its own; it has 'weight'"):
        register_mask(layer, half_mask(2), name="bias")
    with pytest.raises(ConfigError, match="has no mask to change; call register_mask"):
        set_mask(layer, half_mask(2, 3))
    register_mask(layer, half_mask(2, 3))
    with pytest.raises(ConfigError, match="already has 'weight_mask'; change its links with set"):
        register_mask(layer, half_mask(2, 3))
    with pytest.raises(ShapeError, match=r"\(3, 2\)"):
        set_mask(layer, half_mask(3, 2))

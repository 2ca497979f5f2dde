import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from topospike.errors import CheckpointError
from topospike.train.packing import own_memory, pack, unpack

plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
keys = st.text() | st.integers()
trees = st.recursive(
    plain,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(keys, inner),
    max_leaves=20,
)


@settings(deadline=None, derandomize=True, max_examples=25)
@given(tree=trees)
def test_plain_trees_survive_json_exactly(tree):
    packed, tensors = pack(tree)
    assert tensors == {}
    back = unpack(json.loads(json.dumps(packed)), {})
    assert back == tree
    assert type(back) is type(tree)


def test_reserved_keys_of_the_user_are_not_taken_for_ours():
    tree = {"__tensor__": "x", "inner": {"__tuple__": [1]}}
    assert unpack(json.loads(json.dumps(pack(tree)[0])), {}) == tree


def test_tensors_are_named_by_their_place_and_never_collide():
    tree = {"a": {"b": torch.tensor(1)}, "a.b": torch.tensor(2), "c": [torch.tensor(3)]}
    packed, tensors = pack(tree)
    assert {"a.b", "c.0"} <= set(tensors)
    back = unpack(packed, tensors)
    assert (back["a"]["b"], back["a.b"], back["c"][0]) == (1, 2, 3)


def test_an_optimizer_state_keeps_its_integer_keys():
    model = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    packed, tensors = pack(optimizer.state_dict())
    back = unpack(json.loads(json.dumps(packed)), tensors)
    fresh = torch.optim.Adam(model.parameters())
    fresh.load_state_dict(back)
    assert fresh.state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]
    for key, slots in optimizer.state_dict()["state"].items():
        for name, slot in slots.items():
            assert torch.equal(fresh.state_dict()["state"][key][name], slot)


def test_what_cannot_be_kept_is_named():
    with pytest.raises(CheckpointError, match=r"'sparsifier\.rules\.1': it is a set"):
        pack({"sparsifier": {"rules": [1, {2}]}})


def test_shared_memory_is_copied_and_layouts_made_contiguous():
    weight = torch.arange(6.0).view(2, 3)
    owned = own_memory({"a": weight, "tied": weight, "view": weight[1], "turned": weight.T})
    pointers = {tensor.untyped_storage().data_ptr() for tensor in owned.values()}
    assert len(pointers) == 4
    assert all(tensor.is_contiguous() for tensor in owned.values())
    assert torch.equal(owned["tied"], weight)
    assert torch.equal(owned["turned"], weight.T)

"""What a sparsifier writes down, and how a run goes on from it."""

import copy
import io

import pytest
import torch

from topospike.errors import CheckpointError, TopologyViolation
from topospike.topology import get_mask


def snapshot(model, optimizer, sparsifier):
    stream = io.BytesIO()
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "sparsifier": sparsifier.state_dict(),
    }
    torch.save(state, stream)
    return stream.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["cht", "chts", "chtss", "rigl", "mest", "granet"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    started, train_epoch, rule, optimizer
):
    def advance(model, optimizer, sparsifier, epochs):
        records = []
        for epoch in epochs:
            train_epoch(model, optimizer, epoch=epoch)
            records.append(sparsifier.update_topology(epoch))
        return records

    whole = started(rule, optimizer, removal="ri_soft" if rule == "chts" else None)
    advance(*whole, range(2))
    saved = snapshot(*whole)
    expected = advance(*whole, range(2, 7))

    model, fresh_optimizer, sparsifier = started(
        rule, optimizer, removal="ri_soft" if rule == "chts" else None
    )
    state = torch.load(io.BytesIO(saved), weights_only=True)
    model.load_state_dict(state["model"])
    fresh_optimizer.load_state_dict(state["optimizer"])
    sparsifier.load_state_dict(state["sparsifier"])
    resumed = advance(model, fresh_optimizer, sparsifier, range(2, 7))

    assert resumed == expected
    for name, tensor in whole[0].state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    for key, slots in whole[1].state_dict()["state"].items():
        for slot, value in slots.items():
            other = fresh_optimizer.state_dict()["state"][key][slot]
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(other)), slot
    assert sparsifier.freeze() == whole[2].freeze()


def test_loading_does_not_change_the_given_state(started, train_epoch):
    model, optimizer, sparsifier = started()
    train_epoch(model, optimizer)
    sparsifier.update_topology(0)
    state = sparsifier.state_dict()
    kept = copy.deepcopy(state)
    sparsifier.load_state_dict(state)
    assert state.keys() == kept.keys()
    assert state["plan"] == kept["plan"]


def test_a_state_of_another_plan_is_refused_and_the_difference_named(started):
    _, _, sparsifier = started()
    _, _, other = started(zeta=0.2, sparsity={"linear": 0.6, "conv": 0.5})
    with pytest.raises(
        CheckpointError,
        match=r"sparse_layers: 0, 3; conv: 0.5 .*; zeta: 0.2 in",
    ):
        sparsifier.load_state_dict(other.state_dict())


def test_a_state_without_the_model_s_masks_is_refused(started, train_epoch):
    model, optimizer, sparsifier = started("chtss", initial_sparsity=0.2)
    for epoch in range(4):
        train_epoch(model, optimizer, epoch=epoch)
        sparsifier.update_topology(epoch)
    _, _, fresh = started("chtss", initial_sparsity=0.2)
    with pytest.raises(CheckpointError, match="Load the model's state_dict"):
        fresh.load_state_dict(sparsifier.state_dict())


def test_weights_off_the_mask_on_load_are_an_error_and_not_repaired(started):
    model, _, sparsifier = started()
    with torch.no_grad():
        model[7].weight[~get_mask(model[7])] = 1.0
    with pytest.raises(TopologyViolation, match=r"7.weight: \d+ weights off the mask"):
        sparsifier.load_state_dict(sparsifier.state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [({"format_version": 9}, "format_version 9"), ({"ever_active": None}, "lacks ever_active")],
)
def test_damaged_states_are_refused(started, change, message):
    _, _, sparsifier = started()
    state = {**sparsifier.state_dict(), **change}
    state = {key: value for key, value in state.items() if value is not None}
    with pytest.raises(CheckpointError, match=message):
        sparsifier.load_state_dict(state)

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim import SGD

from topospike.errors import CheckpointError
from topospike.train import checkpoint
from topospike.train.checkpoint import (
    CheckpointWarning,
    DamagedCheckpointError,
    LoadedCheckpoint,
    clear_checkpoints,
    list_checkpoints,
    load_checkpoint,
    load_latest,
    save_checkpoint,
)
from topospike.train.distributed import ALONE
from topospike.train.resume import FitResult, Trainee, restore, snapshot


def payload(value=1.0):
    weight = torch.full((40, 3), value)
    return {
        "model": {"weight": weight, "tied": weight, "weight_mask": weight > 0},
        "optimizer": {"state": {"0": {"momentum_buffer": weight * 2, "step": torch.tensor(3)}}},
        "generator": torch.get_rng_state(),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "nothing": torch.zeros(0, 4),
        "history": {"epochs": 3, "best": None, "loss": 0.1 + 0.2, "note": "gêmeo"},
    }


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def test_round_trip_is_exact_in_value_type_and_structure(tmp_path):
    path = save_checkpoint(tmp_path, 3, payload())
    back = load_checkpoint(path)
    assert back["history"] == payload()["history"]
    assert torch.equal(back["generator"], torch.get_rng_state())
    expected = payload()
    assert back["optimizer"]["state"]["0"]["step"] == 3
    for group, key in (("model", "weight"), ("model", "tied"), ("model", "weight_mask")):
        assert torch.equal(back[group][key], expected[group][key])
    for key in ("half", "nothing"):
        assert back[key].dtype == expected[key].dtype
        assert back[key].shape == expected[key].shape


@pytest.mark.parametrize("length", range(8))
def test_tensors_come_back_in_memory_on_which_products_round_as_before(tmp_path, length):
    # Where a tensor lies in the file depends on the header, and with it on every number's digits.
    torch.manual_seed(0)
    total, pre, post = torch.randn(8, 8), torch.rand(32, 8), torch.rand(32, 8)
    stored = {"note": "x" * length, "before": torch.ones(length), "total": total}
    back = load_checkpoint(save_checkpoint(tmp_path, 1, stored))["total"]
    assert back.data_ptr() % 64 == total.data_ptr() % 64 == 0
    assert torch.equal(back.addmm_(post.T, pre), total.addmm_(post.T, pre))


def test_only_the_newest_two_stay_and_nothing_else_lies_about(tmp_path):
    for number in (1, 2, 3, 12):
        save_checkpoint(tmp_path, number, payload())
    assert names(tmp_path) == ["epoch-00003.safetensors", "epoch-00012.safetensors"]
    assert [number for number, _ in list_checkpoints(tmp_path)] == [3, 12]


def test_saving_again_under_the_same_number_replaces(tmp_path):
    save_checkpoint(tmp_path, 1, payload(1.0))
    path = save_checkpoint(tmp_path, 1, payload(2.0))
    assert load_checkpoint(path)["model"]["weight"][0, 0] == 2
    assert names(tmp_path) == ["epoch-00001.safetensors"]


def test_numbers_are_ordered_as_numbers(tmp_path):
    for number in (99_999, 100_000):
        save_checkpoint(tmp_path, number, payload())
    assert [number for number, _ in list_checkpoints(tmp_path)] == [99_999, 100_000]


def test_a_failed_save_leaves_no_trace_and_keeps_the_previous_one(tmp_path):
    save_checkpoint(tmp_path, 1, payload())
    unwritable = {"a": torch.ones(3), "b": torch.empty(2, device="meta")}
    with pytest.raises(NotImplementedError):
        save_checkpoint(tmp_path, 2, unwritable)
    with pytest.raises(CheckpointError, match=r"'rule\.1': it is a object"):
        save_checkpoint(tmp_path, 2, {"rule": [1, object()]})
    with pytest.raises(CheckpointError, match="'slots': it is a dict"):
        save_checkpoint(tmp_path, 2, {"slots": {3: "three"}})
    assert names(tmp_path) == ["epoch-00001.safetensors"]
    loaded = load_latest(tmp_path)
    assert loaded is not None
    assert loaded.number == 1


def test_leftovers_of_a_killed_process_are_ignored_and_removed(tmp_path):
    save_checkpoint(tmp_path, 1, payload())
    (tmp_path / ".epoch-00002.safetensors.x7k").write_bytes(b"half")
    loaded = load_latest(tmp_path)
    assert loaded is not None
    assert (loaded.number, loaded.complaints) == (1, ())
    assert names(tmp_path) == ["epoch-00001.safetensors"]


def test_no_checkpoint_is_none(tmp_path):
    assert load_latest(tmp_path) is None
    assert load_latest(tmp_path / "missing") is None


def test_clear(tmp_path):
    save_checkpoint(tmp_path, 1, payload())
    clear_checkpoints(tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize("damage", ["truncated", "empty", "missing", "another"])
def test_every_damage_to_a_file_is_found_and_named(tmp_path, damage):
    path = save_checkpoint(tmp_path, 4, payload())
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-7])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "missing":
        path.unlink()
    else:
        save_file({"w": torch.ones(2)}, path)
    with pytest.raises(DamagedCheckpointError, match=r"epoch-00004\.safetensors is damaged"):
        load_checkpoint(path)


@settings(deadline=None, derandomize=True, max_examples=25)
@given(data=st.data())
def test_no_flipped_bit_goes_unnoticed(tmp_path_factory, data):
    path = save_checkpoint(tmp_path_factory.mktemp("flip"), 1, {"w": torch.arange(20.0), "n": 3})
    flip(path, data.draw(st.integers(0, path.stat().st_size - 1)))
    with pytest.raises(DamagedCheckpointError, match="is damaged"):
        load_checkpoint(path)


def test_a_damaged_newest_is_set_aside_and_the_older_one_used_with_a_warning(tmp_path):
    save_checkpoint(tmp_path, 1, payload(1.0))
    newest = save_checkpoint(tmp_path, 2, payload(2.0))
    flip(newest, -1)
    with pytest.warns(CheckpointWarning, match=r"epoch-00002.* is damaged.*older.*epoch-00001"):
        loaded = load_latest(tmp_path)
    assert loaded is not None
    assert loaded.number == 1
    assert loaded.payload["model"]["weight"][0, 0] == 1
    (complaint,) = loaded.complaints
    assert "it has sha256" in complaint
    assert names(tmp_path) == ["damaged-epoch-00002.safetensors", "epoch-00001.safetensors"]


def test_all_damaged_is_an_error_and_nothing_is_moved(tmp_path):
    for number in (1, 2):
        path = save_checkpoint(tmp_path, number, payload())
        path.write_text("{}")
    with pytest.raises(CheckpointError, match=r"no intact checkpoint.*00002.*00001.*resume=False"):
        load_latest(tmp_path)
    assert names(tmp_path) == ["epoch-00001.safetensors", "epoch-00002.safetensors"]


def test_another_format_version_is_not_called_damage(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", "topospike checkpoint 99")
        save_checkpoint(tmp_path, 1, payload())
    with pytest.raises(CheckpointError, match=r"format 'topospike checkpoint 99'; this version"):
        load_latest(tmp_path)
    assert names(tmp_path) == ["epoch-00001.safetensors"]


def test_plain_values_survive_exactly_and_tensors_keep_their_names(tmp_path):
    values = {"x": 0.1 + 0.2, "n": 2**70, "inf": float("inf"), "none": None, "flag": True}
    tensors = {"a": {"b": torch.tensor(1)}, "a.b": torch.tensor(2), "c": [torch.tensor(3)]}
    back = load_checkpoint(save_checkpoint(tmp_path, 1, {"values": values, **tensors}))
    assert back["values"] == values
    assert (back["a"]["b"], back["a.b"], back["c"][0]) == (1, 2, 3)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.SGD])
def test_an_optimizer_goes_on_from_its_file(tmp_path, kind):
    def trainee():
        model = nn.Linear(2, 2)
        nn.init.ones_(model.weight)
        optimizer = kind(model.parameters(), lr=0.1, **({"momentum": 0.9} if kind is SGD else {}))
        return Trainee(model, optimizer, None, torch.device("cpu"), model, None, ALONE)

    def step(trained):
        trained.optimizer.zero_grad()
        trained.model(torch.ones(1, 2)).square().sum().backward()
        trained.optimizer.step()

    one, other = trainee(), trainee()
    step(one)
    path = save_checkpoint(tmp_path, 1, snapshot(one, FitResult(), identity={}, metrics_offset=0))
    restore(other, LoadedCheckpoint(path, 1, load_checkpoint(path)), identity={})
    step(one)
    step(other)
    for mine, theirs in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_nothing_on_disk_is_a_pickle(tmp_path):
    path = save_checkpoint(tmp_path, 1, payload())
    assert not path.read_bytes().startswith((b"\x80", b"PK"))
    assert set(load_file(path)) >= {"model.weight", "optimizer.state.0.momentum_buffer"}

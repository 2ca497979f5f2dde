import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from topospike.errors import CheckpointError
from topospike.train.checkpoint import (
    CheckpointWarning,
    DamagedCheckpointError,
    clear_checkpoints,
    list_checkpoints,
    load_checkpoint,
    load_latest,
    save_checkpoint,
)

FILES = ["tensors.safetensors", "state.json", "manifest.json"]


def payload(value=1.0):
    weight = torch.full((40, 3), value)
    return {
        "model": {"weight": weight, "tied": weight, "weight_mask": weight > 0},
        "optimizer": {"state": {0: {"momentum_buffer": weight * 2, "step": torch.tensor(3)}}},
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
    assert back["optimizer"]["state"][0]["step"] == 3
    for group, key in (("model", "weight"), ("model", "tied"), ("model", "weight_mask")):
        assert torch.equal(back[group][key], expected[group][key])
    for key in ("half", "nothing"):
        assert back[key].dtype == expected[key].dtype
        assert back[key].shape == expected[key].shape


def test_only_the_newest_two_stay_and_nothing_else_lies_about(tmp_path):
    for number in (1, 2, 3, 12):
        save_checkpoint(tmp_path, number, payload())
    assert names(tmp_path) == ["epoch-00003", "epoch-00012"]
    assert [number for number, _ in list_checkpoints(tmp_path)] == [3, 12]
    assert names(tmp_path / "epoch-00012") == sorted(FILES)


def test_saving_again_under_the_same_number_replaces(tmp_path):
    save_checkpoint(tmp_path, 1, payload(1.0))
    path = save_checkpoint(tmp_path, 1, payload(2.0))
    assert load_checkpoint(path)["model"]["weight"][0, 0] == 2
    assert names(tmp_path) == ["epoch-00001"]


def test_numbers_are_ordered_as_numbers(tmp_path):
    for number in (99_999, 100_000):
        save_checkpoint(tmp_path, number, payload())
    assert [number for number, _ in list_checkpoints(tmp_path)] == [99_999, 100_000]


def test_a_failed_save_leaves_no_trace_and_keeps_the_previous_one(tmp_path):
    save_checkpoint(tmp_path, 1, payload())
    unwritable = {"a": torch.ones(3), "b": torch.empty(2, device="meta")}
    with pytest.raises(NotImplementedError):
        save_checkpoint(tmp_path, 2, unwritable)
    with pytest.raises(CheckpointError, match="'rule': it is a object"):
        save_checkpoint(tmp_path, 2, {"rule": object()})
    assert names(tmp_path) == ["epoch-00001"]
    loaded = load_latest(tmp_path)
    assert loaded is not None
    assert loaded.number == 1


def test_leftovers_of_a_killed_process_are_ignored_and_removed(tmp_path):
    save_checkpoint(tmp_path, 1, payload())
    for leftover in (".epoch-00002.partial", ".epoch-00000.discarded"):
        (tmp_path / leftover).mkdir()
        (tmp_path / leftover / "tensors.safetensors").write_bytes(b"half")
    loaded = load_latest(tmp_path)
    assert loaded is not None
    assert (loaded.number, loaded.complaints) == (1, ())
    assert names(tmp_path) == ["epoch-00001"]


def test_no_checkpoint_is_none(tmp_path):
    assert load_latest(tmp_path) is None
    assert load_latest(tmp_path / "missing") is None


def test_clear(tmp_path):
    save_checkpoint(tmp_path, 1, payload())
    clear_checkpoints(tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty", "missing"])
def test_every_damage_to_every_file_is_found_and_named(tmp_path, name, damage):
    path = save_checkpoint(tmp_path, 4, payload())
    file = path / name
    if damage == "flipped":
        position = file.read_text().index('sha256": "') + 12 if name == "manifest.json" else -30
        flip(file, position)
    elif damage == "truncated":
        file.write_bytes(file.read_bytes()[:-7])
    elif damage == "empty":
        file.write_bytes(b"")
    else:
        file.unlink()
    with pytest.raises(DamagedCheckpointError, match=r"epoch-00004 is damaged") as caught:
        load_checkpoint(path)
    if (name, damage) != ("manifest.json", "flipped"):
        assert name in str(caught.value)


@settings(deadline=None, derandomize=True, max_examples=25)
@given(data=st.data())
def test_no_flipped_bit_of_the_tensors_goes_unnoticed(tmp_path_factory, data):
    path = save_checkpoint(tmp_path_factory.mktemp("flip"), 1, {"w": torch.arange(20.0)})
    file = path / "tensors.safetensors"
    flip(file, data.draw(st.integers(0, file.stat().st_size - 1)))
    with pytest.raises(DamagedCheckpointError, match="sha256"):
        load_checkpoint(path)


def test_a_damaged_newest_is_set_aside_and_the_older_one_used_with_a_warning(tmp_path):
    save_checkpoint(tmp_path, 1, payload(1.0))
    newest = save_checkpoint(tmp_path, 2, payload(2.0))
    flip(newest / "tensors.safetensors", -1)
    with pytest.warns(CheckpointWarning, match=r"epoch-00002 is damaged.*older.*epoch-00001"):
        loaded = load_latest(tmp_path)
    assert loaded is not None
    assert loaded.number == 1
    assert loaded.payload["model"]["weight"][0, 0] == 1
    (complaint,) = loaded.complaints
    assert "tensors.safetensors has sha256" in complaint
    assert names(tmp_path) == ["damaged-epoch-00002", "epoch-00001"]


def test_all_damaged_is_an_error_and_nothing_is_moved(tmp_path):
    for number in (1, 2):
        path = save_checkpoint(tmp_path, number, payload())
        (path / "state.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"no intact checkpoint.*00002.*00001.*resume=False"):
        load_latest(tmp_path)
    assert names(tmp_path) == ["epoch-00001", "epoch-00002"]


def test_another_format_version_is_not_called_damage(tmp_path):
    path = save_checkpoint(tmp_path, 1, payload())
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, "version": 99}))
    with pytest.raises(CheckpointError, match=r"99\).*this version reads"):
        load_latest(tmp_path)
    assert names(tmp_path) == ["epoch-00001"]


def test_nothing_on_disk_is_a_pickle(tmp_path):
    path = save_checkpoint(tmp_path, 1, payload())
    for file in path.iterdir():
        start = file.read_bytes()[:4]
        assert not start.startswith((b"\x80", b"PK"))
        assert start[:1] == b"{" or file.suffix == ".safetensors"

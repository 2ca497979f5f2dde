"""The ledger of stages: what is done, what must run again."""

import copy

import pytest

from topospike.errors import CheckpointError
from topospike.pipeline.folder.ledger import FILE, Ledger, differences
from topospike.pipeline.networks import digest
from topospike.recipe.files import resolve, to_plain

SETTINGS = {"train": {"epochs": 3, "milestones": (1, 2)}, "seed": 0}


@pytest.fixture
def finished(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"weights")
    ledger = Ledger(tmp_path)
    ledger.begin("train", SETTINGS)
    ledger.end("train", outputs=["model.bin"], seconds=1.5)
    return tmp_path


def test_a_finished_stage_is_complete_for_its_settings_also_in_the_next_process(finished):
    ledger = Ledger(finished)
    assert ledger.is_complete("train", SETTINGS)
    assert ledger.seconds == {"train": 1.5}


def test_other_settings_make_a_stage_incomplete(finished):
    assert not Ledger(finished).is_complete("train", {**SETTINGS, "seed": 1})


@pytest.mark.parametrize("content", [None, b"", b"weight"])
def test_a_missing_or_truncated_file_makes_a_stage_incomplete(finished, content):
    path = finished / "model.bin"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert not Ledger(finished).is_complete("train", SETTINGS)


def test_a_stage_that_only_began_is_incomplete_and_remembers_its_settings(tmp_path):
    Ledger(tmp_path).begin("train", SETTINGS)
    ledger = Ledger(tmp_path)
    assert not ledger.is_complete("train", SETTINGS)
    assert ledger.settings("train", like=SETTINGS) == {
        "train": {"epochs": 3, "milestones": [1, 2]},
        "seed": 0,
    }
    assert ledger.seconds == {}


def test_a_stage_begun_again_is_incomplete(finished):
    Ledger(finished).begin("train", SETTINGS)
    assert not Ledger(finished).is_complete("train", SETTINGS)


def test_a_damaged_ledger_is_an_error_with_the_remedy(tmp_path):
    (tmp_path / FILE).write_text('{"train": ')
    with pytest.raises(CheckpointError, match=r"stages\.json is damaged.*Delete it"):
        Ledger(tmp_path)


def test_differences_are_dotted_and_show_both_values():
    old = {"train": {"epochs": 3, "momentum": 0.9}, "seed": 0}
    new = {"train": {"epochs": 3, "momentum": 0.8}, "seed": 0, "extra": 1}
    assert list(differences(old, new)) == [
        "train.momentum (0.9, now 0.8)",
        "extra (None, now 1)",
    ]


def test_a_setting_that_did_not_exist_yet_counts_as_its_default(finished):
    defaults = {"train": {"epochs": 200, "optimizer": "sgd"}}
    ledger = Ledger(finished, defaults=defaults)
    grown = {"train": {**SETTINGS["train"], "optimizer": "sgd"}, "seed": 0}
    assert ledger.is_complete("train", grown)
    assert ledger.settings("train", like=grown)["train"]["optimizer"] == "sgd"
    grown["train"]["optimizer"] = "adamw"
    assert not ledger.is_complete("train", grown)
    assert not Ledger(finished).is_complete("train", grown)


def test_later_stages_do_not_notice_a_setting_at_its_default():
    plain = to_plain(resolve("demo", {"seed": 1}))
    settings = {name: plain[name] for name in ("seed", "data", "train", "sparsity")}
    older = copy.deepcopy(settings)
    del older["sparsity"]["new_links"], older["train"]["nesterov"]
    assert digest(older) == digest(settings)
    settings["sparsity"]["new_links"] = "swi"
    assert digest(older) != digest(settings)

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from topospike.errors import CheckpointError
from topospike.recipe import TrainSettings
from topospike.train import CheckpointWarning, fit
from topospike.train.checkpoint import list_checkpoints
from topospike.train.optim import TrainingMethod
from topospike.train.resume import FitResult, match_memory_format


def slots(controller, model):
    state = controller.optimizer.state
    return {
        name: state[parameter]["momentum_buffer"] for name, parameter in model.named_parameters()
    }


def assert_same_run(one, other, read_metrics):
    """Weights, buffers, masks, slots, controller state, result and metrics are identical."""
    (model, controller, result), (model_2, controller_2, result_2) = one, other
    for mine, theirs in (
        (model.state_dict(), model_2.state_dict()),
        (slots(controller, model), slots(controller_2, model_2)),
        (controller.state_dict(), controller_2.state_dict()),
    ):
        assert mine.keys() == theirs.keys()
        for key, value in mine.items():
            same = (
                torch.equal(value, theirs[key]) if torch.is_tensor(value) else value == theirs[key]
            )
            assert same, key
    assert read_metrics(result.folder) == read_metrics(result_2.folder)
    assert replace(result, seconds=0, folder=None) == replace(result_2, seconds=0, folder=None)


def interrupted_after(toy, epochs):
    """Data whose training stops with Ctrl-C in the middle of the given epoch."""

    class Interrupted(toy.Batches):
        def __iter__(self):
            for step, batch in enumerate(super().__iter__()):
                if self.epoch == epochs and step == 3:
                    raise KeyboardInterrupt
                yield batch

    return toy.digits(kind=Interrupted)


@pytest.mark.parametrize("epochs", [1, 2, 4])
def test_resume_after_an_interrupt_is_bit_identical(
    toy, uninterrupted, read_metrics, tmp_path, epochs
):
    with pytest.raises(KeyboardInterrupt) as caught:
        toy.run(tmp_path, data=interrupted_after(toy, epochs))
    assert f"checkpoint after {epochs} epochs is intact" in caught.value.__notes__[0]
    assert "Run the same command again" in caught.value.__notes__[0]
    torch.manual_seed(99)  # whatever happened in between must not matter
    assert_same_run(toy.run(tmp_path), uninterrupted, read_metrics)


def test_interrupt_before_the_first_checkpoint_starts_over(
    toy, uninterrupted, read_metrics, tmp_path
):
    with pytest.raises(KeyboardInterrupt) as caught:
        toy.run(tmp_path, data=interrupted_after(toy, 0))
    assert "nothing was saved" in caught.value.__notes__[0]
    assert_same_run(toy.run(tmp_path), uninterrupted, read_metrics)


def test_epochs_trained_after_the_checkpoint_appear_once(toy, tmp_path, read_metrics):
    settings = replace(toy.SETTINGS, checkpoint_every=2)
    with pytest.raises(KeyboardInterrupt):
        toy.run(tmp_path, settings=settings, data=interrupted_after(toy, 3))
    assert [x["epoch"] for x in read_metrics(tmp_path) if x["kind"] == "epoch"] == [0, 1, 2]
    toy.run(tmp_path, settings=settings)
    assert [x["epoch"] for x in read_metrics(tmp_path) if x["kind"] == "epoch"] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("options", [{"channels_last": True}, {"bf16": True, "nesterov": True}])
def test_resume_with_options_is_bit_identical(toy, read_metrics, tmp_path, options):
    settings = replace(toy.SETTINGS, epochs=3, **options)
    whole = toy.run(tmp_path / "whole", settings=settings)
    with pytest.raises(KeyboardInterrupt):
        toy.run(tmp_path / "cut", settings=settings, data=interrupted_after(toy, 2))
    assert_same_run(toy.run(tmp_path / "cut", settings=settings), whole, read_metrics)


def child(folder, place):
    folder.mkdir()
    script = Path(__file__).with_name("toy_run.py")
    threads = str(torch.get_num_threads())
    return subprocess.Popen([sys.executable, script, folder, place, threads])


@pytest.mark.slow
@pytest.mark.distributed
def test_a_process_killed_in_mid_epoch_resumes_bit_identical(
    toy, uninterrupted, read_metrics, tmp_path
):
    folder = tmp_path / "run"
    process = child(folder, "mid-epoch")
    deadline = time.monotonic() + 120
    while not (folder / "marker").exists():
        assert process.poll() is None, "the child ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert [number for number, _ in list_checkpoints(folder / "checkpoint")] == [2, 3]
    assert_same_run(toy.run(folder), uninterrupted, read_metrics)


@pytest.mark.slow
@pytest.mark.distributed
def test_a_process_killed_while_saving_resumes_bit_identical(
    toy, uninterrupted, read_metrics, tmp_path
):
    folder = tmp_path / "run"
    assert child(folder, "mid-save").wait(timeout=120) == -signal.SIGKILL
    (leftover,) = [path.name for path in (folder / "checkpoint").glob(".*")]
    assert leftover.startswith(f".epoch-{toy.ENOUGH + 1:05d}.safetensors")
    assert_same_run(toy.run(folder), uninterrupted, read_metrics)
    assert not list((folder / "checkpoint").glob(".*"))


def test_a_complete_run_is_loaded_and_not_trained_again(toy, uninterrupted, read_metrics, tmp_path):
    toy.run(tmp_path)

    class Untouched(toy.Batches):
        def __iter__(self):
            raise AssertionError("trained again")

    again = toy.run(tmp_path, data=toy.digits(kind=Untouched))
    assert_same_run(again, uninterrupted, read_metrics)
    assert again[2].seconds > 0


def test_resume_false_starts_over(toy, uninterrupted, read_metrics, tmp_path):
    toy.run(tmp_path, settings=replace(toy.SETTINGS, epochs=2, learning_rate=0.2))
    assert_same_run(toy.run(tmp_path, resume=False), uninterrupted, read_metrics)


@pytest.fixture(scope="module")
def half_way(toy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("half")
    with pytest.raises(KeyboardInterrupt):
        toy.run(folder, data=interrupted_after(toy, 2))
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.1}, r"learning_rate was 0\.05 and is now 0\.1\."),
        ({"epochs": 9}, r"epochs was 5 and is now 9\."),
        (
            {"schedule": "step", "momentum": 0.5},
            r"momentum was 0\.9 and is now 0\.5; schedule was 'cosine' and is now 'step'\.",
        ),
    ],
)
def test_other_settings_are_refused_by_name(toy, half_way, change, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        toy.run(half_way, settings=replace(toy.SETTINGS, **change))
    assert "resume=False" in str(caught.value)


def test_another_seed_data_or_controller_is_refused(toy, half_way):
    with pytest.raises(CheckpointError, match="seed was 3 and is now 4"):
        toy.run(half_way, seed=4)
    with pytest.raises(CheckpointError, match="batches per epoch was 5 and is now 3"):
        toy.run(half_way, data=toy.digits(train=90))
    with pytest.raises(
        CheckpointError, match="topology controller was 'SetController' and is now 'none'"
    ):
        toy.run(half_way, sparse=False)


def test_another_model_is_refused(toy, half_way):
    model = toy.net()
    controller = toy.SetController(model)
    model.classifier = nn.Linear(32, 10, bias=False)
    with pytest.raises(CheckpointError, match=r"another model.*classifier\.bias"):
        fit(
            model, toy.digits(), toy.SETTINGS, folder=half_way, seed=toy.SEED, sparsifier=controller
        )


def test_a_model_of_equal_weights_and_other_layers_is_refused(toy, half_way):
    model = toy.net()
    controller = toy.SetController(model)
    model.drop = nn.AlphaDropout(0.2)
    with pytest.raises(CheckpointError, match=r"module 'drop' was 'Dropout' and is now 'Alpha"):
        fit(
            model, toy.digits(), toy.SETTINGS, folder=half_way, seed=toy.SEED, sparsifier=controller
        )


def test_the_checkpoint_interval_may_change(toy, uninterrupted, read_metrics, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        toy.run(tmp_path, data=interrupted_after(toy, 2))
    resumed = toy.run(tmp_path, settings=replace(toy.SETTINGS, checkpoint_every=5))
    assert_same_run(resumed, uninterrupted, read_metrics)


def test_a_damaged_newest_checkpoint_costs_one_epoch_and_leaves_a_record(
    toy, uninterrupted, read_metrics, tmp_path
):
    with pytest.raises(KeyboardInterrupt):
        toy.run(tmp_path, data=interrupted_after(toy, 3))
    newest = list_checkpoints(tmp_path / "checkpoint")[-1][1]
    newest.write_bytes(newest.read_bytes()[:-100])
    with pytest.warns(CheckpointWarning, match=r"epoch-00003\.safetensors is damaged"):
        model, _, result = toy.run(tmp_path)
    reference = uninterrupted[0].state_dict()
    assert all(torch.equal(value, reference[key]) for key, value in model.state_dict().items())
    lines = read_metrics(tmp_path)
    (warning,) = [line for line in lines if line["kind"] == "warning"]
    assert warning["resumed_from"] == "epoch-00002.safetensors"
    assert "cannot be read" in warning["message"]
    assert [line for line in lines if line["kind"] != "warning"] == read_metrics(
        uninterrupted[2].folder
    )
    assert result.epochs == 5


def test_another_number_of_threads_is_said_to_change_the_last_bits(toy, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        toy.run(tmp_path, data=interrupted_after(toy, 1))
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        with pytest.warns(
            CheckpointWarning, match=rf"threads {threads} -> {threads + 1}\): the run"
        ):
            toy.run(tmp_path)
    finally:
        torch.set_num_threads(threads)


def test_missing_metrics_are_noticed(toy, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        toy.run(tmp_path, data=interrupted_after(toy, 1))
    (tmp_path / "metrics.jsonl").unlink()
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl has 0 bytes"):
        toy.run(tmp_path)


def test_dense_training_resumes_too(toy, tmp_path):
    settings = replace(toy.SETTINGS, epochs=3)
    whole = toy.run(tmp_path / "whole", settings=settings, sparse=False)[0].state_dict()
    with pytest.raises(KeyboardInterrupt):
        toy.run(tmp_path / "cut", settings=settings, data=interrupted_after(toy, 1), sparse=False)
    resumed = toy.run(tmp_path / "cut", settings=settings, sparse=False)[0].state_dict()
    assert all(torch.equal(value, whole[key]) for key, value in resumed.items())


def test_history_keeps_the_first_of_equal_best_epochs():
    history = FitResult()
    for accuracy in (0.5, 0.7, 0.7, 0.6):
        history = history.after_epoch(train_loss=1.0, validation_accuracy=accuracy, seconds=2.0)
    assert (history.epochs, history.best_epoch, history.best_validation_accuracy) == (4, 1, 0.7)
    assert (history.validation_accuracy, history.seconds) == (0.6, 8.0)


def test_slots_take_their_parameters_layout():
    conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(conv.parameters(), lr=0.1, momentum=0.9)
    slot = torch.randn(4, 3, 3, 3)
    optimizer.state[conv.weight]["momentum_buffer"] = slot
    match_memory_format(optimizer)
    laid_out = optimizer.state[conv.weight]["momentum_buffer"]
    assert laid_out.stride() == conv.weight.stride()
    assert torch.equal(laid_out, slot)


def test_settings_of_the_toy_run_use_dropout_jitter_and_clipping(toy):
    """The identity above would mean little without randomness in the run."""
    assert toy.net().drop.p > 0
    train = toy.digits().train
    first = next(iter(train))[0]
    train.set_epoch(1)
    assert not torch.equal(first, next(iter(train))[0])
    assert isinstance(toy.SETTINGS, TrainSettings)
    assert toy.SETTINGS.gradient_clip is not None


METHOD = {"loss": "squares", "weights": (1, 2)}


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (METHOD, METHOD, None),
        (METHOD, {}, r"method\.loss was 'squares' and is now 'not there'"),
        ({}, METHOD, r"method\.loss was 'not there' and is now 'squares'"),
        (
            METHOD,
            {**METHOD, "weights": (1, 3)},
            r"method\.weights was \[1, 2\] and is now \[1, 3\]",
        ),
    ],
)
def test_a_run_goes_on_with_its_own_method_and_data_only(toy, tmp_path, before, after, message):
    """Compared in both directions: what only one of the two runs has differs too."""
    settings = replace(toy.SETTINGS, epochs=2)
    for part in ("method", "data"):

        def start(identity, part=part, **options):
            data = toy.digits(**options)
            if part == "data":
                data.identity = {f"method.{name}": value for name, value in identity.items()}
                identity = {}
            method = TrainingMethod(identity=identity)
            return toy.run(tmp_path / part, settings=settings, data=data, method=method)

        start(before)
        if message is None:
            assert start(after)[2].epochs == 2
            continue
        with pytest.raises(CheckpointError, match=message):
            start(after)

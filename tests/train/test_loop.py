import itertools
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from topospike.errors import ConfigError, NonFiniteError, ShapeError
from topospike.recipe import TrainSettings
from topospike.train import evaluate_accuracy, fit, load_latest
from topospike.train.checkpoint import list_checkpoints


@pytest.fixture(scope="module")
def digits(toy):
    return toy.digits()


def tiny(x, y, classes=2, batches=None):
    """One batch of given tensors, for cases worked out by hand."""

    class List(list):
        def set_epoch(self, epoch):
            pass

    batch = List([(x, y)] if batches is None else batches)
    return SimpleNamespace(train=batch, validation=batch, classes=classes)


def test_it_learns_digits_and_the_loss_falls(toy, tmp_path, read_metrics):
    settings = replace(toy.SETTINGS, epochs=10, gradient_clip=None, label_smoothing=0.0)
    data = toy.digits(train=800, validation=300)
    _, _, result = toy.run(tmp_path, settings=settings, data=data)
    epochs = [line for line in read_metrics(tmp_path) if line["kind"] == "epoch"]
    losses = [line["train_loss"] for line in epochs]
    assert losses[-1] < 0.35 * losses[0]
    assert sum(b < a for a, b in itertools.pairwise(losses)) >= 7
    assert result.validation_accuracy > 0.85
    assert epochs[-1]["train_accuracy"] > 0.85


def test_result_metrics_and_model_tell_the_same_story(uninterrupted, digits, read_metrics):
    model, _, result = uninterrupted
    lines = read_metrics(result.folder)
    epochs = [line for line in lines if line["kind"] == "epoch"]
    updates = [line for line in lines if line["kind"] == "topology_update"]
    assert [line["epoch"] for line in epochs] == [0, 1, 2, 3, 4]
    assert [line["epoch"] for line in updates] == [0, 1, 2]
    assert updates[0]["layers"]["fc1"]["removed"] > 0
    assert result.epochs == 5
    assert result.train_loss == epochs[-1]["train_loss"]
    assert result.validation_accuracy == epochs[-1]["validation_accuracy"]
    assert result.validation_accuracy == evaluate_accuracy(model, digits.validation)
    accuracies = [line["validation_accuracy"] for line in epochs]
    assert result.best_epoch == accuracies.index(max(accuracies))
    assert epochs[-1]["best_validation_accuracy"] == max(accuracies)
    assert result.seconds > 0
    assert not model.training


def test_learning_rates_written_are_those_of_the_schedule(uninterrupted, read_metrics):
    from topospike.train import learning_rate_at

    result, settings = (
        uninterrupted[2],
        TrainSettings(epochs=5, learning_rate=0.05, warmup_epochs=0.5),
    )
    rates = [
        line["learning_rate"] for line in read_metrics(result.folder) if line["kind"] == "epoch"
    ]
    last_steps = [5 * epoch + 4 for epoch in range(5)]
    assert rates == [learning_rate_at(settings, t, steps_per_epoch=5) for t in last_steps]


def test_absent_links_stay_exactly_zero(uninterrupted):
    model, controller, _ = uninterrupted
    mask = model.fc1.weight_mask
    assert not model.fc1.weight[~mask].any()
    assert not controller.optimizer.state[model.fc1.weight]["momentum_buffer"][~mask].any()
    assert int(mask.sum()) == round(0.3 * mask.numel())


def test_only_the_named_files_are_left(uninterrupted):
    folder = uninterrupted[2].folder
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint", "metrics.jsonl"]
    names = sorted(path.name for path in (folder / "checkpoint").iterdir())
    assert names == ["epoch-00004.safetensors", "epoch-00005.safetensors"]
    for file in folder.rglob("*"):
        if file.is_file():
            assert file.suffix in {".json", ".jsonl", ".safetensors"}
            assert not file.read_bytes().startswith((b"\x80", b"PK"))


def test_one_step_by_hand_with_clipping_over_existing_links_only(toy):
    layer = nn.Linear(2, 2, bias=False)
    weight = torch.tensor([[1.0, 0.0], [0.5, -1.0]])
    mask = weight != 0
    with torch.no_grad():
        layer.weight.copy_(weight)

    class Fixed:
        unit = "epoch"

        def attach(self, optimizer):
            optimizer.register_step_pre_hook(lambda *_: self.mask_gradients())

        def mask_gradients(self):
            layer.weight.grad.masked_fill_(~mask, 0)

        def check_schedule(self, epochs, steps_per_epoch):
            assert (epochs, steps_per_epoch) == (1, 1)

        def is_update_epoch(self, epoch):
            return False

        def update_topology(self, epoch):
            raise AssertionError("the topology stays")

        def state_dict(self):
            return {}

        def load_state_dict(self, state_dict):
            pass

    x, y = torch.tensor([[2.0, 3.0]]), torch.tensor([1])
    p = torch.softmax(x @ weight.T, dim=1)
    gradient = ((p - torch.tensor([[0.0, 1.0]])).T @ x) * mask
    clipped = gradient * (0.5 / gradient.norm())
    settings = TrainSettings(
        epochs=1, learning_rate=1.0, momentum=0.0, weight_decay=0.0, gradient_clip=0.5
    )
    fit(layer, tiny(x, y), settings, folder=None, seed=0, sparsifier=Fixed())
    torch.testing.assert_close(layer.weight.detach(), weight - clipped, atol=1e-5, rtol=1e-5)


def test_label_smoothing_by_hand():
    layer = nn.Linear(1, 2, bias=False)
    nn.init.constant_(layer.weight, 0.0)
    settings = TrainSettings(
        epochs=1, learning_rate=1.0, momentum=0.0, weight_decay=0.0, label_smoothing=0.2
    )
    fit(layer, tiny(torch.ones(1, 1), torch.tensor([0])), settings, folder=None, seed=0)
    # p = (.5, .5), target (.9, .1): w -= p - target
    torch.testing.assert_close(layer.weight.detach(), torch.tensor([[0.4], [-0.4]]))


def test_the_callers_generator_is_given_back_and_has_no_influence(toy, digits):
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        model, _, _ = toy.run(None, settings=replace(toy.SETTINGS, epochs=1), data=digits)
        assert torch.equal(before, torch.get_rng_state())
        states.append(model.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_another_seed_gives_another_dropout(toy, digits):
    settings = replace(toy.SETTINGS, epochs=1)
    first, second = (
        toy.run(None, settings=settings, data=digits, seed=seed)[0].conv.weight for seed in (1, 2)
    )
    assert not torch.equal(first, second)


@pytest.mark.parametrize("options", [{"bf16": True}, {"channels_last": True}])
def test_options_train_about_as_well(toy, digits, options):
    settings = replace(toy.SETTINGS, **options)
    model, _, result = toy.run(None, settings=settings, data=digits)
    reference = toy.run(None, data=digits)[2]
    assert result.train_loss == pytest.approx(reference.train_loss, rel=0.15)
    assert model.conv.weight.dtype == torch.float32
    assert not model.fc1.weight[~model.fc1.weight_mask].any()
    if settings.channels_last:
        assert model.fc1.weight_mask.dtype == torch.bool


def test_without_validation_images(toy, digits, tmp_path, read_metrics):
    data = SimpleNamespace(train=digits.train, validation=[], classes=10)
    result = toy.run(tmp_path, settings=replace(toy.SETTINGS, epochs=1), data=data)[2]
    assert (result.validation_accuracy, result.best_epoch) == (None, None)
    assert read_metrics(tmp_path)[-1]["validation_accuracy"] is None


def test_nan_in_the_images_is_found_and_the_checkpoint_stays(toy, digits, tmp_path):
    class Spoilt(toy.Batches):
        def __iter__(self):
            for step, (x, y) in enumerate(super().__iter__()):
                if self.epoch == 2 and step == 1:
                    x = x.clone()
                    x[3, 0, 4, 4] = float("nan")
                yield x, y

    data = toy.digits(kind=Spoilt)
    with pytest.raises(NonFiniteError, match=r"epoch 2, step 1.*batch itself holds 1") as caught:
        toy.run(tmp_path, data=data)
    (note,) = caught.value.__notes__
    assert "after 2 epochs is intact" in note
    assert "resume=False" in note
    loaded = load_latest(tmp_path / "checkpoint")
    assert loaded is not None
    assert loaded.number == 2
    # The same run with sound images goes on from it.
    assert toy.run(tmp_path, data=digits)[2].epochs == 5


def test_an_exploding_learning_rate_names_a_layer(toy, digits, tmp_path):
    settings = replace(toy.SETTINGS, learning_rate=1e25, gradient_clip=None, warmup_epochs=0.0)
    with pytest.raises(NonFiniteError, match=r"epoch 0, step \d") as caught:
        toy.run(tmp_path, settings=settings, data=digits)
    assert "They first appear in layer '" in str(caught.value)
    assert "nothing was saved" in caught.value.__notes__[0]
    assert list_checkpoints(tmp_path / "checkpoint") == []


def test_a_weight_that_overflows_in_the_last_step_is_never_saved(tmp_path):
    layer = nn.Linear(1, 2, bias=False)
    settings = TrainSettings(epochs=1, learning_rate=1e30, momentum=0.0)
    data = tiny(torch.full((1, 1), 1e30), torch.tensor([0]))
    nn.init.constant_(layer.weight, 0.0)
    with pytest.raises(
        NonFiniteError, match=r"end of epoch 0 the weight of layer ''.*2 non-finite"
    ):
        fit(layer, data, settings, folder=tmp_path, seed=0)
    assert list_checkpoints(tmp_path / "checkpoint") == []


def test_wrong_class_count(toy, digits):
    with pytest.raises(ShapeError, match=r"Net returned shape \(32, 7\).*must be \(32, 10\)"):
        fit(toy.net(classes=7), digits, toy.SETTINGS, folder=None, seed=0)


def test_no_training_images(toy, digits):
    data = SimpleNamespace(train=[], validation=digits.validation, classes=10)
    with pytest.raises(ConfigError, match="training split is empty"):
        fit(toy.net(), data, toy.SETTINGS, folder=None, seed=0)


def test_batches_that_do_not_keep_their_promise(toy):
    class Short(toy.Batches):
        def __len__(self):
            return super().__len__() + 1

    with pytest.raises(ConfigError, match=r"announced 6 .* but gave 5 in epoch 0"):
        toy.run(None, data=toy.digits(kind=Short))


def test_bad_settings_are_refused_before_anything_is_written(toy, digits, tmp_path):
    with pytest.raises(ConfigError, match="epochs"):
        toy.run(tmp_path / "run", settings=replace(toy.SETTINGS, epochs=0), data=digits)
    assert not (tmp_path / "run").exists()


def test_checkpoint_interval_always_includes_the_last_epoch(toy, digits, tmp_path):
    toy.run(tmp_path, settings=replace(toy.SETTINGS, checkpoint_every=3), data=digits)
    assert [number for number, _ in list_checkpoints(tmp_path / "checkpoint")] == [3, 5]


def test_metrics_are_json_objects_one_a_line(uninterrupted):
    text = (uninterrupted[2].folder / "metrics.jsonl").read_text()
    assert text.endswith("\n")
    assert {json.loads(line)["kind"] for line in text.splitlines()} == {
        "epoch",
        "topology_update",
    }

"""The loop with the real controller of ``topospike.evolve``."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from topospike.errors import CheckpointError, ConfigError
from topospike.evolve import sparsify
from topospike.recipe import TrainSettings
from topospike.topology import check_masks, masked_layers
from topospike.train import TopologyController, fit

SETTINGS = TrainSettings(epochs=6, learning_rate=0.05, gradient_clip=5.0, label_smoothing=0.1)
OTHER_RULES = ("chts", "set", "static")


def network():
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(128, 64),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(64, 10),
        )


def train(folder, data, rule="chts", sparsity=0.8, settings=SETTINGS):
    model = network()
    sparsifier = sparsify(model, rule, sparsity=sparsity, epochs=settings.epochs, seed=7)
    result = fit(model, data, settings, folder=folder, seed=1, sparsifier=sparsifier)
    return model, sparsifier, result


def interrupted(toy, epoch):
    class Interrupted(toy.Batches):
        def __iter__(self):
            for step, batch in enumerate(super().__iter__()):
                if self.epoch == epoch and step == 3:
                    raise KeyboardInterrupt
                yield batch

    return toy.digits(kind=Interrupted)


def test_the_sparsifier_is_a_topology_controller():
    sparsifier = sparsify(network(), "chts", sparsity=0.5, epochs=3)
    assert isinstance(sparsifier, TopologyController)


@pytest.mark.parametrize(
    "rule", ["chtss", "rigl", *(pytest.param(r, marks=pytest.mark.slow) for r in OTHER_RULES)]
)
def test_resume_with_every_rule_is_bit_identical(toy, tmp_path, read_metrics, rule):
    whole, controller, result = train(tmp_path / "whole", toy.digits(), rule)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", interrupted(toy, 2), rule)
    resumed, controller_2, result_2 = train(tmp_path / "cut", toy.digits(), rule)
    reference = whole.state_dict()
    assert any(name.endswith("weight_mask") for name in reference)
    for name, value in resumed.state_dict().items():
        assert torch.equal(value, reference[name]), name
    assert read_metrics(result.folder) == read_metrics(result_2.folder)
    assert controller.freeze().digest == controller_2.freeze().digest
    check_masks(resumed)


def test_topology_changes_are_recorded_and_end_on_time(toy, tmp_path, read_metrics):
    model, sparsifier, _ = train(tmp_path, toy.digits())
    lines = read_metrics(tmp_path)
    updates = [line for line in lines if line["kind"] == "topology_update"]
    assert [line["epoch"] for line in updates] == [
        epoch for epoch in range(SETTINGS.epochs) if sparsifier.is_update_epoch(epoch)
    ]
    assert updates
    for line in updates:
        assert line["layers"].keys() == sparsifier.layers.keys()
        for change in line["layers"].values():
            lost = change["removed"] + change["percolated"]
            assert change["active_before"] - lost + change["grown"] == change["active_after"]
    assert {layer.name for layer in masked_layers(model)} == set(sparsifier.layers)


def test_an_update_is_timed_as_a_part_of_its_epoch(toy, tmp_path):
    train(tmp_path, toy.digits())
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    epochs = {line["epoch"]: line["seconds"] for line in lines if line["kind"] == "epoch"}
    updates = [line for line in lines if line["kind"] == "topology_update"]
    assert updates
    assert all(0 < line["seconds"] < epochs[line["epoch"]] for line in updates)


def test_every_update_is_told_with_the_new_links_in_place(toy, tmp_path):
    told = []

    def note(update):
        links = {layer.name: int(layer.mask.sum()) for layer in masked_layers(model)}
        assert links == {name: change.active_after for name, change in update.layers.items()}
        told.append(update.update_index)

    model = network()
    sparsifier = sparsify(model, "set", sparsity=0.8, epochs=SETTINGS.epochs, seed=7)
    fit(
        model,
        toy.digits(),
        SETTINGS,
        folder=None,
        seed=1,
        sparsifier=sparsifier,
        after_update=note,
    )
    assert told == list(range(1, sparsifier.update_index + 1))
    assert told


@pytest.mark.parametrize("planned", [{"epochs": 200}, {"steps": 60}, {"steps": 6}])
def test_a_topology_planned_for_another_length_is_refused(toy, planned, tmp_path):
    model = network()
    sparsifier = sparsify(model, "gmp", sparsity=0.9, **planned)
    with pytest.raises(ConfigError, match=r"made for \d+ \w+, the training has 6 epochs of 5"):
        fit(model, toy.digits(), SETTINGS, folder=tmp_path / "run", seed=1, sparsifier=sparsifier)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("execution", ["masked", "compact"])
def test_a_schedule_that_counts_steps_is_followed(toy, execution, tmp_path, read_metrics):
    """Six epochs of five steps: an update after every fourth of the first 75 %."""
    runs = []
    for folder in ("whole", "cut"):
        model = network()
        data = toy.digits() if folder == "whole" else interrupted(toy, 2)
        settings = replace(SETTINGS, execution=execution)
        options = {"folder": tmp_path / folder, "seed": 1}
        options["sparsifier"] = sparsify(
            model, "gmp", sparsity=0.95, steps=30, update_interval=4, percolation=False
        )
        if folder == "cut":
            with pytest.raises(KeyboardInterrupt):
                fit(model, data, settings, **options)
            model = network()
            options["sparsifier"] = sparsify(
                model, "gmp", sparsity=0.95, steps=30, update_interval=4, percolation=False
            )
        fit(model, toy.digits(), settings, **options)
        runs.append((model.state_dict(), read_metrics(tmp_path / folder)))
        assert options["sparsifier"].freeze().sparsity() == pytest.approx(0.95, abs=0.01)
    lines = [line for line in runs[0][1] if line["kind"] == "topology_update"]
    assert [line["epoch"] for line in lines] == list(range(3, 22, 4))
    assert runs[0][1] == runs[1][1]
    assert all(torch.equal(value, runs[1][0][name]) for name, value in runs[0][0].items())


def test_another_plan_is_refused_at_resume(toy, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, interrupted(toy, 2))
    with pytest.raises(CheckpointError, match=r"sparsity|plan"):
        train(tmp_path, toy.digits(), sparsity=0.5)


def test_slots_stay_zero_off_the_masks(toy, tmp_path):
    model, sparsifier, _ = train(tmp_path, toy.digits())
    for name, module in ((layer.name, layer.module) for layer in masked_layers(model)):
        slot = sparsifier.optimizer.state[module.weight]["momentum_buffer"]
        assert not slot[~module.weight_mask].any(), name
        assert not module.weight[~module.weight_mask].any(), name

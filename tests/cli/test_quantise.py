"""The training of quantised activations as stages of a run, on a frozen topology."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from topospike.cli.main import main
from topospike.conversion import convert
from topospike.errors import ConfigError
from topospike.models.qcfs import QCFS
from topospike.pipeline.folder.record import recorded_recipe
from topospike.pipeline.networks import calibration_images
from topospike.pipeline.quantising import kinds_to_train, quantised_model, stage_training
from topospike.pipeline.run import Run
from topospike.recipe import ConversionSettings, QuantisationSettings, Recipe, TrainSettings
from topospike.topology import Topology

pytestmark = pytest.mark.slow

RECIPE = """\
name: quantised
threads: 1
dense_twin: false
analyse: false
data: {limit_train: 200, limit_test: 40, batch_size: 40}
model: {name: small_cnn, widths: [4, 6], hidden: [16]}
train: {epochs: 1, learning_rate: 0.1}
sparsity: {rule: static, linear: 0.8, conv: 0.4}
quantise: {epochs: 2, channel_epochs: 1, levels: 1, percentile: 0.99, learning_rate: 0.02}
convert: [{method: cs-qcfs, timesteps: 2}]
measure: {timesteps: 2}
"""
STAGES = ["train static", "quantise static s-qcfs", "quantise static cs-qcfs"]


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "quantised.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory, recipe_file):
    folder = tmp_path_factory.mktemp("runs") / "quantised"
    assert main(["train", str(recipe_file), "--folder", str(folder)]) == 0
    assert main(["convert", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def converted(finished):
    """Images, the model with trained activations, and its spiking network, in float64."""
    run = Run(recorded_recipe(finished), finished, device="cpu")
    model = quantised_model(run, run.networks[-1], "cs-qcfs").double()
    images = next(calibration_images(run.data, 40)).double()
    return images, model, convert(model, "cs-qcfs", images)


def stage_metrics(folder, kind) -> list[dict]:
    lines = (folder / "quantised" / kind / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_two_stages_run_between_training_and_conversion(finished) -> None:
    ledger = json.loads((finished / "stages.json").read_text())
    assert list(ledger) == ["record.json", *STAGES, "convert static cs-qcfs", "sha256"]
    for kind, epochs in (("s-qcfs", 2), ("cs-qcfs", 1)):
        lines = stage_metrics(finished, kind)
        assert [line["kind"] for line in lines] == ["epoch"] * epochs + ["thresholds"]
        channels = [site["channels"] for site in lines[-1]["sites"].values()]
        assert channels == ([1, 1, 1] if kind == "s-qcfs" else [4, 6, 1])
    report = json.loads((finished / "conversions/cs-qcfs/conversion.json").read_text())
    assert report["solver"] == "trained"


def test_the_topology_is_the_same_before_and_after(finished, converted) -> None:
    topology = Topology.load(finished / "topology.npz")
    for kind in ("s-qcfs", "cs-qcfs"):
        state = load_file(finished / "quantised" / kind / "model.safetensors")
        masks = {name: state[f"{name}_mask"] for name in topology.masks}
        assert Topology.from_masks(masks).digest == topology.digest
        assert all(not state[name][~mask].any() for name, mask in masks.items())
    before = load_file(finished / "model.safetensors")
    moved = [name for name in before if not torch.equal(before[name], state[name])]
    assert any(name.endswith("weight") for name in moved)
    assert not any(name.endswith("_mask") for name in moved)
    _, model, snn = converted
    assert Topology.from_model(model).digest == topology.digest
    assert Topology.from_model(snn.ann).digest == topology.digest


def test_one_step_equals_the_ann_trained_with_one_level(converted) -> None:
    images, model, snn = converted
    assert {m.steps for m in model.modules() if isinstance(m, QCFS)} == {1}
    torch.testing.assert_close(snn(images, 1)[0], model(images).detach(), rtol=0, atol=1e-12)


def test_other_settings_are_refused_unless_overwriting(finished, recipe_file, capsys) -> None:
    before = (finished / "quantised/s-qcfs/model.safetensors").read_bytes()
    command = ["run", str(recipe_file), "--folder", str(finished), "--quantise.epochs", "3"]
    assert main(command) == 2
    message = capsys.readouterr().err
    assert "quantise.epochs (2, now 3)" in message
    assert "--overwrite" in message
    assert (finished / "quantised/s-qcfs/model.safetensors").read_bytes() == before


@pytest.mark.slow
def test_a_stage_goes_on_from_its_checkpoint(finished, recipe_file, tmp_path) -> None:
    folder = shutil.copytree(finished, tmp_path / "run")
    weights = folder / "quantised/s-qcfs/model.safetensors"
    expected, lines = weights.read_bytes(), stage_metrics(folder, "s-qcfs")
    weights.unlink()
    (folder / "quantised/s-qcfs/checkpoint/epoch-00002.safetensors").unlink()
    assert main(["train", str(recipe_file), "--folder", str(folder)]) == 0
    assert weights.read_bytes() == expected
    again = stage_metrics(folder, "s-qcfs")
    assert [line["kind"] for line in again] == [line["kind"] for line in lines]


def test_without_epochs_nothing_is_trained() -> None:
    methods = tuple(ConversionSettings(name) for name in ("qcfs", "cs-qcfs"))
    assert kinds_to_train(Recipe(convert=methods)) == ()
    asked = QuantisationSettings(epochs=300, channel_epochs=100)
    assert kinds_to_train(Recipe(convert=methods, quantise=asked)) == ("s-qcfs", "cs-qcfs")
    only = (ConversionSettings("srp"), ConversionSettings("dcgs"), ConversionSettings("slip-relu"))
    assert kinds_to_train(Recipe(convert=only, quantise=asked)) == ("s-qcfs", "slip-relu")


def test_the_schedules_are_those_of_the_paper() -> None:
    """Cosine to 0 in each stage, no warm-up, no smoothing; precision as in the recipe."""
    train = TrainSettings(warmup_epochs=5, label_smoothing=0.1, bf16=True, ema_decay=0.9)
    quantise = QuantisationSettings(epochs=300, channel_epochs=100, channel_rate=0.2)
    recipe = Recipe(train=train, quantise=quantise)
    first, second = (stage_training(recipe, kind) for kind in ("s-qcfs", "cs-qcfs"))
    assert (first.epochs, second.epochs) == (300, 100)
    assert (first.learning_rate, second.learning_rate) == (0.05, pytest.approx(0.01))
    for stage in (first, second):
        assert (stage.schedule, stage.warmup_epochs, stage.label_smoothing) == ("cosine", 0.0, 0.0)
        assert (stage.optimizer, stage.momentum, stage.weight_decay) == ("sgd", 0.9, 5e-4)
        assert (stage.bf16, stage.ema_decay) == (True, 0.0)


@pytest.mark.parametrize(("changes", "message"), [
    ({"convert": (ConversionSettings("srp"),)}, r"'srp', which needs trained .* quantise\.epochs"),
    (
        {"convert": (ConversionSettings("cs-qcfs"),), "quantise": QuantisationSettings(epochs=1)},
        r"quantise\.channel_epochs is 0",
    ),
    ({"quantise": QuantisationSettings(positive_map="softpuls")}, r"mean 'softplus'"),
    ({"quantise": QuantisationSettings(order="clamp")}, r"unknown order 'clamp'"),
])  # fmt: skip
def test_unusable_recipes_are_refused_before_any_work(changes, message, tmp_path) -> None:
    with pytest.raises(ConfigError, match=message):
        Run(Recipe(**changes), tmp_path)


@pytest.mark.slow
def test_frozen_weights_leave_only_thresholds_to_train(recipe_file, tmp_path) -> None:
    folder = tmp_path / "run"
    command = ["train", str(recipe_file), "--folder", str(folder), "--quantise.freeze_weights"]
    assert main([*command, "true"]) == 0
    one, two = (load_file(folder / "quantised" / kind / "model.safetensors")
                for kind in ("s-qcfs", "cs-qcfs"))  # fmt: skip
    for name, value in one.items():
        if name.endswith("weight") and value.ndim > 1:
            assert torch.equal(two[name], value)
    assert any(not torch.equal(two[n], one[n].expand_as(two[n])) for n in two if "beta" in n)

"""A language model from recipe to page, at a size that takes seconds."""

import json

import pytest

from topospike.cli.main import main
from topospike.contracts import Evaluation
from topospike.pipeline import run_recipe
from topospike.recipe.files import resolve
from topospike.topology import Topology

SMALL = """\
name: small-gpt
threads: 1
data:
  source: pydoc-topics
  text: {context: 16}
  augment: [shift]
  limit_train: 150
  limit_test: 24
  batch_size: 16
model: {name: gpt, widths: [16], blocks: [1], hidden: [24], heads: 2}
train: {epochs: 3, optimizer: adamw, learning_rate: 0.01, final_learning_rate_fraction: 0.1}
sparsity: {rule: chts, linear: 0.7, initial_topology: brf, stop_fraction: 1.0}
convert: [{method: dcgs, timesteps: 4, calibration_images: 32}]
measure: {timesteps: 4, images: 16, metric: perplexity}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    place = tmp_path_factory.mktemp("text")
    (place / "small.yaml").write_text(SMALL)
    assert main(["run", str(place / "small.yaml"), "--folder", str(place / "run")]) == 0
    return place / "run"


@pytest.mark.slow
def test_a_language_model_from_recipe_to_page(finished, capsys):
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    epochs = [line for line in lines if line["kind"] == "epoch"]
    assert epochs[-1]["validation_loss"] < epochs[0]["validation_loss"] < 6.0
    assert epochs[-1]["best_validation_loss"] == min(line["validation_loss"] for line in epochs)
    updates = [line for line in lines if line["kind"] == "topology_update"]
    assert sum(c["grown"] for u in updates for c in u["layers"].values()) > 0
    topology = Topology.load(finished / "topology.npz")
    assert len(topology.masks) == 7
    assert topology.sparsity() == pytest.approx(0.7, abs=0.02)
    result = Evaluation.load(finished / "evaluation.json")
    assert list(result.metrics) == ["perplexity", "accuracy"]
    assert result.images == 16
    assert all(1 < value < 400 for value in result.metrics["perplexity"])
    (dense, sparse) = json.loads((finished / "summary.json").read_text())["rows"]
    assert sparse["metric"] == "perplexity"
    assert sparse["snn_value"] == result.metrics["perplexity"][3]
    assert dense["ann_value"] != sparse["ann_value"]
    page = (finished / "report.html").read_text()
    assert "has a perplexity of" in page
    assert "energy per context" in page
    record = json.loads((finished / "record.json").read_text())
    assert (record["data"]["context"], record["data"]["classes"]) == (16, 256)


@pytest.mark.slow
def test_a_trained_language_model_is_pruned_and_measured(finished, tmp_path, capsys):
    target = tmp_path / "wanda"
    prune = ["prune", str(finished), "--method", "wanda", "--sparsity", "0.7", "--to", str(target)]
    assert main(prune) == 0
    assert main(["convert", str(target)]) == 0
    assert main(["simulate", str(target)]) == 0
    assert "perplexity" in capsys.readouterr().out
    assert "perplexity" in Evaluation.load(target / "evaluation.json").metrics
    assert main(["simulate", str(finished), "--stream", str(tmp_path)]) == 2
    assert "language models, whose contexts are no frames" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measure": {"metric": "perplexety"}}, "Did you mean 'perplexity'"),
        ({"model": {"name": "mlp", "hidden": [4]}}, "reads images, and the data are text"),
        ({"data": {"text": {"context": 0}}}, "'pydoc-topics' and data.text.context is 0"),
        ({"direct": {"rule": "dpap"}, "convert": [{"method": "direct"}]}, "classify images"),
        ({"sparsity": {"update_unit": "week"}}, "update_unit is 'week'; epoch or step"),
    ],
)
def test_recipes_that_contradict_themselves(options, message, tmp_path):
    with pytest.raises(Exception, match=message):
        run_recipe(resolve("text-gpt", options), tmp_path / "none", device="cpu")


@pytest.mark.parametrize("name", ["text-gpt", "openwebtext-llama-60m"])
def test_the_packaged_recipes_are_of_language_models(name):
    recipe = resolve(name)
    assert recipe.data.text.context > 0
    assert recipe.measure.metrics == ("perplexity", "accuracy")
    assert recipe.sparsity.linear == 0.7

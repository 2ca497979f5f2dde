"""What a sweep searches: entries, points, and what is refused before anything runs."""

import math

import pytest

from topospike.cli.main import main
from topospike.cli.search import (
    Judgement,
    Range,
    Space,
    best_of,
    grid_points,
    judge_run,
    nested,
    parse_space,
)
from topospike.contracts import Evaluation
from topospike.errors import ConfigError
from topospike.metrics_log import read_log
from topospike.pipeline import run_recipe
from topospike.pipeline.run import Run
from topospike.recipe import Recipe
from topospike.recipe.files import resolve


def test_the_grid_is_the_product_in_order():
    entries = ["train.learning_rate=0.1,0.01", "data.batch_size=32,64,128", "model.hidden=[8, 8]"]
    points = grid_points(parse_space(entries, known=Recipe()))
    assert len(points) == 6
    assert points[1] == {
        "train.learning_rate": 0.1,
        "data.batch_size": 64,
        "model.hidden": [8, 8],
    }


def test_dotted_keys_become_groups():
    point = {"train.epochs": 3, "train.learning_rate": 0.1, "seed": 1}
    assert nested(point) == {"train": {"epochs": 3, "learning_rate": 0.1}, "seed": 1}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "nothing to search; name what varies"),
        (["train.learning_rate"], "has no values; write train.learning_rate=0.1,0.01"),
        (["train.leaning_rate=1"], "Did you mean 'train.learning_rate'?"),
        (["seed=1:x"], "is no range; write low:high or low:high:log"),
        (["seed=3:1"], "the lower end must be smaller"),
        (["train.learning_rate=0:1:log"], "above 0 on a logarithmic scale"),
    ],
)
def test_impossible_spaces(entries, message):
    with pytest.raises(ConfigError) as error:
        parse_space(entries, known=Recipe())
    assert message in str(error.value)


def test_a_range_needs_optuna():
    with pytest.raises(ConfigError, match="add --search optuna"):
        grid_points(Space({"seed": Range(1, 5)}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--space", "seed=1", "--search", "random"], "--search is 'random'; one of grid, optuna"),
        (["--space", "seed=1", "--select", "test"], "--select is 'test'; one of validation, paper"),
        (["--space", "seed=1", "--judge", "srp"], "--judge is 'srp'; 'ann' or one of the recipe's"),
    ],
)
def test_impossible_options_of_a_sweep(options, message, tmp_path, capsys):
    assert main(["sweep", "demo", "--folder", str(tmp_path), *options]) == 2
    assert message in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_rules_in_words():
    assert Judgement("validation").rule == "accuracy of the trained network on the validation split"
    assert Judgement("paper", "dcgs").rule == "accuracy of its conversion by dcgs on the test split"
    assert Judgement("paper", metric="mean_iou").rule.startswith("mean iou of the trained network")


def test_a_trained_network_agrees_with_itself_under_any_setting():
    recipe = resolve("demo", {"measure": {"metric": "agreement"}})
    assert Judgement("paper", "dcgs", "agreement").checked(recipe).on == "dcgs"
    with pytest.raises(ConfigError, match=r"agrees with itself\. .*--judge dcgs"):
        Judgement("paper", "ann", "agreement").checked(recipe)


def test_runs_are_judged_by_the_metric_of_their_recipe(tmp_path):
    small = {
        "threads": 1,
        "dense_twin": False,
        "analyse": False,
        "data": {"limit_train": 96, "limit_test": 32, "batch_size": 32},
        "model": {"name": "mlp", "hidden": [24, 16]},
        "train": {"epochs": 2},
        "sparsity": {"linear": 0.5},
        "convert": [{"method": "dcgs", "timesteps": 2, "calibration_images": 32}],
        "measure": {"timesteps": 2, "metric": "perplexity"},
    }
    recipe = resolve("demo", small)
    run_recipe(recipe, tmp_path, device="cpu")
    run = Run(recipe, tmp_path, device="cpu")
    of_ann = Judgement("validation", "ann", "perplexity")
    validation, test, score = judge_run(run, of_ann)
    written = read_log(tmp_path / "metrics.jsonl").epochs[-1].validation_loss
    assert score == validation == pytest.approx(math.exp(written), rel=1e-5)
    measured = Evaluation.load(tmp_path / "evaluation.json")
    assert test == measured.ann_metrics["perplexity"]
    _, of_snn, score = judge_run(run, Judgement("paper", "dcgs", "perplexity"))
    assert score == of_snn == measured.metrics["perplexity"][1]
    assert of_ann.lower_is_better


def test_failed_trials_are_never_best():
    assert best_of([None, 0.4, 0.7, None]) == 2
    assert best_of([]) is None
    assert best_of([float("nan"), 3.0, 2.0], lower_is_better=True) == 2

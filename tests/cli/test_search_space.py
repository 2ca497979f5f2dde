"""What a sweep searches: entries, points, and what is refused before anything runs."""

import pytest

from topospike.cli.main import main
from topospike.cli.search import Judgement, Range, Space, best_of, grid_points, nested, parse_space
from topospike.errors import ConfigError
from topospike.recipe import Recipe


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


def test_failed_trials_are_never_best():
    assert best_of([None, 0.4, 0.7, None]) == 2
    assert best_of([]) is None

"""The command line's own words: subcommands, options, and what is said about a misspelt one."""

import pytest

from topospike.cli.arguments import COMMANDS, parse
from topospike.errors import ConfigError
from topospike.recipe.files import to_plain


def test_only_what_was_typed_comes_back():
    command, options = parse(
        ["run", "demo", "--train.epochs", "3", "--convert", "[{method: qcfs}]"]
    )
    assert command == "run"
    assert to_plain(options) == {
        "recipe": "demo",
        "train": {"epochs": 3},
        "convert": [{"method": "qcfs"}],
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rnu"], "unknown command 'rnu'. Known: demo, run, train"),
        (["rnu"], "Did you mean 'run'?"),
        (["run", "demo", "--train.epoch", "3"], "'--train.epoch'. Did you mean '--train.epochs'?"),
        (["run", "demo", "--train.epoch=3"], "Did you mean '--train.epochs'?"),
        (["run", "demo", "--epochs", "3"], "Did you mean '--train.epochs'?"),
        (["demo", "--foldr", "x"], "topospike demo: unknown argument '--foldr'."),
        (["demo", "--foldr", "x"], "Did you mean '--folder'?"),
        (["run", "demo", "--train.epochs", "x"], "train.epochs: int required, got x"),
        (["run"], "required: recipe"),
        (["simulate", "runs/demo", "--timestep", "4"], "Did you mean '--timesteps'?"),
        (["convert", "runs/demo", "--levels", "4"], "typed as --options.levels."),
        (["convert", "runs/demo", "--timesteps", "x"], "timesteps: int required, got x"),
        (["report"], "required: folders"),
        (["run", "demo", "extra"], "unknown argument 'extra'"),
    ],
)
def test_a_wrong_argument_is_named_with_the_nearest_right_one(arguments, message):
    with pytest.raises(ConfigError) as caught:
        parse(arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_abbreviated_option_is_not_guessed():
    with pytest.raises(ConfigError, match="unknown argument '--fold'"):
        parse(["demo", "--fold", "x"])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        parse([command, "--help"])
    assert ended.value.code == 0
    assert COMMANDS[command][1] in " ".join(capsys.readouterr().out.split())

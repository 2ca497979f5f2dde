"""Recipes and options that nobody meant: each is accepted, or refused by one `ConfigError`.

``TOPOSPIKE_FUZZ=2000 pytest tests/recipe/test_fuzz.py`` tries so many of each.
"""

import os
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from topospike.cli.arguments import parse
from topospike.errors import ConfigError
from topospike.recipe import Recipe
from topospike.recipe.files import dotted_names, recipe_from, resolve, to_plain


def tried(count):
    """Try so many, or as many as are asked for."""
    asked = int(os.environ.get("TOPOSPIKE_FUZZ", count))
    return settings(max_examples=asked, deadline=None, suppress_health_check=list(HealthCheck))


LONGEST = 1500
NAMES = sorted(dotted_names(Recipe))
LEAF = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-3, 3),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["dcgs", "null", "1e3", ".inf", "[", "{a: 1}", "~", "0x10", "\x00", "auto"]),
    st.just(10**400),
    st.just("x" * 10_000),
)
VALUES = st.recursive(
    LEAF,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(st.text(max_size=5), st.sampled_from(["method", "options", "name"])),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=6,
)


def refusal(action):
    """The message of what an action refuses, empty if it does not; any other error is raised."""
    try:
        action()
    except ConfigError as error:
        return str(error)
    return ""


def with_value(dotted, value):
    plain = to_plain(Recipe())
    *groups, last = dotted.split(".")
    place = plain
    for group in groups:
        place = place[group]
    place[last] = value
    return plain


@tried(40)
@given(dotted=st.sampled_from(NAMES), value=VALUES)
def test_any_value_of_any_key_is_taken_or_refused(dotted, value):
    plain = with_value(dotted, value)
    assert len(refusal(lambda: recipe_from(plain, source="fuzz"))) < LONGEST


@tried(40)
@given(content=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)))
def test_any_file_is_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("fuzz") / "recipe.yaml"
    path.write_bytes(content)
    assert len(refusal(lambda: resolve(str(path)))) < LONGEST


@pytest.mark.slow
@tried(15)
@given(
    command=st.sampled_from(["run", "convert", "simulate", "analyse", "prune", "export"]),
    name=st.one_of(st.sampled_from(NAMES), st.text(max_size=6)),
    value=st.one_of(st.text(max_size=10), LEAF.map(lambda leaf: repr(leaf)[:50])),
)
def test_any_option_is_parsed_or_refused(command, name, value):
    with suppress(SystemExit):  # of --help
        assert len(refusal(lambda: parse([command, "demo", f"--{name}", value]))) < LONGEST


NINE = "9" * 5000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ("seed: " + NINE, "4300 digits"),
        ("convert: [{method: null}]", r"'convert\[0\].method' is null"),
        ("train: {learning_rate: .inf}", "finite numbers are required"),
        ("1: 2", "a key is 1; a name is required"),
        ("a: &a [*a]", "nested more than"),
        ("name: " + "x" * 5000, "a text has 5000 characters"),
        (f"a: &a [{'x, ' * 99}]\nb: &b [{'*a, ' * 99}]\nc: [{'*b, ' * 99}]", "more than 10000"),
        ("x: " + "[1, " * 10 + "]" * 10 + "#" + " " * 2**20, r"has \d+ bytes; at most"),
    ],
)
def test_what_no_recipe_needs_is_refused_on_one_line(tmp_path, text, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as refused:
        resolve(str(path))
    assert len(str(refused.value)) < LONGEST
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "demo", "--seed", NINE], "4300 digits"),
        (["run", "demo", "--train", "[" * 5000], "5000 brackets open at once"),
        (["run", "demo", "--" + "x" * 50_000], "50002 characters"),
    ],
)
def test_arguments_that_no_parser_survives_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        parse(arguments)

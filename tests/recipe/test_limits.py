"""Ranges of a recipe's numbers."""

import pytest

from topospike.errors import ConfigError
from topospike.recipe import Recipe
from topospike.recipe.files import dotted_names, resolve
from topospike.recipe.limits import LIMITS, check_limits


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"measure": {"timesteps": 0}}, r"measure\.timesteps is 0; 1 or more"),
        ({"convert": [{"timesteps": 0}]}, r"convert\[0\]\.timesteps is 0; 1 or more"),
        ({"sparsity": {"linear": 1.0}}, r"sparsity\.linear is 1\.0; at least 0 \(all links\) and below 1"),
        ({"sparsity": {"conv": -0.1}}, r"sparsity\.conv is -0\.1"),
        ({"sparsity": {"conv": float("nan")}}, r"sparsity\.conv is nan"),
        ({"train": {"epochs": 0}}, r"train\.epochs is 0; 1 or more"),
        ({"train": {"learning_rate": 0.0}}, r"train\.learning_rate is 0\.0; above 0"),
        ({"data": {"validation_fraction": 1.0}}, r"data\.validation_fraction is 1\.0"),
        ({"threads": 0}, r"threads is 0"),
    ],
)
def test_a_number_out_of_range_is_named(overrides, message):
    with pytest.raises(ConfigError, match=message):
        resolve("demo", overrides)


def test_the_defaults_are_within_the_limits():
    check_limits(Recipe())


def test_every_limit_is_about_a_key_that_exists():
    assert set(LIMITS) <= set(dotted_names(Recipe))

"""Ranges of a recipe's numbers."""

import pytest

from topospike.errors import ConfigError
from topospike.recipe.files import resolve


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"measure": {"timesteps": 0}}, r"measure\.timesteps is 0; 1 or more"),
        ({"convert": [{"timesteps": 0}]}, r"convert\.timesteps is 0; 1 or more"),
        ({"sparsity": {"linear": 1.0}}, r"sparsity\.linear is 1\.0; at least 0.* and below 1"),
        ({"sparsity": {"conv": -0.1}}, r"sparsity\.conv is -0\.1"),
        ({"sparsity": {"conv": float("nan")}}, r"the number nan; finite numbers are required"),
        ({"train": {"epochs": 0}}, r"train\.epochs is 0; 1 or more"),
        ({"train": {"learning_rate": 0.0}}, r"train\.learning_rate is 0\.0; above 0"),
        ({"data": {"validation_fraction": 1.0}}, r"data\.validation_fraction is 1\.0"),
        ({"prune": {"fine_tune": 1.0}}, r"prune\.fine_tune is 1\.0"),
        ({"prune": {"calibration_images": 0}}, r"prune\.calibration_images is 0"),
        ({"quantise": {"levels": 0}}, r"quantise\.levels is 0"),
        ({"quantise": {"percentile": 1.5}}, r"quantise\.percentile is 1\.5"),
        ({"direct": {"timesteps": 0}}, r"direct\.timesteps is 0"),
        ({"measure": {"images": 0}}, r"measure\.images is 0"),
        ({"convert": [{"weight_bits": 9}]}, r"convert\.weight_bits is 9; 2 to 8, or null"),
        ({"threads": 0}, r"^threads is 0"),
    ],
)
def test_a_number_out_of_range_is_named(overrides, message):
    with pytest.raises(ConfigError, match=message):
        resolve("demo", overrides)


def test_a_key_given_twice_is_named_and_not_overwritten(tmp_path):
    (tmp_path / "a.yaml").write_text("seed: 1\ntrain: {epochs: 2, epochs: 3}\n")
    with pytest.raises(ConfigError, match="the key 'epochs' is given twice"):
        resolve(str(tmp_path / "a.yaml"))


@pytest.mark.parametrize(
    "overrides",
    [
        {"sparsity": {"keep_every": None}},
        {"train": {"epochs": None}},
        {"measure": {"timesteps": None}},
        {"convert": [{"method": None}]},
        {"model": None},
    ],
)
def test_null_where_a_value_is_needed_is_one_clear_error(overrides):
    with pytest.raises(ConfigError, match=r"is None; a mapping|is null; a value is required"):
        resolve("demo", overrides)


def test_null_is_a_value_where_it_has_a_meaning():
    assert resolve("demo", {"measure": {"images": None}}).measure.images is None

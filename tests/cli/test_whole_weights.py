"""Whole weights and an executor named in a recipe."""

import json

import pytest

from topospike.cli.main import main
from topospike.conversion import quantise_weights
from topospike.export import load

EIGHT = "[{method: dcgs, name: eight, timesteps: 2, weight_bits: 8}]"


@pytest.mark.slow
def test_a_conversion_has_whole_weights_and_is_measured_on_them(finished_run, tiny_recipe):
    folder = [str(tiny_recipe), "--folder", str(finished_run)]
    assert main(["run", *folder, "--convert", EIGHT, "--measure.executor", "integer"]) == 0
    place = finished_run / "conversions" / "eight"
    text = (place / "weights.txt").read_text()
    assert "whole numbers" in text
    snn = load(place / "network")
    again, _ = quantise_weights(snn, 8)  # changes nothing that is on the grid
    for name, weight in snn.ann.named_parameters():
        assert (weight - again.ann.get_parameter(name)).abs().max() <= 1e-6 * weight.abs().max()
    found = json.loads((place / "evaluation.json").read_text())
    real = json.loads((finished_run / "conversions" / "dcgs" / "evaluation.json").read_text())
    assert abs(found["accuracy"][-1] - real["accuracy"][-1]) <= 0.05


def test_the_integer_executor_asks_for_whole_weights(finished_run, tiny_recipe, capsys):
    folder = [str(tiny_recipe), "--folder", str(finished_run)]
    assert main(["run", *folder, "--measure.executor", "integer"]) != 0
    assert "quantise_weights" in capsys.readouterr().err

"""The perceptron of Zhang et al. (ICLR 2024), and ours beside its print."""

import csv
from pathlib import Path

import pytest

from topospike.cli.main import main
from topospike.cli.reproduce import job_of
from topospike.reproduce import TARGETS, chosen_rows

TARGET = TARGETS["cht-mlp"]
RULES = {
    "static": ("static", "er"),
    "set": ("set", "er"),
    "rigl": ("rigl", "er"),
    "mest": ("mest", "er"),
    "cht-csti": ("cht", "csti"),
    "cht-ws": ("cht", "bsw"),
}


def recipe_of(key, scale="full"):
    row = chosen_rows(TARGET, [key])[0]
    return job_of(row, Path(), scale=scale, seed=0, plan=TARGET.plan).recipe


@pytest.mark.parametrize("method", RULES)
@pytest.mark.parametrize("dataset", ["mnist", "fashion-mnist"])
def test_rows_differ_in_rule_and_first_links_alone(dataset, method):
    recipe = recipe_of(f"{dataset}/{method}")
    sparsity = recipe.sparsity
    assert (sparsity.rule, sparsity.initial_topology) == RULES[method]
    assert (sparsity.linear, sparsity.zeta, sparsity.update_interval) == (0.99, 0.3, 1)
    assert recipe.model.hidden == (784, 784, 784)
    train = recipe.train
    assert (train.epochs, train.weight_decay, recipe.data.batch_size) == (100, 1e-5, 32)
    assert (train.schedule, train.momentum) == ("constant", 0.9)
    assert (recipe.dense_twin, recipe.sparse_twin) == (False, True)


@pytest.mark.parametrize("method", ["dense", *RULES])
def test_at_scale_cpu_training_is_short_and_on_plain_images(method):
    full, cpu = (recipe_of(f"fashion-mnist/{method}", scale) for scale in ("full", "cpu"))
    assert (full.train.epochs, cpu.train.epochs) == (100, 15)
    assert (full.data.augment, cpu.data.augment) == (("crop", "flip"), ())
    assert (full.model, full.sparsity) == (cpu.model, cpu.sparsity)


WIDE = {
    "set": ("set", "er", None),
    "rigl": ("rigl", "er", None),
    "cht-csti": ("cht", "csti", None),
    "chts": ("chts", "csti", None),
    "chtss": ("chtss", "er", 0.5),
}


@pytest.mark.parametrize("method", WIDE)
def test_on_cifar10_the_perceptron_is_wider_and_its_thresholds_are_trained(method):
    full, cpu = (recipe_of(f"cifar10/{method}", scale) for scale in ("full", "cpu"))
    sparsity = full.sparsity
    assert (sparsity.rule, sparsity.initial_topology, sparsity.initial_linear) == WIDE[method]
    assert (sparsity.linear, sparsity.linear_score) == (0.99, "CH2-L3n")
    assert full.model.hidden == (3072, 3072, 3072)
    assert (full.train.schedule, full.train.weight_decay) == ("linear", 5e-4)
    assert [chosen.method for chosen in full.convert] == ["dcgs", "cs-qcfs"]
    assert (full.quantise.epochs, cpu.quantise.epochs) == (300, 3)
    assert (full.train.epochs, cpu.train.epochs) == (100, 12)
    assert (full.sparsity, full.model) == (cpu.sparsity, cpu.model)


@pytest.mark.slow
def test_print_and_ours_stand_side_by_side(tmp_path):
    rows = ["fashion-mnist/dense", "fashion-mnist/cht-csti", "cifar10/mlp/cht-csti"]
    options = ["--scale", "smoke", "--folder", str(tmp_path), "--row", *rows]
    assert main(["reproduce", "cht-mlp", *options]) == 0
    with (tmp_path / "smoke" / "cht-mlp.csv").open() as lines:
        found = {row["row"]: row for row in csv.DictReader(lines)}
    row = found["fashion-mnist/mlp/cht-csti/dcgs"]
    assert (row["state"], row["ann_accuracy published"]) == ("done", "88.07")
    for quantity in ("ann_accuracy", "mean_epoch_accuracy", "snn_accuracy"):
        assert 0 <= float(row[f"{quantity} measured"]) <= 100
    wide = found["cifar10/mlp/cht-csti/cs-qcfs"]  # before its thresholds were trained, and after
    assert (wide["state"], wide["ann_accuracy published"], wide["timesteps"]) == (
        "done",
        "59.1",
        "16",
    )
    plain = found["cifar10/mlp/cht-csti/dcgs"]
    for quantity in ("ann_accuracy", "snn_accuracy"):
        assert 0 <= float(wide[f"{quantity} measured"]) <= 100
    assert wide["ann_accuracy measured"] == plain["ann_accuracy measured"]
    dense = found["fashion-mnist/mlp/dense/dcgs"]
    assert 0 < float(row["energy_joule measured"]) < float(dense["energy_joule measured"])
    assert found["mnist/mlp/set/dcgs"]["state"] == "not run"

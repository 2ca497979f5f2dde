"""Every published row has a recipe that the paper's settings describe."""

from pathlib import Path

import pytest

from topospike.cli.reproduce import job_of
from topospike.errors import ConfigError
from topospike.pipeline.networks import settings_digest
from topospike.recipe.files import resolve
from topospike.reproduce import SCALES, TARGETS, chosen_rows, experiment

ROWS = [(target, row) for target in TARGETS.values() for row in target.table.rows]


def recipe_of(target, key, scale="full"):
    (row,) = chosen_rows(TARGETS[target], [key])
    return job_of(row, Path(), scale=scale, seed=0).recipe


@pytest.mark.parametrize(
    "scale",
    [pytest.param(name, marks=() if name == "full" else pytest.mark.slow) for name in SCALES],
)
def test_every_row_has_a_recipe_at_every_scale(scale, tmp_path):
    for target, row in ROWS:
        job = job_of(row, tmp_path, scale=scale, seed=0, plan=target.plan)
        asked = [settings.method for settings in job.recipe.convert]
        assert job.experiment.conversion is None or job.experiment.conversion in asked


def test_vgg_16_as_in_appendix_c():
    recipe = recipe_of("table1", "cifar10/vgg16/cht/dcgs")
    train, sparsity = recipe.train, recipe.sparsity
    assert (train.epochs, train.schedule, train.warmup_epochs) == (300, "cosine", 5)
    assert train.weight_decay == 5e-4
    assert (sparsity.initial_conv, sparsity.conv, sparsity.linear) == (0.2, 0.78, 0.99)
    assert (sparsity.decay_k, sparsity.update_interval, sparsity.stop_fraction) == (1.0, 1, 0.75)
    assert (sparsity.linear_score, sparsity.conv_score) == ("CH2-L3n", "CH3-L3n")
    assert recipe.model.dropout == 0.2
    dense = recipe_of("table1", "cifar10/vgg16/dense/dcgs")
    assert dense.model.dropout == 0.5
    assert (dense.dense_twin, dense.sparse_twin) == (True, False)
    steps = {settings.method: settings.timesteps for settings in recipe.convert}
    assert steps == {"dcgs": 8, "cs-qcfs": 16}
    assert (recipe.quantise.epochs, recipe.quantise.channel_epochs) == (300, 100)


def test_depgraph_shares_the_epochs_of_its_neighbours():
    recipe = recipe_of("table1", "cifar10/resnet18/depgraph/dcgs")
    assert recipe.train.epochs == 200
    assert recipe.prune.method == "depgraph"
    assert recipe.prune.fine_tune == pytest.approx(1 / 3)
    assert recipe.prune.fine_tune_rate == 0.1


def test_vit_b_evolves_from_epoch_10_to_60_per_cent_every_5():
    recipe = recipe_of("table4", "cht")
    sparsity, epochs = recipe.sparsity, recipe.train.epochs
    assert sparsity.start_fraction * epochs == pytest.approx(10)
    assert (sparsity.stop_fraction, sparsity.update_interval) == (0.6, 5)
    assert (sparsity.initial_topology, sparsity.linear) == ("brf", 0.7)


def test_one_shot_pruning_starts_from_the_dense_row(tmp_path):
    jobs = {
        row.labels["method"]: job_of(row, tmp_path, scale="cpu", seed=1)
        for row in TARGETS["table4"].table.rows
    }
    for method in ("sparsegpt", "ria-rec", "wanda-rec", "ria", "wanda", "ri", "magnitude"):
        assert jobs[method].source is not None
        assert jobs[method].source.folder == jobs["dense"].folder
        assert jobs[method].recipe.train == jobs["dense"].recipe.train
    assert jobs["cht"].source is None


def test_aligned_sparsities_give_the_published_network_sparsity():
    conv, hidden, classifier = 4_574_592, 32768 * 512, 512
    for table in ("table2", "table3"):
        for row in TARGETS[table].table.rows:
            if row.labels["method"] != "cht":
                continue
            classes = 10 if row.labels["dataset"] == "CIFAR-10" else 100
            changes = experiment(row).changes["sparsity"]
            absent = conv * changes["conv"] + hidden * changes["linear"]
            share = 100 * absent / (conv + hidden + classifier * classes)
            assert share == pytest.approx(row.values["network_sparsity"], abs=0.015)


def test_epochs_of_6conv2fc_leave_room_for_the_thresholds():
    assert recipe_of("table2", "cifar10/dpap/cht/dcgs").train.epochs == 600
    trained = recipe_of("table2", "cifar10/dpap/cht/cs-qcfs")
    assert trained.train.epochs + trained.quantise.epochs + trained.quantise.channel_epochs == 600


def test_tables_share_the_runs_they_can(tmp_path):
    def folders(target, pattern):
        rows = chosen_rows(TARGETS[target], [pattern])
        return {job_of(row, tmp_path, scale="full", seed=0).folder for row in rows}

    vgg = folders("table1", "cifar10/vgg16/cht")
    assert len(vgg) == 1
    assert vgg <= folders("figA1", "cht")
    assert vgg <= folders("tableA4", "cht")
    assert vgg == folders("fig3", "cht") == folders("fig3", "initial")
    assert folders("table3", "35.26") == folders("table2", "cifar10/sd-snn/cht/dcgs")


def test_the_digest_knows_what_a_network_depends_on():
    recipe = resolve("demo", {})
    same = resolve("demo", {"threads": 2, "name": "x", "measure": {"timesteps": 4}})
    other = resolve("demo", {"train": {"epochs": 3}})
    assert settings_digest(recipe) == settings_digest(same) != settings_digest(other)
    dense = {"sparse_twin": False}
    assert settings_digest(resolve("demo", {**dense, "sparsity": {"linear": 0.5}})) == (
        settings_digest(resolve("demo", dense))
    )


def test_a_pattern_without_rows_names_what_there_is():
    with pytest.raises(ConfigError, match=r"no row 'cifar10/vgg19'.*Did you mean 'vgg16'\?"):
        chosen_rows(TARGETS["table1"], ["cifar10/vgg19"])


def test_llama_60m_as_published():
    rows = chosen_rows(TARGETS["llama60m"])
    printed = {(r.labels["method"], r.labels["sparsity"]): r.values["ann_perplexity"] for r in rows}
    assert printed["dense", "0 %"] == 26.56
    assert [printed["chts", f"{s} %"] for s in (90, 80, 70)] == [33.03, 29.84, 28.12]
    recipe = recipe_of("llama60m", "chts/90")
    sparsity, train = recipe.sparsity, recipe.train
    assert (sparsity.rule, sparsity.linear, sparsity.zeta) == ("chts", 0.9, 0.1)
    assert (sparsity.update_unit, sparsity.update_interval) == ("step", 100)
    assert (sparsity.removal, sparsity.removal_exponents) == ("magnitude_soft", (1.0, 9.0))
    contexts = recipe.data.limit_train * (1 - recipe.data.validation_fraction)
    steps = round(contexts / recipe.data.batch_size)
    assert steps == 10_000
    assert (train.warmup_epochs * steps, train.restart_every_epochs * steps) == (1000, 100)
    assert train.restart_warmup_epochs * steps == 10
    assert recipe_of("llama60m", "dense/0").train.restart_every_epochs == 0
    assert recipe_of("llama60m", "chtss/90").sparsity.initial_linear == 0.5
    assert recipe_of("llama60m", "set").sparsity.removal is None

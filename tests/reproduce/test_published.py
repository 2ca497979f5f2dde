"""The published numbers: complete, consistent with the paper's own sentences, and typed."""

import pytest

from topospike.errors import ConfigError
from topospike.reproduce.published import hyperparameters, published, setting

ROWS = {
    "table1": 24,
    "table2": 12,
    "table3": 8,
    "table4": 9,
    "tableA1": 3,
    "tableA2": 4,
    "tableA3": 1,
    "tableA4": 33,
    "fig3": 3,
    "fig4": 12,
    "fig5": 9,
    "figA1": 12,
    "ch-snn": 5,
}


def row(table, key):
    found = [row for row in published(table).rows if row.key == key]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(("name", "count"), ROWS.items())
def test_every_row_is_there_once_with_its_labels(name, count):
    table = published(name)
    assert len(table.rows) == len({row.key for row in table.rows}) == count
    assert all(tuple(row.labels) == table.labels for row in table.rows)


def test_sentences_of_the_paper_follow_from_the_numbers():
    # section 4.5: 80.53 % and 29.07 mJ against 73.06 mJ
    sparse = row("table4", "imagenet/vit-b/cht/dcgs")
    assert sparse.values["snn_accuracy"] == pytest.approx(80.53)
    assert sparse.values["energy_joule"] == pytest.approx(29.07e-3, rel=1e-3)
    # section 4.4: 1.16 points above SD-SNN, 42.13 % below DPAP's energy
    values = [r.values for r in published("table2").rows]
    best = next(v for v in values if v["snn_accuracy"] == 76.02)
    dpap = next(v for v in values if v["snn_accuracy"] == 74.50)
    same = next(v for v in values if v["snn_accuracy"] == 75.35)
    assert best["snn_accuracy"] - 74.86 == pytest.approx(1.16)
    assert 1 - same["energy_joule"] / dpap["energy_joule"] == pytest.approx(0.4213, abs=1e-4)
    # section 4.4: 29 % less energy at 90 % than at 35 %
    levels = {r.labels["sparsity"]: r.values["energy_joule"] for r in published("table3").rows}
    assert 1 - levels["90.62 %"] / levels["35.26 %"] == pytest.approx(0.29, abs=0.005)


def test_seven_of_eight_reductions_exceed_sixty_per_cent():
    """Section 4.3 says so of CHT in table 1."""
    reductions = [
        r.values["energy_reduction_percent"]
        for r in published("table1").rows
        if r.labels["method"] == "cht"
    ]
    assert len(reductions) == 8
    assert sum(value > 60 for value in reductions) == 7


def test_relative_rows_have_absolute_values_and_printed_ones_stay():
    sparse = row("table1", "cifar10/resnet18/cht/dcgs")
    assert sparse.values["snn_accuracy_delta"] == 0.12
    assert sparse.values["snn_accuracy"] == pytest.approx(95.26)
    assert sparse.values["energy_joule"] == pytest.approx(289.44e-6 * (1 - 0.5904))
    dense = row("table1", "cifar10/resnet18/dense/dcgs")
    assert "snn_accuracy_delta" not in dense.values


def test_rows_cannot_be_changed():
    with pytest.raises(TypeError):
        published("table1").rows[0].values["ann_accuracy"] = 100.0  # pyright: ignore


def test_settings_and_hyperparameters():
    assert setting("linear_sparsity_percent") == 99
    assert hyperparameters("tableA1", "ResNet-18")["milestones"] == [60, 120, 160]
    assert hyperparameters("tableA3", "cs-qcfs")["train_epochs"] == 300


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: published("table5"), "unknown published table or figure 'table5'"),
        (lambda: setting("dropout"), "unknown published setting 'dropout'"),
        (lambda: hyperparameters("tableA1", "VGG-19"), "Did you mean 'VGG-16'?"),
    ],
)
def test_unknown_names_are_told_with_the_known_ones(call, message):
    with pytest.raises(ConfigError) as error:
        call()
    assert message in str(error.value)

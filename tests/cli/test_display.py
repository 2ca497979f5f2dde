"""Tables: the numbers of the rows, in the reader's units."""

import io

import pytest
from rich.console import Console

from topospike.cli.display import results_table, show_text
from topospike.progress import watched
from topospike.report.folder import SummaryRow


def row(**changes):
    values = {
        "network": "chts",
        "method": "dcgs",
        "ann_accuracy": 0.99,
        "snn_accuracy": 0.985,
        "timesteps": 8,
        "energy_joule": 4.2e-7,
        "energy_ratio": 0.625,
        "ann_energy_joule": 2e-6,
        "saturation_time": 7,
        "sparsity": 0.84,
    }
    return SummaryRow(**{**values, **changes})


def text(rows):
    console = Console(file=io.StringIO(), width=120)
    console.print(results_table(rows))
    return " ".join(console.file.getvalue().replace("\N{NARROW NO-BREAK SPACE}", " ").split())


def test_one_step_for_all_rows_stands_in_the_head():
    expected = (
        "network conversion sparsity ANN SNN T=8 energy T=8 ratio to dense T0 "
        "CHTs DCGS 84.0 % 99.00 % 98.50 % 420 nJ 0.625 7"
    )
    assert text([row()]) == expected


def test_different_steps_stand_in_the_rows():
    shown = text([row(), row(method="qcfs", timesteps=4)])
    assert "SNN energy ratio" in shown
    assert "98.50 % (T=8)" in shown
    assert "98.50 % (T=4)" in shown


@pytest.mark.parametrize("missing", ["energy_ratio", "saturation_time"])
def test_what_is_unknown_is_a_dash(missing):
    assert " - " in text([row(**{missing: None})]) + " "


def test_watching_changes_nothing():
    assert list(watched([1, 2, 3], "numbers")) == [1, 2, 3]


def test_a_text_made_of_what_files_hold_does_not_fill_the_screen(capsys):
    show_text("a" * 10**6 + "\n" * 10**5)
    shown = capsys.readouterr().out
    assert len(shown) < 5000
    assert "(1000000 characters)" in shown
    assert shown.endswith("more lines)\n")
    show_text("two\n  lines")
    assert capsys.readouterr().out == "two\n  lines\n"

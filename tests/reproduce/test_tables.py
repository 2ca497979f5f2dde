"""Tables of ours beside the published ones, from outcomes made by hand."""

import csv
import io
import re

import pytest

from topospike.report.units import NO_VALUE
from topospike.reproduce import TARGETS, Outcome, compare, write_comparison
from topospike.reproduce.outcomes import DONE, FAILED, NOT_RUN
from topospike.reproduce.render import comma_separated, markdown

TARGET = TARGETS["table4"]
ROWS = TARGET.table.rows


def done(seed, accuracy, energy):
    values = {"ann_accuracy": accuracy + 1, "snn_accuracy": accuracy, "energy_joule": energy}
    around = {"seed": seed, "data": "tiny <b>", "epochs": 3, "hardware": "a|b", "seconds": 2.5}
    return Outcome(DONE, values=values, circumstances=around)


@pytest.fixture
def lines():
    outcomes = {row.key: [Outcome(NOT_RUN)] * 2 for row in ROWS}
    outcomes["imagenet/vit-b/dense/dcgs"] = [done(0, 80.0, 0.1), done(1, 82.0, 0.1)]
    outcomes["imagenet/vit-b/cht/dcgs"] = [done(0, 79.0, 0.04), done(1, 80.0, 0.05)]
    outcomes["imagenet/vit-b/ria/dcgs"] = [
        Outcome(FAILED, "NonFiniteError: <loss>"),
        done(1, 50, 1),
    ]
    outcomes["imagenet/vit-b/ri/dcgs"] = [Outcome(FAILED, "NonFiniteError: <loss>")] * 2
    return compare(outcomes, ROWS, TARGET.quantities)


def test_differences_from_dense_are_taken_seed_by_seed(lines):
    cells = lines[1].cells
    assert cells["snn_accuracy_delta"].measured == pytest.approx(-1.5)
    assert cells["snn_accuracy_delta"].spread == pytest.approx(0.5**0.5)
    assert cells["energy_reduction_percent"].measured == pytest.approx(55.0)
    assert cells["snn_accuracy_delta"].difference == pytest.approx(-1.5 + 0.92)
    assert lines[0].cells["snn_accuracy_delta"].measured is None


def test_what_was_not_run_has_no_number(lines):
    by_method = {line.row.labels["method"]: line for line in lines}
    assert by_method["wanda"].state == "not run"
    assert all(cell.measured is None for cell in by_method["wanda"].cells.values())
    assert by_method["ria"].state == "done (1 of 2 seeds)"
    assert by_method["ri"].state == "failed: NonFiniteError: <loss>"
    assert by_method["ri"].cells["ann_accuracy"].published == 36.18


def test_markdown_has_every_row_and_says_what_was_run(lines):
    text = markdown(TARGET, lines, scale="full")
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(ROWS)
    # a bar inside a cell is escaped, so each line has as many cells as the head
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    assert "3 of 9 rows were run, at scale full" in text
    assert "| 81.45 | 81.00 ± 1.41 | -0.45 |" in text


def test_levels_are_not_compared_below_full_scale(lines):
    text = markdown(TARGET, lines, scale="cpu")
    assert f"| 81.45 | 81.00 ± 1.41 | {NO_VALUE} |" in text
    assert "| -0.92 | -1.50 ± 0.71 | -0.58 |" in text


def test_csv_has_all_digits(lines):
    rows = list(csv.DictReader(io.StringIO(comma_separated(TARGET, lines, scale="cpu"))))
    assert len(rows) == len(ROWS)
    assert float(rows[1]["energy_joule measured"]) == pytest.approx(0.045)
    assert rows[1]["seeds"] == "0, 1"
    assert rows[2]["ann_accuracy measured"] == ""
    assert {row["scale"] for row in rows} == {"cpu"}


def test_the_page_escapes_and_needs_no_network(lines, tmp_path):
    drawing = tmp_path / "curve.svg"
    drawing.write_text('<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"></svg>')
    paths = write_comparison(TARGET, lines, tmp_path, scale="full", drawings=[drawing])
    assert [path.suffix for path in paths] == [".md", ".csv", ".html"]
    page = paths[2].read_text()
    assert "tiny &lt;b&gt;" in page
    assert "<loss>" not in page
    assert "<svg xmlns" in page
    assert "<?xml" not in page
    assert not re.search(r"(src|href)\s*=\s*[\"']https?:", page)
    assert page.count("<tr") == 2 + len(ROWS)

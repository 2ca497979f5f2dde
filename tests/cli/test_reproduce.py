"""``topospike reproduce`` on embedded data: every row of every target, failures, reuse."""

import json
from itertools import pairwise

import pytest

from topospike.cli.main import main
from topospike.reproduce import TARGETS
from topospike.reproduce.published import PAPER

ROW = ["--row", "cifar10/90.62"]


def reproduce(target, folder, *options):
    return main(["reproduce", target, "--scale", "smoke", "--folder", str(folder), *options])


@pytest.fixture(scope="module")
def one_row(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    assert reproduce("table3", folder, *ROW) == 0
    return folder


def test_one_row_leaves_tables_records_and_an_ordinary_run(one_row):
    folder = one_row / "smoke"
    text = (folder / "table3.md").read_text()
    assert "1 of 8 rows were run, at scale smoke" in text
    assert text.count("not run") == 7
    (run,) = (folder / "runs").iterdir()
    assert run.name.startswith("digits-conv6fc2-cht-90.62-seed0-")
    record = folder / "records" / run.name
    assert (record / "record.json").is_file()
    evaluation = json.loads((record / "conversions/dcgs/evaluation.json").read_text())
    row = next(line for line in text.splitlines() if "| 90.62 % |" in line and "done" in line)
    assert f"{100 * evaluation['accuracy'][7]:.2f}" in row


def test_what_is_done_is_kept_and_tables_alone_train_nothing(one_row):
    models = list(one_row.rglob("model.safetensors"))
    before = [path.stat().st_mtime_ns for path in models]
    assert reproduce("table3", one_row, *ROW) == 0
    assert reproduce("table2", one_row, "--table_only") == 0
    assert [path.stat().st_mtime_ns for path in one_row.rglob("model.safetensors")] == before
    assert "0 of 12 rows were run" in (one_row / "smoke" / "table2.md").read_text()


def test_a_row_that_fails_is_shown_with_its_error(tmp_path, monkeypatch, capsys):
    def broken(run, network):
        raise ZeroDivisionError("no such luck")

    monkeypatch.setattr("topospike.cli.reproduce.make_network", broken)
    assert reproduce("table3", tmp_path, *ROW) == 2
    assert "1 rows failed" in capsys.readouterr().err
    text = (tmp_path / "smoke" / "table3.md").read_text()
    assert "failed: ZeroDivisionError: no such luck" in text


def test_a_row_without_its_data_is_not_run_and_says_why(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("TOPOSPIKE_DATA", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code = main(["reproduce", "table3", "--folder", str(tmp_path), "--row", "cifar100/90.42"])
    assert code == 2
    assert "1 rows failed: cifar100/conv6fc2/cht/dcgs/90.42" in capsys.readouterr().err
    text = (tmp_path / "cpu" / "table3.md").read_text()
    assert "not run: MissingDataError" in text
    assert "uoft-cs/cifar100" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table7"], "unknown target 'table7'"),
        (["table1", "--scale", "huge"], "unknown scale 'huge'. Known: cpu, full, smoke"),
        (["table1", "--row", "vgg19"], "Did you mean 'vgg16'?"),
    ],
)
def test_impossible_requests(arguments, message, tmp_path, capsys):
    assert main(["reproduce", *arguments, "--folder", str(tmp_path / "none")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_every_row_of_every_target_runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("all")
    assert reproduce("all", folder) == 0
    for name, target in TARGETS.items():
        if target.table.source != PAPER:
            continue
        text = (folder / "smoke" / f"{name}.md").read_text()
        assert f"{len(target.table.rows)} of {len(target.table.rows)} rows were run" in text
        assert "failed" not in text
    for figure in ("figA1-cifar10-vgg16-dcgs", "fig5-imagenet-vit-b-dcgs", "fig3-cht"):
        assert (folder / "smoke" / f"{figure}.svg").stat().st_size > 1000


@pytest.mark.slow
def test_the_rows_of_a_language_model_run(tmp_path):
    assert reproduce("llama60m", tmp_path) == 0
    assert "8 of 8 rows were run" in (tmp_path / "smoke" / "llama60m.md").read_text()


ASKED = ["dcgs", "cs-qcfs", "sigma-delta", "phase", "slip-relu"]


@pytest.fixture(scope="module")
def methods(tmp_path_factory, original_run):
    """Files of the run before and after, the folder of the tables, and what was printed."""
    folder = tmp_path_factory.mktemp("methods")
    before = contents_of(original_run)
    assert reproduce_methods(folder, str(original_run), "--methods", *ASKED) == 0
    assert contents_of(original_run) == before
    return folder / "methods"


def reproduce_methods(folder, *options):
    return main(["reproduce", "methods", *options, "--folder", str(folder)])


def contents_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_method_has_a_line_for_every_network(methods):
    rows = json.loads((methods / "methods.json").read_text())
    networks = {row["network"] for row in rows}
    assert networks == {"dense", "chts"}
    per_network = [[r["method"] for r in rows if r["network"] == name] for name in networks]
    assert per_network == [ASKED] * 2
    lines = (methods / "methods.md").read_text().splitlines()
    assert sum(line.startswith("| tiny ") for line in lines) == len(rows)


def test_methods_are_measured_on_the_same_images_and_counts(methods, original_run):
    rows = json.loads((methods / "methods.json").read_text())
    for name in ("dense", "chts"):
        done = [row for row in rows if row["network"] == name and row["skipped"] is None]
        assert {row["images"] for row in done} == {60}
        assert len({(row["ann_accuracy"], row["ann_energy_joule"]) for row in done}) == 1
        assert {len(row["accuracy"]) for row in done} == {32}
    # the run has measured DCGS itself, with the same settings but a shorter run length
    evaluation = json.loads((original_run / "dense/evaluation.json").read_text())
    assert rows[0]["ann_energy_joule"] == pytest.approx(evaluation["ann_energy_joule"])
    assert rows[0]["ann_accuracy"] == evaluation["ann_accuracy"]


def test_an_event_may_cost_its_bits(methods):
    rows = json.loads((methods / "methods.json").read_text())
    for row in (row for row in rows if row["skipped"] is None):
        plain, bits = row["energy_joule"], row["bit_energy_joule"]
        if row["method"] in ("cs-qcfs", "phase"):
            assert row["bits"] == 1
            assert bits == plain
        else:
            # MACs of the first layer cost what they did; every accumulate costs its bits
            more = [after - before for before, after in pairwise(bits)]
            less = [after - before for before, after in pairwise(plain)]
            assert more == pytest.approx([row["bits"] * step for step in less], abs=1e-18)


def test_a_method_of_a_fixed_length_is_converted_for_each(methods):
    rows = json.loads((methods / "methods.json").read_text())
    for row in (row for row in rows if row["method"] == "phase"):
        known = [t for t, value in enumerate(row["accuracy"], start=1) if value is not None]
        assert known == [1, 2, 4, 8]  # no more digits than 15
        assert [t for t, value in enumerate(row["energy_joule"], start=1) if value] == known
        assert row["accuracy"][7] == pytest.approx(row["ann_accuracy"], abs=0.05)
        assert row["levels"] == 255
    text = (methods / "methods.md").read_text()
    assert "converted for each T" in text


def test_only_networks_that_fall_silent_have_steps_until_silence(methods):
    for row in json.loads((methods / "methods.json").read_text()):
        if row["method"] == "sigma-delta":
            assert 1 < row["steps_until_silence"] <= row["last_step_until_silence"]
            assert 0 < row["silent"] <= 1
        else:
            assert row["steps_until_silence"] is None


def test_what_cannot_be_converted_is_named_with_its_reason(methods):
    text = (methods / "methods.md").read_text()
    rows = json.loads((methods / "methods.json").read_text())
    for row in (row for row in rows if row["method"] == "slip-relu"):
        assert "slip-relu" in row["skipped"]
        assert f"skipped: {row['skipped']}" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["methods", "--methods", "sigma-dleta"], "Did you mean 'sigma-delta'?"),
        (["methods", "--row", "vgg16"], "reproduce methods has no 'row'"),
        (["table1", "--images", "8"], "reproduce table1 has no 'images'"),
        (["methods", "nowhere"], "nowhere"),
    ],
)
def test_impossible_requests_about_methods(arguments, message, tmp_path, capsys):
    assert main(["reproduce", *arguments, "--folder", str(tmp_path / "none")]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_methods_without_a_folder_are_compared_on_the_demo(tmp_path):
    assert reproduce_methods(tmp_path, "--images", "60", "--methods", "sigma-delta") == 0
    (run,) = (tmp_path / "methods" / "runs").iterdir()
    assert run.name.startswith("demo-seed0-")

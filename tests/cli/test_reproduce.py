"""``topospike reproduce`` on embedded data: every row of every target, failures, reuse."""

import json

import pytest

from topospike.cli.main import main
from topospike.reproduce import TARGETS

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


def test_a_row_that_fails_is_shown_and_the_others_run(one_row, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("TOPOSPIKE_DATA", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code = main(["reproduce", "table3", "--folder", str(tmp_path), "--row", "cifar100/90.42"])
    assert code == 2
    assert "1 rows failed: cifar100/conv6fc2/cht/dcgs/90.42" in capsys.readouterr().err
    text = (tmp_path / "cpu" / "table3.md").read_text()
    assert "failed: MissingDataError" in text
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
        text = (folder / "smoke" / f"{name}.md").read_text()
        assert f"{len(target.table.rows)} of {len(target.table.rows)} rows were run" in text
        assert "failed" not in text
    for figure in ("figA1-cifar10-vgg16-dcgs", "fig5-imagenet-vit-b-dcgs", "fig3-cht"):
        assert (folder / "smoke" / f"{figure}.svg").stat().st_size > 1000

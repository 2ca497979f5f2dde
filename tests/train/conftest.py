import importlib.util
import json
from pathlib import Path

import pytest

TOY = Path(__file__).with_name("toy_run.py")


@pytest.fixture(scope="session")
def toy():
    """The small complete run, as a module."""
    spec = importlib.util.spec_from_file_location("toy_run", TOY)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def uninterrupted(toy, tmp_path_factory):
    """(model, controller, result) of the toy run, trained in one go. Not to be changed."""
    return toy.run(tmp_path_factory.mktemp("uninterrupted"))


@pytest.fixture(scope="session")
def read_metrics():
    """Lines of metrics.jsonl without the wall-clock times."""

    def read(folder):
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]

    return read

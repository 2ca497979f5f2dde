"""Importing the package is cheap, help answers without torch, and the public names are there.

Seconds are of processor time, so that other work on the machine does not count.
"""

import json
import resource
import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "scipy", "igraph", "sklearn", "datasets", "matplotlib", "plotly")
# Slow at import and needed by few calls: whoever uses one imports it where it is used.
SELDOM = ("datasets", "kornia", "sklearn", "matplotlib", "plotly", "igraph", "transformers")

USE_EVERY_NAME = f"""
import json, sys, time, torch
start = time.process_time()
import topospike as ts
objects = [getattr(ts, name) for name in ts.__all__]
seconds = time.process_time() - start
listed = set(ts.__all__) <= set(dir(ts)) and set(ts.HOMES) < set(ts.__all__)
seldom = sorted(set({SELDOM}) & set(sys.modules))
print(json.dumps({{"seconds": seconds, "listed": listed, "seldom": seldom}}))
"""

CALL_EITHER_WAY = """
import inspect
import topospike as ts
from topospike.analyse import power_law
import topospike.convert.api
assert inspect.signature(ts.convert) == inspect.signature(topospike.convert.api.convert)
assert ts.convert.METHODS and ts.analyse.power_law is power_law
from topospike import analyse
assert callable(analyse) and analyse([[[True, False], [True, True]]], nulls=0).graph.links == 3
"""


def run_python(code: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.parametrize(
    "statement",
    [
        "import topospike",
        "from topospike.cli.arguments import build_parser; build_parser().format_help()",
    ],
)
def test_import_and_help_load_nothing_heavy(statement):
    code = (
        f"{statement}\nimport json, sys\nprint(json.dumps(sorted(set({HEAVY}) & set(sys.modules))))"
    )
    assert json.loads(run_python(code)) == []


def test_every_public_name_costs_under_half_a_second_beyond_torch():
    tries = [json.loads(run_python(USE_EVERY_NAME)) for _ in range(2)]
    assert tries[0]["listed"]
    assert tries[0]["seldom"] == []
    assert min(entry["seconds"] for entry in tries) < 0.5


def test_stages_named_like_their_function_are_packages_and_can_be_called():
    run_python(CALL_EITHER_WAY)


def test_an_unknown_name_is_an_attribute_error():
    import topospike

    with pytest.raises(AttributeError, match="has no attribute 'konvert'"):
        _ = topospike.konvert


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"]])
def test_help_answers_within_a_second(arguments):
    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "topospike", *arguments]
        finished = subprocess.run(command, capture_output=True, check=True, timeout=60)
        assert finished.stdout.startswith(b"usage: topospike")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(3)) < 1.0

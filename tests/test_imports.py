"""What is loaded when: by the import, by help, by every public name.

Seconds are not asserted here: ``benchmarks/startup.py`` measures them.
"""

import inspect
import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "scipy", "igraph", "sklearn", "datasets", "matplotlib", "plotly")
# All that the public names load beside torch and what torch loads: whoever needs another package
# (scipy, numba, igraph, datasets, ...) imports it in the call that uses it.
BESIDE_TORCH = ["jaxtyping", "msgspec", "safetensors", "topospike"]

USE_EVERY_NAME = """
import json, sys, torch
before = {name.partition(".")[0] for name in sys.modules} | set(sys.stdlib_module_names)
import topospike as ts
objects = [getattr(ts, name) for name in ts.__all__]
listed = set(ts.__all__) <= set(dir(ts)) and set(ts.HOMES) == set(ts.__all__)
packages = sorted({name.partition(".")[0] for name in sys.modules} - before)
print(json.dumps({"listed": listed, "packages": packages}))
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


def test_every_public_name_loads_three_packages_beside_torch():
    assert json.loads(run_python(USE_EVERY_NAME)) == {"listed": True, "packages": BESIDE_TORCH}


def test_public_functions_share_no_name_with_a_package():
    import topospike as ts

    assert all(f"topospike.{name}" not in sys.modules for name in ts.HOMES)
    assert all(inspect.isfunction(function) for function in (ts.convert, ts.analyse, ts.prune))


def test_an_unknown_name_is_an_attribute_error():
    import topospike

    with pytest.raises(AttributeError, match="has no attribute 'konvert'"):
        _ = topospike.konvert


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"]])
def test_help_answers_without_torch(arguments):
    code = f"""
import runpy, sys
sys.argv = ["topospike", *{arguments}]
try:
    runpy.run_module("topospike", run_name="__main__")
except SystemExit as end:
    heavy = set({HEAVY}) & set(sys.modules)
    sys.exit(f"loaded {{heavy}}" if heavy else end.code)
"""
    assert run_python(code).startswith("usage: topospike")

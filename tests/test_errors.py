"""A missing package is told with the words that install it."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from topospike.errors import INSTALL, MissingDependencyError, require

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
# Where a package is not imported by the name it is installed by.
DISTRIBUTIONS = {"yaml": "pyyaml", "PIL": "pillow", "sklearn": "scikit-learn"}
# chip is GPL-3, and for those who ask for it
FOR_USERS = set(PROJECT["optional-dependencies"]) - {"all", "dev", "docs", "chip"}


def names(requirements):
    return {re.split(r"[^\w.-]", requirement)[0] for requirement in requirements}


def test_a_missing_package_is_told_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "igraph", None)
    with pytest.raises(MissingDependencyError, match=re.escape("'topospike[analysis]'")):
        require("numpy", "igraph", purpose="this test")


@pytest.mark.parametrize("package", sorted(INSTALL.keys() - {"neurobench", "snntorch"}))
def test_the_named_extra_brings_the_package(package):
    extra = re.search(r"\[(\w+)\]", INSTALL[package])[1]
    distribution = DISTRIBUTIONS.get(package, package.replace("_", "-"))
    assert distribution in names(PROJECT["optional-dependencies"][extra])


def test_all_brings_every_extra_for_users():
    (everything,) = PROJECT["optional-dependencies"]["all"]
    assert set(re.search(r"\[(.*)\]", everything)[1].split(",")) == FOR_USERS


def test_the_library_alone_is_what_a_loop_of_ones_own_needs():
    assert names(PROJECT["dependencies"]) == {
        "torch",
        "numpy",
        "scipy",
        "numba",
        "safetensors",
        "jaxtyping",
        "msgspec",
    }


def test_the_command_line_names_its_extra():
    code = (
        "import sys; sys.modules['jsonargparse'] = None\n"
        "from topospike.cli.main import main\nsys.exit(main(['demo']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("error: the command line needs the package jsonargparse")
    assert "topospike[cli]" in done.stderr

"""Run the tests with every function of the library checking its annotations: shapes and types.

``pytest -p tests.typechecks`` (`make test-all`): jaxtyping and beartype look at what goes into
and comes out of each call. What a test hands over inside ``pytest.raises`` is wrong on purpose:
nothing is checked there, so that the library's own error is seen. Nor is anything while torch.fx
traces a network: it is run with proxies in place of tensors.
"""

import functools
import random
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder
from unittest.mock import patch

import jaxtyping
import pytest
import torch.fx

# Of a sequence, beartype looks at one item, drawn by a generator of its own here: the global one
# stays as it is, which tests rely on and Hypothesis insists on.
with patch("random.getrandbits", random.Random(0).getrandbits):
    from beartype import BeartypeConf, beartype
    from beartype.roar import BeartypeDecorHintPep673Exception

decorate = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as for Pyright
# numba compiles these functions, and nothing around them.
COMPILED = ("topospike.snn.kernels", "topospike.snn.executors.event_kernels")


def checked(function: Callable) -> Callable:
    """Check what goes in and out of a function; ``Self`` has no meaning outside a class."""
    try:
        return decorate(function)
    except BeartypeDecorHintPep673Exception:
        return function


class Unchecked:
    """Finds the modules that are left as they are."""

    @staticmethod
    def find_spec(name: str, path=None, target=None) -> ModuleSpec | None:
        return PathFinder.find_spec(name, path, target) if name in COMPILED else None


def unchecked(function: Callable) -> Callable:
    """Check nothing while a function runs."""

    @functools.wraps(function)
    def run(*given, **named):
        before = jaxtyping.config.jaxtyping_disable
        jaxtyping.config.update("jaxtyping_disable", True)
        try:
            return function(*given, **named)
        finally:
            jaxtyping.config.update("jaxtyping_disable", before)

    return run


def pytest_configure():
    """Check whatever of the library is imported from here on, unless an error is expected."""
    jaxtyping.install_import_hook("topospike", "tests.typechecks.checked")
    sys.meta_path.insert(0, Unchecked)
    enter, leave = pytest.RaisesExc.__enter__, pytest.RaisesExc.__exit__

    def enter_unchecked(context):
        jaxtyping.config.update("jaxtyping_disable", True)
        return enter(context)

    def leave_checked(context, *error):
        jaxtyping.config.update("jaxtyping_disable", False)
        return leave(context, *error)

    pytest.RaisesExc.__enter__, pytest.RaisesExc.__exit__ = enter_unchecked, leave_checked
    torch.fx.Tracer.trace = unchecked(torch.fx.Tracer.trace)

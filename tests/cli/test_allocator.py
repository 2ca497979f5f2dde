"""Freed memory stays with the process, unless the user wants otherwise."""

import subprocess
import sys

import pytest

from topospike.cli.main import GLIBC_VARIABLES, keep_freed_memory

FAULTS = """
import resource
from topospike.cli.main import keep_freed_memory
kept = {keep} and keep_freed_memory()
import torch
for _ in range(30):
    torch.ones(12_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(12_000_000)
print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(monkeypatch, *, keep: bool) -> tuple[bool, int]:
    for name in GLIBC_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    run = [sys.executable, "-c", FAULTS.format(keep=keep)]
    kept, faults = subprocess.run(run, capture_output=True, text=True, check=True).stdout.split()
    return kept == "1", int(faults)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the C library of Linux is asked")
def test_the_same_memory_is_used_again(monkeypatch):
    kept, faults = page_faults(monkeypatch, keep=True)
    if not kept:
        pytest.skip("another C library than glibc")
    _, faults_without = page_faults(monkeypatch, keep=False)
    assert faults < faults_without / 10


@pytest.mark.parametrize("name", GLIBC_VARIABLES)
def test_the_users_own_setting_stays(monkeypatch, name):
    monkeypatch.setenv(name, "1")
    assert not keep_freed_memory()

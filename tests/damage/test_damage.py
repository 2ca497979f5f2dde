"""Some of the cases of `driver.py`, in a process whose memory is limited."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

DRIVER = Path(__file__).parent / "driver.py"


@pytest.mark.slow
def test_no_damaged_file_is_shown_as_if_it_were_whole_or_ends_in_a_traceback():
    command = [sys.executable, str(DRIVER), "--cases", "16"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["bad"] == []
    assert sum(result["ends"].values()) > 10

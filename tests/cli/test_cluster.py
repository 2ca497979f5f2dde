"""Ray that cannot be reached or started."""

import socket
import subprocess
import sys

import pytest

from topospike.cli.main import main
from topospike.cli.sweep import reach
from topospike.errors import TopospikeError


@pytest.fixture
def closed_port():
    """A port at which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def sweep(address, folder):
    space = ["--space", "seed=0,1", "--folder", str(folder)]
    return main(["sweep", "demo", *space, "--address", address])


def test_an_address_at_which_nothing_answers_is_refused_at_once(closed_port, tmp_path, capsys):
    assert sweep(f"127.0.0.1:{closed_port}", tmp_path) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert f"--address is '127.0.0.1:{closed_port}', where no Ray cluster can be used" in message
    assert "refused" in message
    assert "HOST:PORT of a head node started by `ray start --head` is required" in message
    assert not list(tmp_path.glob("*/record.json"))


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:99999", "auto"])
def test_an_address_that_is_none_is_refused(address, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))  # where 'auto' looks for a running Ray
    assert sweep(address, tmp_path / "runs") == 2
    assert f"--address is '{address}'" in capsys.readouterr().err


def test_the_host_and_port_of_an_address_are_tried():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}", "auto", "local"):
            reach(address)
    with pytest.raises(ConnectionRefusedError):
        reach(f"ray://127.0.0.1:{port}")


@pytest.mark.slow
def test_a_machine_that_cannot_start_ray_is_told_what_to_do(tmp_path):
    """Ray keeps its sockets in its temporary folder, which cannot be a file."""
    blocked = tmp_path / "file"
    blocked.touch()
    code = (
        "from topospike.cli.sweep import start_ray\n"
        f"from {TopospikeError.__module__} import TopospikeError\n"
        "try:\n    start_ray(None)\n"
        "except TopospikeError as error:\n    print(type(error).__name__, error)\n"
    )
    environment = {"RAY_TMPDIR": str(blocked), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert result.stdout.startswith("TopospikeError Ray could not start on this machine"), result
    assert "RAY_TMPDIR" in result.stdout

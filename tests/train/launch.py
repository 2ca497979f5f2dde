"""Start several processes as torchrun does, with a deadline, and leave none behind."""

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

DEADLINE = 120  # seconds


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def environment(**variables):
    quiet = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONWARNINGS": "default"}
    return {**os.environ, **quiet, **{name: str(value) for name, value in variables.items()}}


@contextmanager
def killed_at_the_end(processes):
    try:
        yield processes
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait(10)


def pair(script, *arguments):
    """Run a script in two processes; fails with their output unless both end well in time."""
    port = free_port()
    started = [
        subprocess.Popen(
            [sys.executable, script, *map(str, arguments)],
            env=environment(RANK=rank, WORLD_SIZE=2, MASTER_ADDR="127.0.0.1", MASTER_PORT=port),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    end = time.monotonic() + DEADLINE
    with killed_at_the_end(started):
        while any(process.poll() is None for process in started):
            failed = [process for process in started if process.poll()]
            if failed or time.monotonic() > end:
                break
            time.sleep(0.05)
    outputs = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], "\n".join(outputs)


def torchrun(*arguments):
    """Start ``torchrun --nproc-per-node 2 -m topospike ARGUMENTS``; the caller ends it."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-port", str(free_port()), "-m", "topospike", *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )

"""Command line: Ray for a sweep, started on this machine or found on a cluster.

An address at which nothing answers is refused within seconds; Ray itself would try for minutes.
"""

from __future__ import annotations

import logging
import os
import socket

from topospike.errors import ConfigError, TopospikeError, require

REACH_SECONDS = 5.0
# What Ray's own start raises, besides its RayError, for an address or a machine it cannot use.
START_ERRORS = (OSError, RuntimeError, ValueError, OverflowError)


def start(address: str | None) -> None:
    """Connect to a cluster, or start Ray on this machine, without its dashboard and its log.

    Raises
    ------
    ConfigError
        No cluster answers at the address.
    TopospikeError
        Ray cannot be started here.
    MissingDependencyError
        Ray is not installed.
    """
    require("ray", "optuna", purpose="topospike sweep")
    import ray
    from ray.exceptions import RayError

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    try:
        if address is not None:
            reach(address)
        ray.init(
            address=address,
            include_dashboard=False if address is None else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (*START_ERRORS, RayError) as error:
        ray.shutdown()
        raise cannot_start(address, error) from error


def reach(address: str) -> None:
    """Open and close a connection to the host and port of an address, if it has them."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_SECONDS).close()


def cannot_start(address: str | None, error: Exception) -> TopospikeError:
    """Return the error for a Ray that did not start, with Ray's reason on one line."""
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    if address is None:
        return TopospikeError(
            f"Ray could not start on this machine ({reason}). It needs free processors, memory "
            "and space in its temporary folder; free some, set RAY_TMPDIR to another folder, or "
            "name a running cluster by --address."
        )
    return ConfigError(
        f"--address is {address!r}, where no Ray cluster can be used ({reason}). HOST:PORT of a "
        "head node started by `ray start --head` is required, or 'auto' on one of its machines; "
        "leave --address out to start Ray on this machine."
    )

"""Simulate: which executor, where nobody has said: the fastest one that keeps to a tolerance.

Every executor runs a few images once, and is timed on a second run. What cannot run the network, or
moves its outputs too far from those of ``decoded``, is out, with the reason. The answer depends on
the machine and its load; it is kept with the network and says what it rests on.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from topospike.errors import ConfigError
from topospike.models.inputs import Inputs, rows_of
from topospike.snn.executors.program import EXECUTORS, Executor
from topospike.snn.frames import tensors_of

if TYPE_CHECKING:
    from topospike.snn.network import SpikingNetwork

TOLERANCE = 0.01
"""Largest distance of the outputs from those of ``decoded``, as a share of their norm."""

IMAGES = 16
"""Images that are tried at most."""


@dataclass(frozen=True, slots=True)
class ExecutorChoice:
    """The executor that was chosen, and why.

    Attributes
    ----------
    executor : str
        The fastest one that keeps to the tolerance.
    tolerance : float
        What was asked for.
    images, timesteps : int
        What was run.
    seconds, distance : mapping of str to float
        Of every executor that could run: its time, and the norm of its logits at the last step less
        those of ``decoded``, over the norm of these.
    refused : mapping of str to str
        Why the others could not.
    """

    executor: str
    tolerance: float
    images: int
    timesteps: int
    seconds: Mapping[str, float]
    distance: Mapping[str, float]
    refused: Mapping[str, str]

    def text(self) -> str:
        """Return it in a sentence."""
        tried = ", ".join(
            f"{name} {seconds * 1e3:.3g} ms ({self.distance[name]:.2g} away)"
            for name, seconds in self.seconds.items()
        )
        return (
            f"executor {self.executor}: the fastest within {self.tolerance:.2g} of decoded on "
            f"{self.images} images and {self.timesteps} steps ({tried})"
        )


@torch.no_grad()
def choose_executor(
    snn: SpikingNetwork, images: Inputs, timesteps: int, *, tolerance: float = TOLERANCE
) -> ExecutorChoice:
    """Try every executor on a few images and choose.

    Parameters
    ----------
    snn
        The network; its ``executor`` is not changed.
    images
        Images to try; the first 16 are taken.
    timesteps
        Length of the runs.
    tolerance
        Relative distance of the logits that is allowed.

    Raises
    ------
    ConfigError
        If the tolerance is negative, or ``timesteps`` is below 1.

    Examples
    --------
    >>> import topospike as ts
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> x = torch.rand(5, 4)
    >>> snn = ts.convert(model, calibration=[x])
    >>> choice = choose_executor(snn, x, 4)
    >>> choice.distance["event"] < 1e-4, choice.executor in choice.seconds
    (True, True)
    """
    if not tolerance >= 0:
        raise ConfigError(f"tolerance is {tolerance}; a number from 0 is required.")
    shown = tensors_of(snn.inputs, images, snn.report.input)
    of_image = snn.report.input == "image"  # frames come before images
    few = tuple(t[:IMAGES] if of_image else t[:, :IMAGES] for t in shown)
    x = few[0] if len(few) == 1 else few
    expected = snn(x, timesteps, executor="decoded")[-1]
    seconds: dict[str, float] = {}
    distances: dict[str, float] = {}
    refused: dict[str, str] = {}
    for name in EXECUTORS:
        try:
            found = snn(x, timesteps, executor=name)[-1]
        except ConfigError as error:
            refused[name] = str(error)
            continue
        distances[name] = distance(found, expected)
        begin = time.perf_counter()
        snn(x, timesteps, executor=name)
        seconds[name] = time.perf_counter() - begin
    allowed = [name for name in seconds if name == "decoded" or distances[name] <= tolerance]
    fastest = min(allowed, key=seconds.__getitem__)
    return ExecutorChoice(
        fastest,
        tolerance,
        rows_of(few if of_image else tuple(t[0] for t in few)),
        timesteps,
        seconds,
        distances,
        refused,
    )


def distance(found: Tensor, expected: Tensor) -> float:
    """Return the norm of a difference over the norm of what was expected."""
    return float((found - expected).norm()) / (float(expected.norm()) or 1.0)


def executor_for(snn: SpikingNetwork, name: str | None, images: Inputs, timesteps: int) -> Executor:
    """Return an executor by its name; ``auto`` is chosen at its first use and then kept."""
    name = snn.executor if name is None else name
    if name == "auto":
        if snn.choice is None:
            snn.choice = choose_executor(snn, images, timesteps)
        name = snn.choice.executor
    return EXECUTORS[name]

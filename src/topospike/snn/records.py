"""What a simulation shows: of one step, of steps taken together, and of a run until silence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from topospike.snn.coding import SiteState
from topospike.snn.frames import Moment
from topospike.snn.fused import Kept


@dataclass(frozen=True)
class StepRecord:
    """What `SpikingNetwork.watch` shows of a step; tensors may be overwritten by the next one.

    Attributes
    ----------
    t : int
        The step, from 1.
    logits : Tensor, shape (batch, classes)
        The prediction after it.
    values : tuple
        Values of the nodes that were asked for.
    sites : mapping of str to SiteState
        By name: ``.spikes``, ``.decoded``, and ``.fired`` where a loop has counted.
    silent : bool
        Whether no neuron will fire any more. Such a step is not simulated, but shown again.
    moment : Moment or None
        What the network was shown.
    """

    t: int
    logits: Tensor
    values: tuple[Any, ...]
    sites: Mapping[str, SiteState]
    silent: bool = False
    moment: Moment | None = None


@dataclass(frozen=True)
class Block:
    """What a run shows of the steps that it has taken together; may be overwritten by the next.

    Attributes
    ----------
    steps : tuple of StepRecord
        Each of them; ``sites`` are those after the last.
    logits : Tensor, shape (time, batch, classes)
        The predictions after them.
    kept : mapping of str to Kept
        What each site sent, steps after one another along the first axis, where it is kept.
    """

    steps: tuple[StepRecord, ...]
    logits: Tensor
    kept: Mapping[str, Kept]


@dataclass(frozen=True)
class Settled:
    """A run that went on until no neuron fired.

    Attributes
    ----------
    logits : Tensor, shape (time, batch, classes)
        The prediction after each step; the last is that of the silent network.
    steps : Tensor, int64, shape (batch,)
        The last step at which a neuron fired for an image.
    silent : Tensor, bool, shape (batch,)
        Which images fell silent; the others hit the limit.
    spikes : Tensor, int64, shape (time, batch)
        Neurons that fired at each step for an image.
    """

    logits: Tensor
    steps: Tensor
    silent: Tensor
    spikes: Tensor

r"""Simulate: what a run shows, step by step or until silence, and when its answer is there.

Spikes need some steps to reach the last layer, and what rate coding decodes by then stays in its
mean for ever. A readout delayed by :math:`t_d` averages the outputs of the steps after it alone:

.. math:: L'(t) = \frac{t \, L(t) - t_d \, L(t_d)}{t - t_d}

with :math:`L(t)` the decoded output after t steps, the mean of those of steps 1..t. Up to
:math:`t_d` there is no answer, and NaN says so.

Layers that wait for one another have no answer before they have sent all of it, at t = T, and the
same one from then on.

Source: Bu et al. (CVPR 2025, arXiv 2409.03368), delayed evaluation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from topospike.contracts import ConversionReport
from topospike.snn.coding import SiteState
from topospike.snn.frames import Moment
from topospike.snn.fused import Kept

if TYPE_CHECKING:
    from topospike.snn.network import SpikingNetwork
    from topospike.snn.site import Site


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


def delay_in_words(report: ConversionReport) -> str:
    """Say what a delayed readout means for the results; empty where there is none."""
    delay = report.readout_delay
    return (
        f"The answer is the mean of the outputs of steps {delay + 1} and later; up to t = {delay} "
        "there is none: NaN, which counts as wrong."
        if delay
        else ""
    )


def read_late(
    outputs: Float[Tensor, "rows ..."],
    t: int,
    delay: int,
    kept: Tensor | None,
    *,
    together: int = 1,
) -> tuple[Float[Tensor, "rows ..."], Tensor | None]:
    """Return the answers of steps t, t + 1, ..., and what later steps need of these.

    Parameters
    ----------
    outputs
        L of ``together`` steps, one after the other along the first axis.
    t
        The first of them.
    delay
        t_d, at least 1.
    kept
        L(t_d) once it is known.
    together
        How many steps.

    Examples
    --------
    Outputs 4, 0, 1 at steps 1 to 3 have the means 4, 2, 5/3; without step 1 the mean is 1/2.

    >>> answers, kept = read_late(torch.tensor([[4.0], [2.0], [5 / 3]]), 1, 1, None, together=3)
    >>> answers.flatten().tolist(), kept.item()
    ([nan, 0.0, 0.5], 4.0)
    """
    answers = torch.empty_like(outputs)
    pairs = zip(outputs.chunk(together), answers.chunk(together), strict=True)
    for step, (output, answer) in enumerate(pairs, start=t):
        kept = output.clone() if step == delay else kept
        if step <= delay or kept is None:
            answer.fill_(torch.nan)
        else:
            torch.mul(output, step / (step - delay), out=answer)
            answer.sub_(kept, alpha=delay / (step - delay))
    return answers, kept


def first_answer(snn: SpikingNetwork) -> int:
    """Return the first step at which a network has an answer.

    That is 1, the step after a delayed readout's t_d, or the T at which layers that wait for one
    another have sent all they have to say.

    Examples
    --------
    >>> import topospike as ts
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> x = torch.rand(9, 4)
    >>> options = {"dcgs": {}, "qcfs": {"readout_delay": 2}, "phase": {"steps": 5}}
    >>> [first_answer(ts.convert(model, m, calibration=[x], **o)) for m, o in options.items()]
    [1, 3, 5]
    """
    return max(steps_a_layer(snn), snn.report.readout_delay + 1)


def steps_a_layer(snn: SpikingNetwork) -> int:
    """Return how many steps a layer waits for the one before it: 1, or all T of its answer."""
    return complete_at(snn.sites.values()) or 1


def answer_stays(snn: SpikingNetwork) -> bool:
    """Tell whether the first answer is the last one: nothing is sent after it."""
    return complete_at(snn.sites.values()) is not None


def complete_at(sites: Iterable[Site]) -> int | None:
    """Return the step at which sites that wait for one another have said all, if all do."""
    steps = [site.coding.complete_at for site in sites]
    known = [step for step in steps if step is not None]
    return max(known) if known and len(known) == len(steps) else None


def silent_from(sites: Iterable[Site]) -> float:
    """Return the first step whose silence lasts, or infinity."""
    return max(site.coding.silent_from(site.neuron) for site in sites)

"""A site: one place of the network where a spiking neuron sits, and its step.

A `Site` *is* the ANN's activation: called, it returns what the ANN would. In a simulation it is not
called; `site_step` takes one step of it, from the ordinary ANN value r_in that reaches it and the
state it is in, and returns the state after the step (`topospike.snn.coding` has the formulas). It
knows nothing of the network around it, and holds nothing of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from topospike.snn.coding import Coding, SiteState
from topospike.snn.fused import Kept, SiteLoop, has_loop
from topospike.snn.neurons import Neuron, at_step
from topospike.wiring.images import memory_order

START = SiteState()
"""The state of a site before its first step."""


class Site(nn.Module):
    """A neuron population that replaces one activation (or sits before one operand).

    Parameters
    ----------
    name
        Where it sits, in the model's own module path.
    gated
        ``True`` for the place of a ReLU: the decoded output never becomes negative. ``False`` for
        an identity site, where both signs are free.
    neuron, coding
        How a drive becomes spikes, and how spikes become a value.

    Attributes
    ----------
    threshold : Tensor
        Base threshold theta, broadcastable to the activation; a buffer, empty until calibration.
    activation : Module or None
        What the site is in the ANN, where that is neither ReLU nor identity (a trained QCFS).
    observer : callable or None
        Sees what reaches the site while the ANN runs.
    """

    threshold: Tensor

    def __init__(self, name: str, *, gated: bool, neuron: Neuron, coding: Coding) -> None:
        super().__init__()
        self.name = name
        self.gated = gated
        self.neuron = neuron
        self.coding = coding
        self.register_buffer("threshold", torch.empty(0))
        self.activation: nn.Module | None = None
        self.observer: Callable[[Tensor], None] | None = None

    def forward(self, r_in: Tensor) -> Tensor:
        """Return the ANN's activation."""
        if self.observer is not None:
            self.observer(r_in)
        if self.activation is not None:
            return self.activation(r_in)
        return torch.relu(r_in) if self.gated else r_in

    @property
    def bits(self) -> float:
        """What one of its events carries."""
        return self.coding.bits(self.neuron)

    def extra_repr(self) -> str:
        """Name the site, its neuron and its coding when the network is printed."""
        return f"{self.name!r}, gated={self.gated}, {self.neuron}, {self.coding}"


@contextmanager
def observing(observers: Mapping[Site, Callable[[Tensor], None]]) -> Iterator[None]:
    """Let observers see what reaches their sites when the ANN runs inside the block."""
    for site, observer in observers.items():
        site.observer = observer
    try:
        yield
    finally:
        for site in observers:
            site.observer = None


@dataclass(frozen=True, slots=True)
class Rule:
    """The step of a site by the formulas of its coding; ``record`` whether spikes are wanted.

    Where there is a compiled loop (`topospike.snn.fused`) it does the same in one pass over memory,
    bit for bit, and in the memory of the state it is given, which is thereby spent.
    """

    site: Site
    record: bool = True

    def __call__(self, t: int, r_in: Tensor, state: SiteState) -> SiteState:
        """Return the state after step t."""
        site, decoded, loop = self.site, state.decoded, state.loop
        if decoded is None:
            decoded = torch.zeros_like(r_in)
            if has_loop(site.neuron, site.coding, decoded):
                loop = SiteLoop(site.neuron, site.coding, site.threshold, decoded)
        if loop is None:
            return written_out(site, t, r_in, state)
        spikes = state.spikes
        if self.record and spikes is None:
            spikes = torch.empty_like(decoded)
        fired = loop(t, r_in, decoded, spikes)
        return SiteState(decoded, spikes, fired, state.extra, loop)


Fire = Callable[[Neuron, Tensor, Tensor, Tensor | None], Tensor]
"""A firing rule applied: ``(neuron, membrane, threshold, available) -> spikes``."""


def fired(neuron: Neuron, u: Tensor, theta: Tensor, available: Tensor | None) -> Tensor:
    """Let a neuron fire."""
    return neuron.fire(u, theta, available)


def written_out(
    site: Site, t: int, r_in: Tensor, state: SiteState, fire: Fire = fired
) -> SiteState:
    """Take a step with the rules as they are written, operation by operation: the reference."""
    coding, neuron, decoded = site.coding, at_step(site.neuron, t), state.decoded
    if decoded is None:
        decoded = torch.zeros_like(r_in)
    share = neuron.initial_membrane
    membrane = coding.drive(t, r_in, decoded, site.threshold * share if share else None)
    available = coding.available(t, decoded) if neuron.gated else None
    spikes = fire(neuron, membrane, site.threshold, available)
    return SiteState(coding.decode(t, decoded, spikes), spikes, None, state.extra)


def decoded_of(state: SiteState) -> Tensor:
    """Return the decoded output of a site that has taken a step."""
    if state.decoded is None:
        raise RuntimeError("the site has not taken a step")
    return state.decoded


def site_step(
    site: Site, t: int, r_in: Tensor, state: SiteState = START, *, record: bool = True
) -> SiteState:
    """Return the state of a site after step t = 1, 2, ...

    Parameters
    ----------
    site
        Where it happens; not changed.
    t
        The step, counted from 1.
    r_in
        The ordinary ANN value that reaches the site, any shape with the batch first.
    state
        The state after step t - 1; spent. The decoded output is ``result.decoded``.
    record
        Whether ``result.spikes`` is wanted; without it a compiled loop writes less memory.

    Examples
    --------
    >>> from topospike.snn.coding import Rate
    >>> from topospike.snn.neurons import IntegrateAndFire
    >>> site = Site("a", gated=True, neuron=IntegrateAndFire(), coding=Rate())
    >>> site.threshold = torch.tensor(1.0)
    >>> state = site_step(site, 1, torch.tensor([0.6, 0.3]))
    >>> site_step(site, 2, torch.tensor([0.6, 0.3]), state).decoded
    tensor([0.5000, 0.5000])
    """
    return site.coding.step(Rule(site, record), t, r_in, state)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is read of a site: decoded outputs, spikes, and spikes as codes of 8 bits."""

    decoded: bool = True
    spikes: bool = False
    codes: bool = False


def site_steps(
    site: Site,
    t: int,
    steps: int,
    r_in: Tensor,
    state: SiteState,
    wanted: Wanted,
    *,
    still: bool = False,
) -> tuple[SiteState, Kept]:
    """Take the steps from t on, which follow one another along the first axis of ``r_in``.

    Of a ``still`` input there is one step, the same for all. Returns the state after the steps, and
    of all of them what is wanted. ``codes`` are given where there is a compiled loop; elsewhere the
    spikes stand for them.
    """
    plain, images = type(site.coding).step is Coding.step, len(r_in) // (1 if still else steps)
    decoded, loop = state.decoded, state.loop
    if decoded is None and plain:
        decoded = torch.zeros_like(r_in[:images])
        if has_loop(site.neuron, site.coding, decoded):
            loop = SiteLoop(site.neuron, site.coding, site.threshold, decoded)
    if (
        decoded is None
        or not (plain and isinstance(loop, SiteLoop))
        or (steps > 1 and loop.order[0] != 0)
    ):
        return one_by_one(site, t, (r_in,) * steps if still else r_in.chunk(steps), state, wanted)

    def room(dtype: torch.dtype | None = None) -> Tensor:
        if steps == 1:
            return torch.empty_like(decoded, dtype=dtype)
        shape = (images * steps, *decoded.shape[1:])
        return torch.empty_permuted(shape, loop.order, dtype=dtype or decoded.dtype)

    kept = Kept(
        room() if wanted.decoded and steps > 1 else None,
        (room() if steps > 1 or state.spikes is None else state.spikes) if wanted.spikes else None,
        room(torch.uint8) if wanted.codes else None,
        loop.shift,
    )
    fired = loop.steps(t, steps, r_in, decoded, kept)
    if steps > 1:
        return SiteState(decoded, None, fired, state.extra, loop), kept
    after = SiteState(decoded, kept.spikes, fired, state.extra, loop)
    return after, Kept(decoded, kept.spikes, kept.codes, kept.shift)


def one_by_one(
    site: Site, t: int, inputs: Sequence[Tensor], state: SiteState, wanted: Wanted
) -> tuple[SiteState, Kept]:
    """Take some steps one after the other."""
    record = wanted.spikes or wanted.codes
    if len(inputs) == 1:
        state = site_step(site, t, inputs[0], state, record=record)
        return state, Kept(decoded_of(state), state.spikes)
    like = inputs[0]
    shape, order = (len(inputs), *like.shape), (0, *(1 + axis for axis in memory_order(like)))
    decoded, spikes = (
        torch.empty_permuted(shape, order, dtype=like.dtype, device=like.device) if asked else None
        for asked in (wanted.decoded, record)
    )
    for k, now in enumerate(inputs):
        state = site_step(site, t + k, now, state, record=record)
        for every, one in ((decoded, state.decoded), (spikes, state.spikes)):
            if every is not None and one is not None:
                every[k] = one
    decoded, spikes = (None if kept is None else kept.flatten(0, 1) for kept in (decoded, spikes))
    return state, Kept(decoded, spikes)

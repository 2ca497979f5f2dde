"""Simulate: executors, the programs they make of a network, and the state of a run.

`Executor.prepare(network)` returns a `Program`; ``program.start(x)`` a `State`, and
``program.step(t, state)`` the logits of step t and the next state. A state is all that a run holds,
so a network may be run several times at once, and a run may be kept and continued.

A step is the network's own graph, generated as Python (`topospike.snn.executors.split`), in which
each site and each layer of another form (`topospike.snn.executors.forms`) calls the `Step` object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from topospike.errors import ConfigError
from topospike.registry import Registry
from topospike.snn.batches import images_at_once
from topospike.snn.coding import SiteState
from topospike.snn.executors.events import EventForm, event_forms
from topospike.snn.executors.forms import (
    DenseForm,
    Form,
    bf16_forms,
    compressed_forms,
    formatted_forms,
)
from topospike.snn.executors.integer import IntegerForm, integer_forms
from topospike.snn.executors.split import (
    Substitute,
    Substitutes,
    by_step,
    growing,
    inputs_of,
    reached_from,
    repeated,
    split_in_time,
    values_of,
)
from topospike.snn.executors.steps import Step, Visitor
from topospike.snn.fused import Kept
from topospike.snn.neurons import tells_who_fired
from topospike.snn.records import complete_at, read_late, silent_from
from topospike.snn.site import START, Site, Wanted, site_steps
from topospike.wiring.graph import result_of, site_calls

if TYPE_CHECKING:
    from topospike.snn.network import SpikingNetwork


@dataclass(frozen=True)
class State:
    """All that a run holds after a step.

    Attributes
    ----------
    cached : tuple
        What depends on the image alone.
    sites : tuple of SiteState
        In the order in which the sites run.
    layers : tuple
        What each layer of another form holds.
    values : tuple
        Values of the watched nodes at the step.
    kept : tuple of Kept
        What the sites sent at it, or at the steps taken together, where that was asked for.
    early : Tensor or None
        Of a delayed readout, the decoded output at its delay; of layers that wait for one another,
        the answer that they are about to give.
    """

    cached: tuple[Any, ...]
    sites: tuple[SiteState, ...]
    layers: tuple[Any, ...]
    values: tuple[Any, ...] = ()
    kept: tuple[Kept, ...] = ()
    early: Tensor | None = None

    @property
    def is_silent(self) -> bool:
        """Whether no neuron fired at the step (spikes recorded, or counted by a loop)."""
        return not any(site.events for site in self.sites)


class Program:
    """A network prepared for simulation.

    Parameters
    ----------
    network
        A graph with sites.
    forms
        Layers that a step evaluates otherwise than the graph has them.
    watched
        Nodes whose values every step keeps.
    sent
        Calls of sites whose spikes every step keeps, with codes of those of all others.
    delay
        Steps that the answer leaves out (`topospike.snn.records`).

    Examples
    --------
    >>> import topospike as ts
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> x = torch.rand(5, 4)
    >>> snn = ts.convert(model, calibration=[x])
    >>> program = EXECUTORS["decoded"].prepare(snn)
    >>> state = program.start((x,))
    >>> for t in (1, 2):
    ...     logits, state = program.step(t, state)
    >>> torch.equal(logits, snn(x, 2)[-1]), state.is_silent
    (True, False)
    """

    def __init__(
        self,
        network: fx.GraphModule,
        forms: Iterable[Form] = (),
        watched: tuple[fx.Node, ...] = (),
        sent: tuple[fx.Node, ...] | None = None,
        delay: int = 0,
    ) -> None:
        self.network = network
        self.delay = delay
        self.watched, self.sent = watched, sent
        self.forms = tuple(forms)
        self.calls = {node: i for i, node in enumerate(site_calls(network))}
        self.complete_at, self.silent_from = complete_at(self.sites), silent_from(self.sites)
        substitutes = {
            node: Substitute("site", i, (node.all_input_nodes[0],))
            for node, i in self.calls.items()
        } | {form.node: Substitute("layer", i, form.inputs) for i, form in enumerate(self.forms)}
        parts = split_in_time(network, watched, substitutes)
        self.image_part, self.step_part, boundary = parts
        self.wanted = self._wanted(watched, substitutes)
        self._still = [
            n not in watched and all(user in self.calls for user in n.users) for n in boundary
        ]
        still = {n for n, alone in zip(boundary, self._still, strict=True) if alone}
        self._grows: list[bool | None] | None = None
        self._rows: list[bool | None] = []
        self.of_image = [node.all_input_nodes[0] in still for node in self.calls]

    def _wanted(self, watched: tuple[fx.Node, ...], substitutes: Substitutes) -> tuple[Wanted, ...]:
        """Return what is read of each site."""
        result = result_of(self.network)
        spikes, codes, decoded = set(self.sent or ()), set[fx.Node](), {result, *watched}
        whole = set[fx.Node]()
        for form in self.forms:
            if isinstance(form, IntegerForm):
                whole.add(form.node)
                (spikes if form.code_path is None else codes).update(form.sites)
            elif isinstance(form, EventForm):
                spikes.update(form.sites)
        for node in self.calls if self.sent is not None else ():
            as_codes = node not in spikes and tells_who_fired(site_of(node, self.network).neuron)
            (codes if node in codes or as_codes else spikes).add(node)
        for node in reached_from((result, *watched, *self.calls), substitutes) - whole:
            decoded.update(inputs_of(node, substitutes))
        return tuple(Wanted(n in decoded, n in spikes, n in codes) for n in self.calls)

    @cached_property
    def sites(self) -> list[Site]:
        """The sites in the order in which they run; looked up once, not at every step."""
        return [site_of(node, self.network) for node in self.calls]

    @cached_property
    def images_at_once(self) -> int:
        """`topospike.snn.batches.images_at_once` of the network."""
        return images_at_once(self.network)

    @cached_property
    def channels_last(self) -> bool:
        """Whether images are best handed over with their channels last in memory."""
        return any(
            isinstance(form, EventForm | IntegerForm)
            or (isinstance(form, DenseForm) and form.memory_format is torch.channels_last)
            for form in self.forms
        )

    @torch.no_grad()
    def start(
        self,
        inputs: tuple[Tensor, ...],
        kept: State | None = None,
        *,
        together: int = 1,
        layers: tuple[Any, ...] | None = None,
    ) -> State:
        """Return the state before step 1.

        Parameters
        ----------
        inputs
            The network's inputs, the batch first.
        kept
            A state to go on from, on these inputs.
        together
            How many steps a call of `step` evaluates as one batch.
        layers
            What `first_layers` has returned just now, if it has.
        """
        cached = self._of_images(inputs, together)
        if kept is not None:  # what a layer holds depends on its sites alone
            return State(cached, kept.sites, kept.layers, early=kept.early)
        layers = self.first_layers() if layers is None else layers
        sites, answer = self._first_states(inputs)
        return State(cached, sites, layers, early=answer if self.complete_at else None)

    def first_layers(self) -> tuple[Any, ...]:
        """Return what the layers hold when a run starts."""
        return tuple(form.start(self.network) for form in self.forms)

    @torch.no_grad()
    def show(self, inputs: tuple[Tensor, ...], state: State) -> State:
        """Return the state with other inputs; sites, and layers fed by them, stay as they are."""
        return replace(state, cached=self._of_images(inputs, 1))

    @torch.no_grad()
    def step(
        self, t: int, state: State, *, record: bool = True, together: int = 1
    ) -> tuple[Tensor, State]:
        """Take step t and return the logits, which are valid until the next one, and the state.

        Without ``record`` the sites need not keep their spikes. With ``together`` the steps t,
        t + 1, ... are taken at once, and follow one another along the first axis of the result.
        """
        if self.complete_at and not self.watched:
            return self._parts(t, state, record, together)
        run = Step(self, t, state, record=record, together=together)
        logits, *values = self.step_part(self.network, run, *state.cached)
        early = state.early
        if self.delay:
            logits, early = read_late(logits, t, self.delay, early, together=together)
        elif self.complete_at and t < self.complete_at:
            late = min(together, self.complete_at - t) * (len(logits) // together)
            logits = torch.cat([torch.full_like(logits[:late], torch.nan), logits[late:]])
        sites, layers = tuple(run.sites), tuple(run.layers)
        kept = tuple(run.kept) if record or self.sent is not None else ()
        return logits, State(state.cached, sites, layers, tuple(values), kept, early)

    def _parts(self, t: int, state: State, record: bool, together: int) -> tuple[Tensor, State]:
        """Let sites that know all beforehand send their parts: nothing else is to be evaluated."""
        answer, last = state.early, self.complete_at
        if answer is None or last is None:
            raise RuntimeError("the run has not looked at its image")
        wanted = Wanted(decoded=False, spikes=record or self.sent is not None)
        taken = [
            site_steps(site, t, together, held.extra, held, wanted, still=True)
            for site, held in zip(self.sites, state.sites, strict=True)
        ]
        sites, kept = zip(*taken, strict=True)
        nothing = torch.full_like(answer, torch.nan)
        answers = [answer if t + k >= last else nothing for k in range(together)]
        return torch.cat(answers), replace(state, sites=sites, kept=kept, values=())

    def _of_images(self, inputs: tuple[Tensor, ...], together: int) -> tuple[Any, ...]:
        """Return what depends on the images alone, for as many steps."""
        cached = self.image_part(self.network, *(self._laid_out(x) for x in inputs))
        if together == 1:
            return cached
        grows = self._growing(inputs)
        return tuple(
            repeated(value, together) if grown and not still else value
            for value, grown, still in zip(cached, grows, self._still, strict=True)
        )

    def _laid_out(self, x: Tensor) -> Tensor:
        last = self.channels_last and x.ndim == 4
        return x.contiguous(memory_format=torch.channels_last) if last else x

    def counts_images(self, inputs: tuple[Tensor, ...]) -> bool:
        """Tell whether what is kept or watched has one row for each image, or is of none."""
        return all(grown is not None for grown in (*self._growing(inputs), *self._rows))

    def values_of_steps(self, values: tuple[Any, ...], steps: int) -> list[tuple[Any, ...]]:
        """Return the values of the watched nodes at each of some steps taken together."""
        return [values] if steps == 1 else by_step(values, self._rows, steps)

    def _growing(self, inputs: tuple[Tensor, ...]) -> list[bool | None]:
        """Tell for each cached value whether it has one row an image; ``None``: neither."""
        if self._grows is None:
            self._grows = growing(lambda few: self.image_part(self.network, *few), inputs)
            self._rows = growing(lambda few: values_of(self.network, self.watched, few), inputs)
        return self._grows

    def _first_states(
        self, inputs: tuple[Tensor, ...]
    ) -> tuple[tuple[SiteState, ...], Tensor | None]:
        """Return what sites start from, and what comes out where codings look at steps before."""
        states = dict.fromkeys(self.sites, START)
        steps = max((site.coding.presimulation for site in states), default=0)

        def presimulated(site: Site, r_in: Tensor) -> Tensor:
            r_out, states[site] = site.coding.presimulate(site, r_in)
            return r_out

        answer = None
        if steps:
            answer = Visitor(self.network, presimulated).run(*(repeated(x, steps) for x in inputs))
        return tuple(states.values()), answer


@dataclass(frozen=True)
class Executor:
    """A way to evaluate the layers of a network in its steps.

    Parameters
    ----------
    name
        Name in settings.
    forms
        Find the layers of a network that are evaluated otherwise than its graph has them; of two
        forms for a layer the first counts.
    steps_first
        Whether the steps of few images are taken together rather than one step of many.
    follows_events
        Whether they follow single events: then steps are taken one by one.
    """

    name: str
    forms: tuple[Callable[[SpikingNetwork], Iterable[Form]], ...]
    steps_first: bool = False
    follows_events: bool = False

    def prepare(
        self,
        network: SpikingNetwork,
        watched: tuple[fx.Node, ...] = (),
        sent: tuple[fx.Node, ...] | None = None,
    ) -> Program:
        """Return the program of a network.

        Raises
        ------
        ConfigError
            If the network cannot be run so where it is.
        """
        if self.follows_events:
            require_events(network)
        forms: dict[fx.Node, Form] = {}
        for find in self.forms:
            forms = {form.node: form for form in find(network)} | forms
        return Program(network.ann, forms.values(), watched, sent, network.report.readout_delay)


def require_events(network: SpikingNetwork) -> None:
    """Raise unless a network is on a CPU, in a precision of numba, and of one formula."""
    like = network.like
    if like.device.type != "cpu" or like.dtype not in (torch.float32, torch.float64):
        raise ConfigError(
            f"the event executor was given a network in {like.dtype} on {like.device}; it runs on "
            "a CPU in float32 or float64. Move the network and the images there, or use "
            "executor='decoded'."
        )
    for site in network.sites.values():
        if not site.coding.by_formula:
            raise ConfigError(
                f"executor is 'event'; a network of {site.coding.name} does not decode the spikes "
                "of all its steps by one formula, which the executor follows. Use "
                "executor='decoded'."
            )


EXECUTORS: Registry[Executor] = Registry(
    "executor",
    {
        each.name: each
        for each in (
            Executor("decoded", (compressed_forms, formatted_forms)),
            Executor("bf16", (compressed_forms, bf16_forms)),
            Executor("event", (event_forms, compressed_forms), follows_events=True),
            Executor(
                "integer", (integer_forms, compressed_forms, formatted_forms), steps_first=True
            ),
        )
    },
)
"""The executors by their names in settings.

``decoded`` evaluates every layer densely on decoded values and runs anywhere; ``bf16`` does so
with the products in bfloat16; ``event`` lets a layer follow the neurons that fired where that is
cheaper; ``integer`` multiplies whole weights by spike codes (`topospike.quantise_weights`).
"""


def site_of(node: fx.Node, network: fx.GraphModule) -> Site:
    """Return the site that a node calls."""
    return network.get_submodule(str(node.target))  # pyright: ignore[reportReturnType]

"""Simulate: executors, the programs they make of a network, and the state of a run.

`Executor.prepare(network)` returns a `Program`; ``program.start(x)`` a `State`, and
``program.step(t, state)`` the logits of step t and the next state. A state is all that a run holds,
so a network may be run several times at once, and a run may be kept and continued.

A step is the network's own graph, generated as Python (`topospike.snn.split`), in which each site
and each layer of another form (`topospike.snn.forms`) calls the `Step` object.
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
from topospike.snn.events import EventForm, event_forms
from topospike.snn.forms import DenseForm, Form, bf16_forms, compressed_forms, formatted_forms
from topospike.snn.integer import IntegerForm, integer_forms
from topospike.snn.readout import complete_at, read_late
from topospike.snn.site import START, Site, decoded_of, site_step
from topospike.snn.split import Substitute, split_in_time
from topospike.wiring.graph import site_calls

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
    early : Tensor or None
        Of a delayed readout, the decoded output at its delay; of layers that wait for one another,
        the answer that they are about to give.
    """

    cached: tuple[Any, ...]
    sites: tuple[SiteState, ...]
    layers: tuple[Any, ...]
    values: tuple[Any, ...] = ()
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
    delay
        Steps that the answer leaves out (`topospike.snn.readout`).

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
        delay: int = 0,
    ) -> None:
        self.network = network
        self.delay = delay
        self.watched = watched
        self.forms = tuple(forms)
        self.calls = {node: i for i, node in enumerate(site_calls(network))}
        self.complete_at = complete_at(self.sites)
        substitutes = {
            node: Substitute("site", i, (node.all_input_nodes[0],))
            for node, i in self.calls.items()
        } | {form.node: Substitute("layer", i, form.inputs) for i, form in enumerate(self.forms)}
        self.image_part, self.step_part = split_in_time(network, watched, substitutes)

    @property
    def sites(self) -> list[Site]:
        """The sites in the order in which they run."""
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
        self, inputs: tuple[Tensor, ...], kept: State | None = None, *, together: int = 1
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
        """
        cached = self.image_part(self.network, *(self._laid_out(x, together) for x in inputs))
        if kept is not None:  # what a layer holds depends on its sites alone
            return State(cached, kept.sites, kept.layers, early=kept.early)
        layers = tuple(form.start(self.network) for form in self.forms)
        sites, answer = self._first_states(inputs)
        return State(cached, sites, layers, early=answer if self.complete_at else None)

    @torch.no_grad()
    def show(self, inputs: tuple[Tensor, ...], state: State) -> State:
        """Return the state with other inputs; sites, and layers fed by them, stay as they are."""
        cached = self.image_part(self.network, *(self._laid_out(x, 1) for x in inputs))
        return replace(state, cached=cached)

    @torch.no_grad()
    def step(
        self, t: int, state: State, *, record: bool = True, together: int = 1
    ) -> tuple[Tensor, State]:
        """Take step t and return the logits, which are valid until the next one, and the state.

        Without ``record`` the sites need not keep their spikes. With ``together`` the steps t,
        t + 1, ... are taken at once, and follow one another along the first axis of the result.
        """
        if self.complete_at and not self.watched:
            return self._sent(t, state, together)
        run = Step(self, t, state, record=record, together=together)
        logits, *values = self.step_part(self.network, run, *state.cached)
        early = state.early
        if self.delay:
            logits, early = read_late(logits, t, self.delay, early, together=together)
        elif self.complete_at and t < self.complete_at:
            logits = torch.full_like(logits, torch.nan)
        sites, layers = tuple(run.sites), tuple(run.layers)
        return logits, State(state.cached, sites, layers, tuple(values), early)

    def _sent(self, t: int, state: State, together: int) -> tuple[Tensor, State]:
        """Let sites that know all beforehand send their parts: nothing else is to be evaluated."""
        sites, answers, answer = state.sites, [], state.early
        if answer is None or self.complete_at is None:
            raise RuntimeError("the run has not looked at its image")
        for step in range(t, t + together):
            pairs = zip(self.sites, sites, strict=True)
            sites = tuple(site_step(site, step, held.extra, held) for site, held in pairs)
            is_there = step >= self.complete_at
            answers.append(answer if is_there else torch.full_like(answer, torch.nan))
        return torch.cat(answers), replace(state, sites=sites, values=())

    def _laid_out(self, x: Tensor, together: int) -> Tensor:
        x = repeated(x, together) if together > 1 else x
        last = self.channels_last and x.ndim == 4
        return x.contiguous(memory_format=torch.channels_last) if last else x

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


class Step:
    """One step of a run while it is evaluated; the generated code calls `site` and `layer`.

    Attributes
    ----------
    ann
        The network's graph.
    t : int
        The step.
    sites, layers : list
        States after this step, where it has got so far; else those before it.
    """

    def __init__(
        self, program: Program, t: int, state: State, *, record: bool, together: int
    ) -> None:
        self.program = program
        self.ann = program.network
        self.t = t
        self.record = record
        self.together = together
        self.sites, self.layers = list(state.sites), list(state.layers)
        self._emitted: dict[int, Tensor] = {}
        self._modules = program.sites

    def site(self, index: int, r_in: Tensor) -> Tensor:
        """Take the step of a site, or several one after the other; return its decoded output."""
        site, state = self._modules[index], self.sites[index]
        if self.together == 1:
            state = self.sites[index] = site_step(site, self.t, r_in, state, record=self.record)
            return decoded_of(state)
        result = torch.empty_like(r_in)
        if self.record:
            self._emitted[index] = torch.empty_like(r_in)
        emitted = self._emitted.get(index, result).chunk(self.together)
        parts = zip(r_in.chunk(self.together), result.chunk(self.together), emitted, strict=True)
        for t, (now, after, spikes) in enumerate(parts, start=self.t):
            state = site_step(site, t, now, state, record=self.record)
            if state.spikes is not None and self.record:
                spikes.copy_(state.spikes)
            after.copy_(decoded_of(state))
        self.sites[index] = state
        return result

    def layer(self, index: int, *values: Any) -> Tensor:
        """Return the output of a layer evaluated in another form."""
        form = self.program.forms[index]
        output, self.layers[index] = form.step(self.layers[index], self, values)
        return output

    def state_of(self, node: fx.Node) -> SiteState:
        """Return the state of the site that a node calls."""
        return self.sites[self.program.calls[node]]

    def spikes_of(self, node: fx.Node) -> Tensor:
        """Return what the site that a node calls has emitted, of all steps taken together."""
        index = self.program.calls[node]
        spikes = self.sites[index].spikes if self.together == 1 else self._emitted.get(index)
        if spikes is None:
            raise RuntimeError(f"the spikes of {node.target} were not recorded")
        return spikes


class Visitor(fx.Interpreter):
    """Runs the ANN once with ``visit(site, r_in)`` in the place of every site."""

    def __init__(self, network: fx.GraphModule, visit: Callable[[Site, Tensor], Tensor]) -> None:
        super().__init__(network)
        self.visit = visit

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Hand a site's input to the visitor."""
        return self.visit(self.fetch_attr(str(target)), args[0])


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
    reads_spikes
        Whether layers are given spikes, which are recorded then.
    follows_events
        Whether they follow single events: then steps are taken one by one.
    """

    name: str
    forms: tuple[Callable[[SpikingNetwork], Iterable[Form]], ...]
    reads_spikes: bool = False
    follows_events: bool = False

    def prepare(self, network: SpikingNetwork, watched: tuple[fx.Node, ...] = ()) -> Program:
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
        return Program(network.ann, forms.values(), watched, network.report.readout_delay)


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
            Executor(
                "event", (event_forms, compressed_forms), reads_spikes=True, follows_events=True
            ),
            Executor(
                "integer",
                (integer_forms, compressed_forms, formatted_forms),
                reads_spikes=True,
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


def repeated(x: Tensor, times: int) -> Tensor:
    """Return a batch several times over, one after the other."""
    return x.repeat(times, *(1 for _ in x.shape[1:]))

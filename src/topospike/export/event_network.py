"""Export: run the event form, spike by spike, with real layers that see nothing but spikes.

The decoded-value engine evaluates the ANN's own graph. Here every pathway is an ``nn.Conv2d`` or
``nn.Linear`` whose input at each step is the spikes themselves: 0 or 1 from integrate-and-fire
neurons, and for a multi-threshold neuron one call for each of its thresholds, with -1, 0 or 1 (at
most one of them non-zero for a neuron: the 2n binary axons of Huang et al. 2025, signs merged).
Counters that hook layers can watch it, and it is the check that folding changed nothing.

Of a network that reads frames every frame enters when it arrives, and the mean of what the frames
add is decoded; of counts of events each event enters as a one of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from topospike.conversion.methods.method import require_export
from topospike.errors import ConversionError
from topospike.export.event_form import EventForm, Pathway, Population, SumPool, Weights, event_form
from topospike.export.folding import fold
from topospike.export.trained import refuse_trained
from topospike.snn.coding import Coding, Rate, SiteState
from topospike.snn.network import SpikingNetwork
from topospike.snn.neurons import Identity
from topospike.snn.site import START, Site, site_step


class SpikingPopulation(nn.Module):
    """The neurons of one site with threshold 1; ``forward`` returns the spikes of one step.

    Its first argument is the decoded input r_in, its result s (0, plus or minus 1, 1/2, 1/4, ...).
    """

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = Site(site.name, gated=site.gated, neuron=site.neuron, coding=site.coding)
        self.site.threshold = torch.ones((), dtype=site.threshold.dtype).to(site.threshold.device)

    def forward(self, r_in: Tensor, t: int, states: dict[str, SiteState]) -> Tensor:
        """Take step t of a run, whose states by site are brought up to date."""
        state = site_step(self.site, t, r_in, states.get(self.site.name, START))
        states[self.site.name] = state
        if state.spikes is None:
            raise RuntimeError(f"{self.site.name} has recorded no spikes")
        return state.spikes.clone()


class Axons(nn.Module):
    """One pathway as modules; ``forward`` takes spikes of size one, without biases."""

    def __init__(self, pathway: Pathway) -> None:
        super().__init__()
        self.source = pathway.source
        self.pathway = pathway
        steps = tuple(composed(pathway.steps))
        self.crop = crop_of(pathway.steps)
        self.steps = nn.Sequential(*(module_of(step) for step in steps))

    def forward(self, spikes: Tensor) -> Tensor:
        """Return what the spikes add to the population's input."""
        if self.crop is not None:
            height, width = (s // k * k for s, k in zip(spikes.shape[2:], self.crop, strict=True))
            spikes = spikes[:, :, :height, :width]
        return self.steps(spikes)

    def constant(self, source: Tensor) -> Tensor:
        """Return what a constant source and the biases add, without calling the modules."""
        for step in self.pathway.steps:
            source = step.apply(source, bias=True)
        return source


def composed(steps: tuple[Weights | SumPool, ...]) -> list[Weights | SumPool]:
    """Merge each pool with the layer behind it, so that the layer reads spikes, not their sums."""
    result: list[Weights | SumPool] = []
    for step in steps:
        behind_pool = bool(result) and isinstance(result[-1], SumPool)
        if behind_pool and isinstance(step, Weights) and not step.is_shortcut:
            result[-1] = pool_into(result[-1], step)  # pyright: ignore[reportArgumentType]
        else:
            result.append(step)
    return result


def pool_into(pool: SumPool, layer: Weights) -> Weights:
    """Return the convolution that equals a sum over disjoint windows, then a convolution.

    Each link of the layer becomes one link from every cell of its window.
    """
    if pool.kernel != pool.stride or pool.padding != (0, 0) or layer.weight.ndim != 4:
        raise ConversionError(
            f"{layer.name}: overlapping or padded pools cannot be merged with the layer behind "
            "them. Use average pools whose kernel equals their stride."
        )
    high, wide = pool.kernel
    rows, columns = layer.weight.shape[2:]
    down, right = layer.dilation
    full = layer.weight.new_zeros(
        *layer.weight.shape[:2], ((rows - 1) * down + 1) * high, ((columns - 1) * right + 1) * wide
    )
    for row in range(rows):
        for column in range(columns):
            top, left = row * down * high, column * right * wide
            tap = layer.weight[:, :, row : row + 1, column : column + 1]
            full[:, :, top : top + high, left : left + wide] = tap
    return Weights(
        layer.name,
        full,
        layer.bias,
        (layer.stride[0] * high, layer.stride[1] * wide),
        (layer.padding[0] * high, layer.padding[1] * wide),
    )


def crop_of(steps: tuple[Weights | SumPool, ...]) -> tuple[int, int] | None:
    """Return the pool whose unfilled last windows must not be read, if the pathway begins so."""
    first = steps[0] if steps else None
    return first.kernel if isinstance(first, SumPool) else None


class Shortcut(nn.Module):
    """A residual addition: each channel times one factor; no layer, so no counter takes it."""

    factor: Tensor

    def __init__(self, layer: Weights) -> None:
        super().__init__()
        diagonal = layer.weight.flatten(1).diagonal()
        self.register_buffer("factor", diagonal.view(1, -1, *[1] * (layer.weight.ndim - 2)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the rescaled stream."""
        return x * self.factor


def module_of(step: Weights | SumPool) -> nn.Module:
    """Return a layer without bias that holds the weight, a shortcut, or a sum pool."""
    if isinstance(step, SumPool):
        return nn.AvgPool2d(step.kernel, step.stride, step.padding, divisor_override=1)
    if step.is_shortcut:
        return Shortcut(step)
    if step.weight.ndim == 2:
        layer: nn.Module = nn.Linear(step.weight.shape[1], step.weight.shape[0], bias=False)
    else:
        layer = nn.Conv2d(
            step.weight.shape[1],
            step.weight.shape[0],
            (step.weight.shape[2], step.weight.shape[3]),
            stride=step.stride,
            padding=step.padding,
            dilation=step.dilation,
            bias=False,
        )
    layer.weight = nn.Parameter(step.weight, requires_grad=False)
    return layer


class EventNetwork(nn.Module):
    """The folded event form as a module: image (or frames) in, logits after T steps out.

    Parameters
    ----------
    form
        What `topospike.export.folding.fold` returned.
    timesteps
        Length T of a run.
    first_layer : {"once", "per_step"}
        Whether the layers that read the image are called once a run, or at every step. Frames are
        read once each.
    input : {"image", "frames", "events"}
        What the network was converted for; frames are (frame, batch, ...), shown for a step each.
    """

    def __init__(
        self,
        form: EventForm,
        timesteps: int,
        *,
        first_layer: str = "once",
        input: str = "image",
    ) -> None:
        super().__init__()
        self.timesteps = timesteps
        self.first_layer = first_layer
        self.input = input
        self.names = [population.name for population in form.populations]
        self.neurons = nn.ModuleDict()
        self.axons = nn.ModuleDict()
        for population in form.populations:
            self.add(population)
        codings = [p.site.coding for p in form.populations if p.site is not None]
        self.coding: Coding = codings[0] if codings else Rate()

    def add(self, population: Population) -> None:
        """Make the modules of one population."""
        key = key_of(population.name)
        if population.site is not None:
            if isinstance(population.site.neuron, Identity):
                raise ConversionError(f"site {population.name} emits values, not spikes.")
            self.neurons[key] = SpikingPopulation(population.site)
        self.axons[key] = nn.ModuleList(Axons(pathway) for pathway in population.pathways)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Simulate T steps and return the logits at T, shape (batch, classes)."""
        *_, (_, logits, _) = self.steps(x)
        return logits

    @torch.no_grad()
    def steps(self, x: Tensor) -> Iterator[tuple[int, Tensor, dict[str, Tensor]]]:
        """Yield ``(t, logits, spikes)`` with the spikes of every population by name."""
        run = EventRun(self, x)
        for t in range(1, self.timesteps + 1):
            yield t, *run.step(t)

    def neurons_of(self, name: str) -> SpikingPopulation | None:
        """Return the neurons of a population, ``None`` for the readout."""
        found = [m for key, m in self.neurons.items() if key == key_of(name)]
        return next((m for m in found if isinstance(m, SpikingPopulation)), None)

    def axons_of(self, name: str) -> list[Axons]:
        """Return the pathways into a population."""
        modules = self.axons[key_of(name)].children()
        return [module for module in modules if isinstance(module, Axons)]


def key_of(name: str) -> str:
    """Return a name a module dictionary accepts."""
    return name.replace(".", "_")


class EventRun:
    """One run over one batch: what every population has received so far.

    A population's decoded input is a constant (biases), what the image adds (or the frames so far
    do on average), and what the spikes added, decoded as the coding decodes spikes.
    """

    def __init__(self, network: EventNetwork, x: Tensor) -> None:
        self.network = network
        self.x = x
        self.constant: dict[str, Tensor | float] = {}
        self.received: dict[str, Tensor] = {}
        self.image: dict[str, Tensor | float] = {}
        self.spikes: dict[str, Tensor] = {}
        self.states: dict[str, SiteState] = {}

    def step(self, t: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Advance every population by one step, in order."""
        value = self.x
        for name in self.network.names:
            value = self.input_of(name, t)
            neurons = self.network.neurons_of(name)
            if neurons is not None:
                self.spikes[name] = neurons(value, t, self.states)
        return value.flatten(1), dict(self.spikes)

    def input_of(self, name: str, t: int) -> Tensor:
        """Return the decoded input of a population at step t."""
        axons = self.network.axons_of(name)
        if t == 1:
            self.constant[name] = total(biases(a, self.source_of(a)) for a in axons)
        self.look(name, t, [a for a in axons if a.source is None])
        arriving = total(self.arriving(a) for a in axons if a.source is not None)
        if isinstance(arriving, Tensor):
            before = self.received.get(name)
            before = torch.zeros_like(arriving) if before is None else before
            self.received[name] = self.network.coding.decode(t, before, arriving)
        result = self.received.get(name, 0.0) + self.image[name] + self.constant[name]
        if not isinstance(result, Tensor):
            raise RuntimeError(f"nothing reaches {name}")
        return result

    def look(self, name: str, t: int, axons: list[Axons]) -> None:
        """Bring up to date what a population has of the image, or of the frames."""
        if self.network.input == "image":
            if t == 1 or self.network.first_layer == "per_step":
                self.image[name] = total(a(self.x) for a in axons)
        elif t <= len(self.x):
            counted = self.network.input == "events"
            parts = single_events(self.x[t - 1]) if counted else [self.x[t - 1]]
            arrived = total(a(part) for a in axons for part in parts)
            before = self.image.get(name, 0.0)
            self.image[name] = before + (arrived - before) / t

    def source_of(self, axons: Axons) -> Tensor:
        """Return what a pathway reads at this step: the image, a frame or spikes."""
        if axons.source is not None:
            return self.spikes[axons.source]
        return self.x if self.network.input == "image" else self.x[0]

    def arriving(self, axons: Axons) -> Tensor | float:
        """Send the spikes of each size along a pathway."""
        neurons = self.network.neurons_of(str(axons.source))
        levels = neurons.site.neuron.levels if neurons is not None else 1
        spikes = self.source_of(axons)
        return total(
            axons(torch.where(spikes.abs() == 2.0**-level, spikes.sign(), 0.0)) * 2.0**-level
            for level in range(levels)
        )


def single_events(counts: Tensor) -> list[Tensor]:
    """Return frames of zeros and ones that add up to one of counts, and none for an empty one.

    Examples
    --------
    >>> [part.tolist() for part in single_events(torch.tensor([2, 0, 1]))]
    [[1, 0, 1], [1, 0, 0]]
    """
    return [(counts >= number).to(counts.dtype) for number in range(1, int(counts.max()) + 1)]


def biases(axons: Axons, like: Tensor) -> Tensor:
    """Return what the biases along a pathway add, for one image."""
    return axons.constant(torch.zeros_like(like[:1]))


def total(parts: Iterable[Tensor | float]) -> Tensor | float:
    """Return the sum of any number of tensors, 0 of none."""
    result: Tensor | float = 0.0
    for part in parts:
        result = result + part
    return result


def event_network(
    snn: SpikingNetwork, timesteps: int, *, first_layer: str = "once"
) -> EventNetwork:
    """Return a network that computes with spikes of size one what ``snn`` computes.

    Raises
    ------
    ConversionError
        If the network is more than populations and weights; see `event_form`. If its method does
        more than its neurons do.

    Examples
    --------
    >>> import topospike as ts
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    >>> x = torch.rand(32, 4, dtype=torch.float64)
    >>> snn = ts.convert(model, "qcfs", [x])
    >>> torch.allclose(event_network(snn, 8)(x), snn(x, timesteps=8)[-1])
    True
    """
    refuse_trained(snn, "an event network")
    require_export(snn.report, "event-network")
    form, shown = fold(event_form(snn)), snn.report.input
    return EventNetwork(form, timesteps, first_layer=first_layer, input=shown).eval()

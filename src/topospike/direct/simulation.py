"""Stage direct: a network trained through time as a spiking network to measure.

The engine evaluates the network once a step, as it does for converted networks; only what a site
passes on differs. A site of a converted network passes on its decoded value, which tends to an
activation; a site here passes on the spikes of the step as they are, keeps the membrane in the
state of the run (`topospike.direct.neurons` has the formulas), and a last one passes on the mean
output so far. One run gives every t, and operations are counted by the same counter.

There is no ANN behind such a network. What an evaluation calls the ANN's accuracy is that of the
network as it was trained, over its own number of steps.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, fx

from topospike.contracts import ConversionReport, LayerInput, SiteReport
from topospike.conversion.inherit import inherit_masks
from topospike.direct.network import NEURONS, SpikingModel, shown_in_training
from topospike.direct.neurons import SpikingNeuron, after_reset, charge, fires
from topospike.errors import ConfigError, ConversionError, ShapeError
from topospike.models import capture
from topospike.models.capture import node_module
from topospike.models.inputs import Inputs
from topospike.modes import evaluating
from topospike.recipe import NeuronSettings
from topospike.snn import SpikingNetwork
from topospike.snn.coding import Coding, SiteState
from topospike.snn.executors import Program
from topospike.snn.frames import Shown
from topospike.snn.neurons import Neuron
from topospike.snn.site import Rule, Site
from topospike.wiring.layers import find_weight_layers


@dataclass(frozen=True)
class SpikeCoding(Coding):
    """The value of a step is its spike; the membrane is kept in ``state.extra``."""

    name = "spikes"
    averages = True  # silence lets the value fall
    by_formula = False

    def step(self, rule: Rule, t: int, r_in: Tensor, state: SiteState) -> SiteState:
        """Take one step of a `MembraneSite`."""
        site = rule.site
        if not isinstance(site, MembraneSite):
            raise ConfigError(f"{site.name}: the coding 'spikes' is for sites with a membrane.")
        m = charge(r_in, state.extra, site.settings, site.gain)
        fired = fires(m, site.settings)
        spikes = fired.to(r_in.dtype)
        return SiteState(spikes, spikes, extra=after_reset(m, fired, site.settings))


@dataclass(frozen=True)
class MeanCoding(Coding):
    """The value of a step is the mean of what has arrived so far; nothing fires."""

    name = "spikes"
    averages = True  # silence lets the value fall
    by_formula = False

    def step(self, rule: Rule, t: int, r_in: Tensor, state: SiteState) -> SiteState:
        """Take up one input."""
        before = state.decoded
        return SiteState(r_in.clone() if before is None else before.lerp(r_in, 1 / t))


SPIKES = SpikeCoding()


@dataclass(frozen=True)
class Population(Neuron):
    """What reports say of a site's neurons; `SpikeCoding` steps them."""

    levels = 1
    gated = False
    initial_membrane = 0.0

    settings: NeuronSettings

    @property
    def name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Kind of neuron."""
        return self.settings.kind


class MembraneSite(Site):
    """A site whose neurons keep a membrane from step to step and pass on their spikes.

    Parameters
    ----------
    name
        Where it sits.
    neuron
        The trained population; its leak and threshold are copied.
    """

    gain: Tensor | None

    def __init__(self, name: str, neuron: SpikingNeuron) -> None:
        super().__init__(name, gated=False, neuron=Population(neuron.settings), coding=SPIKES)
        self.settings = neuron.settings
        self.threshold = neuron.width.new_tensor(neuron.settings.threshold)
        self.register_buffer("gain", None if neuron.gain is None else neuron.gain.detach().clone())

    def forward(self, r_in: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """Return the spikes of one step from rest, for where only shapes matter."""
        return fires(charge(r_in, None, self.settings, self.gain), self.settings).to(r_in.dtype)


class MeanSite(Site):
    """Passes on the mean of what has reached it so far: the answer of the network."""

    def __init__(self, name: str) -> None:
        silent = Population(NeuronSettings(kind="if"))
        super().__init__(name, gated=False, neuron=silent, coding=MeanCoding())


aten = torch.ops.aten
METHOD = "direct"


class DirectNetwork(SpikingNetwork):
    """A network trained through time, ready for `topospike.evaluate`. Made by `spiking_network`.

    Parameters
    ----------
    ann, report
        As of `topospike.snn.SpikingNetwork`.
    trained_timesteps
        Steps the network was trained with.
    """

    def __init__(
        self,
        ann: fx.GraphModule,
        report: ConversionReport,
        *,
        trained_timesteps: int,
    ) -> None:
        super().__init__(ann, report)
        self.trained_timesteps = trained_timesteps

    @torch.no_grad()
    def analog(self, x: Inputs) -> Tensor:
        """Return the output after the steps the network was trained with."""
        return self(x, self.trained_timesteps)[-1]

    @property
    def sees_mean(self) -> bool:
        """No: of frames it reads the present one."""
        return False

    def order_of(self, frames: tuple[Tensor, ...], timesteps: int, hold: int | None) -> Shown:
        """Return how frames follow one another: as in training, unless ``hold`` says otherwise."""
        order = shown_in_training(frames, self.trained_timesteps)
        order = order if hold is None else replace(order, hold=hold)
        if timesteps > order.length:
            raise ConfigError(
                f"timesteps is {timesteps}, and {len(frames[0])} frames of {order.hold} step(s) "
                f"last {order.length}; a network trained through time reads the present frame at "
                "every step. Give fewer steps, or more frames."
            )
        return order


def spiking_network(
    model: SpikingModel, example: Float[Tensor, "batch ..."], *, verify: bool = True
) -> DirectNetwork:
    """Turn a trained spiking model into a network that can be evaluated at every t.

    Parameters
    ----------
    model
        Trained; not changed. Its masks are inherited.
    example
        One batch of images, or of frames, of which the health of the populations is read too.
    verify
        Compare the answers on the example with the model's own.

    Raises
    ------
    ConversionError
        If the graph cannot be captured, or the two disagree.

    Notes
    -----
    Batch norms stay as they are. ``dead_share`` of a population is the share of its neurons that
    are silent on the example at every step, ``saturated_share`` of those that fire at every step
    for some image.

    Examples
    --------
    >>> from torch import nn
    >>> from topospike.direct import spiking_model
    >>> x = torch.rand(8, 4)
    >>> model = spiking_model(nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)))
    >>> spiking_network(model, x)(x, timesteps=8).shape
    torch.Size([8, 8, 3])
    """
    image = example if model.input == "image" else example[0]
    network = copy.deepcopy(capture_step(model, image)).requires_grad_(False)
    placed = place_membrane_sites(network, model)
    inherit_masks(model, network)
    report = ConversionReport(
        method=METHOD,
        coding=SPIKES.name,
        neuron=", ".join(dict.fromkeys(site.settings.kind for site, _ in placed)),
        levels=1,
        solver="trained",
        granularity="layer",
        calibration_images=0,
        batch_norms_folded=(),
        sites=health(network, placed, example, model),
        layers=tuple(
            LayerInput(layer.name, layer.kind, layer.fed_by, layer.reason)
            for layer in find_weight_layers(network)
        ),
        input=model.input,
    )
    result = DirectNetwork(network, report, trained_timesteps=model.timesteps)
    if verify:
        require_same_answers(model, result, example)
    return result


def capture_step(model: SpikingModel, example: Tensor) -> fx.GraphModule:
    """Capture one evaluation of the network, a ReLU marking the place of every population."""
    populations = list(model.neurons.values())
    for neuron in populations:
        neuron.is_capturing = True
    try:
        return capture(OneStep(model), example)
    finally:
        for neuron in populations:
            neuron.is_capturing = False


class OneStep(torch.nn.Module):
    """A spiking model evaluated for a single step; parameters have the model's own names."""

    def __init__(self, model: SpikingModel) -> None:
        super().__init__()
        for name, child in model.named_children():
            self.add_module(name, child)
        for name, parameter in model.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in model.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        self.generated = model.generated_step()

    def forward(self, x: Tensor) -> Tensor:
        """Evaluate the network once."""
        return self.generated(self, x)


def place_membrane_sites(
    network: fx.GraphModule, model: SpikingModel
) -> list[tuple[MembraneSite, fx.Node]]:
    """Put a site where each population's mark is; return them in execution order."""
    network.add_submodule("spiking_sites", torch.nn.Module())
    populations = model.neurons
    placed: list[tuple[MembraneSite, fx.Node]] = []
    for node in list(network.graph.nodes):
        module, _, name = node_module(node).rpartition(".")
        if node.target is not aten.relu.default or module != NEURONS:
            continue
        site = MembraneSite(name, populations[name])
        network.add_submodule(f"spiking_sites.{name}", site)
        with network.graph.inserting_before(node):
            call = network.graph.call_module(f"spiking_sites.{name}", (node.args[0],))
        call.meta.update(node.meta)
        node.replace_all_uses_with(call)
        network.graph.erase_node(node)
        placed.append((site, call))
    put_mean(network)
    missing = set(populations) - {site.name for site, _ in placed}
    if missing:
        raise ConversionError(
            f"population {sorted(missing)[0]!r} does not appear in the captured graph; its output "
            "is not used. Remove that branch of the model."
        )
    network.graph.lint()
    network.recompile()
    return placed


def put_mean(network: fx.GraphModule) -> None:
    """Let the network return the mean of its outputs so far."""
    output = next(node for node in network.graph.nodes if node.op == "output")
    result: fx.Node = output.args[0]  # pyright: ignore[reportAssignmentType]
    network.add_submodule("spiking_sites.output_mean", MeanSite("output_mean"))
    with network.graph.inserting_before(output):
        call = network.graph.call_module("spiking_sites.output_mean", (result,))
    call.meta.update(result.meta)
    output.args = (call,)


@torch.no_grad()
def health(
    network: fx.GraphModule,
    placed: list[tuple[MembraneSite, fx.Node]],
    example: Tensor,
    model: SpikingModel,
) -> tuple[SiteReport, ...]:
    """Run the example, and say how many neurons of each population are dead or saturated."""
    timesteps = model.timesteps
    counts: dict[str, Tensor] = {}
    program = Program(network)
    images = model.input == "image"
    order = Shown((example[None],)) if images else shown_in_training((example,), timesteps)
    state = program.start(order.first)
    for t, moment in enumerate(order.moments(timesteps), start=1):
        state = program.show(moment.inputs, state) if moment.changed and t > 1 else state
        _, state = program.step(t, state)
        for site, held in zip(program.sites, state.sites, strict=True):
            if held.spikes is not None:
                counts[site.name] = counts.get(site.name, 0) + held.spikes
    return tuple(
        SiteReport(
            name=site.name,
            op=site.settings.kind,
            module=site.name,
            sources=tuple(layer for layer, to in model.feeding.items() if to == site.name),
            channels=counts[site.name].shape[1],
            threshold_min=site.settings.threshold,
            threshold_mean=site.settings.threshold,
            threshold_max=site.settings.threshold,
            dead_share=float((counts[site.name].amax(0) == 0).double().mean()),
            saturated_share=float((counts[site.name].amax(0) == timesteps).double().mean()),
        )
        for site, _ in placed
    )


@torch.no_grad()
def require_same_answers(model: SpikingModel, network: DirectNetwork, example: Tensor) -> None:
    """Raise unless the network answers on the example as the model does."""
    with evaluating(model):
        expected = model(example)
    found = network.analog(example)
    if found.shape != expected.shape:
        raise ShapeError(f"{tuple(found.shape)} came out, not {tuple(expected.shape)}.")
    # a membrane that rounding leaves on the other side of a threshold moves an answer by 1/T
    differing = int(((found - expected).abs() > 1e-4).any(1).sum())
    if differing > max(1, len(found) // 20):
        raise ConversionError(
            f"the captured network answers differently on {differing} of {len(found)} images. "
            "Its forward pass must not depend on anything but the image and the populations."
        )

"""Stage direct: any network with neurons in the place of its activations, run for T steps.

The graph of one evaluation is read with `torch.fx`; every activation (a module, or a functional
ReLU) becomes a population of its own, so one ReLU module that is called twice becomes two. The
image is the input at every step (of frames, step t reads frame t), layers act on spikes, batch
norms see one step at a time, and the answer is the mean over time of the last layer's spikes (or of
its inputs).

    r = (1/T) sum_t a[t],   a[t] = the output of the network at step t

Modules, parameters and masks are the given network's own, under their names.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn
from torch.nn import functional as F

from topospike.direct.neurons import SpikingNeuron
from topospike.errors import ConfigError, ConversionError
from topospike.recipe import DirectSettings, NeuronSettings
from topospike.registry import suggestion
from topospike.snn.executors.split import generated_function
from topospike.snn.frames import Shown, check_input

NEURONS = "spiking_neurons"
OUTPUTS = ("spikes", "membrane")
ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU,
    nn.Mish, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid,
)  # fmt: skip
RELU_FUNCTIONS = (torch.relu, torch.relu_, F.relu, F.relu_, F.relu6)
RELU_METHODS = ("relu", "relu_")
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class SpikingModel(nn.Module):
    """A network to be trained through time. Made by `spiking_model`, not by hand.

    Attributes
    ----------
    timesteps : int
        Steps of one forward pass.
    feeding : dict
        Name of a weight layer -> name of the population that receives its output.
    weight_layers : tuple of str
        Convolutions and linear layers in the order in which they run.
    input : {"image", "frames", "events"}
        What a forward pass is given: images, or frames (frame, batch, ...).
    """

    def __init__(
        self,
        traced: fx.GraphModule,
        *,
        timesteps: int,
        feeding: dict[str, str],
        input: str = "image",
    ) -> None:
        super().__init__()
        called = [str(node.target) for node in traced.graph.nodes if is_weight_layer(node, traced)]
        self.weight_layers = tuple(dict.fromkeys(called))
        for name, child in traced.named_children():
            if hasattr(self, name):
                raise ConversionError(
                    f"the network has a module {name!r}, a name that a spiking model needs for "
                    "itself. Rename it, or wrap the network: nn.Sequential(network)."
                )
            self.add_module(name, child)
        for name, parameter in traced.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in traced.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        self.timesteps = timesteps
        self.feeding = feeding
        self.input = input
        self._graph = traced.graph
        self._step: Callable[..., Tensor] | None = None

    @property
    def hidden_layers(self) -> tuple[str, ...]:
        """The layers but the classifier, which is the linear layer that runs last."""
        layers = self.weight_layers
        linear = [name for name in layers if isinstance(self.get_submodule(name), nn.Linear)]
        return tuple(name for name in layers if name != (linear or layers)[-1])

    @property
    def neurons(self) -> dict[str, SpikingNeuron]:
        """The populations by name, in the order in which they run."""
        found = self.get_submodule(NEURONS).named_children()
        return {name: module for name, module in found if isinstance(module, SpikingNeuron)}

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "batch classes"]:
        """Run ``timesteps`` steps from rest and return the mean output."""
        outputs = [output for _, output in zip(range(self.timesteps), self.steps(x), strict=False)]
        return torch.stack(outputs).mean(0)

    def steps(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the output of step 1, 2, ..., from rest; without end, if ``x`` is an image.

        Of F frames each is shown for ``timesteps / F`` steps.

        Raises
        ------
        ConfigError
            If the frames do not divide the steps.
        """
        shown = itertools.repeat(x) if self.input == "image" else self.present_frames(x)
        populations = list(self.neurons.values())
        for neuron in populations:
            neuron.reset()
        try:
            for frame in shown:
                yield self.step(frame)
        finally:
            for neuron in populations:
                neuron.reset()

    def present_frames(self, frames: Float[Tensor, "frame batch ..."]) -> Iterator[Tensor]:
        """Yield the frame that each step reads."""
        order = shown_in_training((frames,), self.timesteps)
        for moment in order.moments(order.length):
            yield moment.inputs[0]

    def step(self, x: Tensor) -> Tensor:
        """Evaluate the network once, its populations taking one step."""
        if self._step is None:
            self._step = self.generated_step()
        return self._step(self, x)

    def generated_step(self) -> Callable[..., Tensor]:
        """Return the function ``step(module, x)`` that evaluates the network once."""
        return generated_function(self._graph)

    def __getstate__(self) -> dict[str, Any]:
        # A generated function cannot be copied; it is made again from the graph.
        return {**self.__dict__, "_step": None}


def shown_in_training(frames: tuple[Tensor, ...], timesteps: int) -> Shown:
    """Return how frames are shown to a network trained through time over so many steps.

    Examples
    --------
    >>> shown_in_training((torch.zeros(4, 2, 3),), 8).hold
    2
    """
    count = len(frames[0])
    if count == 0 or timesteps % count:
        raise ConfigError(
            f"{count} frames were given to a network of {timesteps} steps, which are no multiple; "
            "each frame is shown for the same number of steps. Cut recordings into as many frames "
            "as there are steps (data.events.frames, direct.timesteps), or a part of it."
        )
    return Shown(frames, timesteps // count, mean=False)


def spiking_model(
    model: nn.Module,
    settings: DirectSettings | None = None,
    *,
    input: str = "image",
) -> SpikingModel:
    """Put spiking neurons in the place of a network's activations.

    Parameters
    ----------
    model
        Any network `torch.fx` can trace whose activations are modules or functional ReLUs. Its
        modules become part of the result and train with it.
    settings
        Steps, neurons and output; the rest is not read here.
    input
        ``image``: the same at every step; ``frames`` or ``events``: (frame, batch, ...), step t
        reads frame t.

    Returns
    -------
    SpikingModel
        Maps images to one number per class, as the network did; parameters keep their names.

    Raises
    ------
    ConversionError
        If the network cannot be traced, or has no activation to replace.
    ConfigError
        If ``timesteps`` is below 1, or a neuron, the output or the input is unknown.

    Notes
    -----
    A population is of the ``conv`` or the ``linear`` kind by the nearest weight layer before it.
    Max-pools act on spikes where they stand. The image enters as numbers at every step ("direct"
    coding), so the first layer multiplies. Han et al. (2022), as released.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    >>> spiking = spiking_model(net, DirectSettings(timesteps=4))
    >>> spiking(torch.rand(2, 4)).shape, spiking.feeding
    (torch.Size([2, 3]), {'0': '1', '2': 'output'})
    """
    settings = settings or DirectSettings()
    check_input(input)
    if settings.timesteps < 1:
        raise ConfigError(f"timesteps is {settings.timesteps}; at least 1 is required.")
    if settings.output not in OUTPUTS:
        raise ConfigError(
            f"output={settings.output!r} is unknown. Known: {', '.join(OUTPUTS)}."
            f"{suggestion(settings.output, OUTPUTS)}"
        )
    traced = trace(model)
    places = find_activations(traced)
    if not places:
        raise ConversionError(
            f"{type(model).__name__} has no activation to put spiking neurons at: activation "
            "modules and functional ReLUs are known. Write the activation as nn.ReLU()."
        )
    traced.add_submodule(NEURONS, nn.Module())
    feeding: dict[str, str] = {}
    for node in places:
        feeding |= put_population(traced, node, name_of(node, traced), settings)
    if settings.output == "spikes":
        feeding |= put_population(traced, output_of(traced.graph), "output", settings)
    traced.graph.eliminate_dead_code()
    traced.graph.lint()
    return SpikingModel(traced, timesteps=settings.timesteps, feeding=feeding, input=input)


def trace(model: nn.Module) -> fx.GraphModule:
    """Read the graph of one evaluation, torch's own layers whole."""
    try:
        return fx.symbolic_trace(model)
    except Exception as error:  # any code of the user's may run, and fail in any way, in here
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise ConversionError(
            f"{type(model).__name__} cannot be traced by torch.fx ({type(error).__name__}: "
            f"{reason}), so its activations cannot be replaced. Remove control flow that depends "
            "on tensors from its forward pass, or build it with SpikingNeuron modules."
        ) from error


def find_activations(traced: fx.GraphModule) -> list[fx.Node]:
    """Return the nodes whose result is an activation, in execution order."""
    return [node for node in traced.graph.nodes if is_activation(node, traced)]


def is_activation(node: fx.Node, traced: fx.GraphModule) -> bool:
    """Tell whether a node is an activation module, or a functional ReLU however it is written."""
    if node.op == "call_module":
        return isinstance(traced.get_submodule(str(node.target)), ACTIVATIONS)
    if node.op == "call_function":
        return node.target in RELU_FUNCTIONS or (
            node.target in (torch.clamp, torch.clamp_min) and lower_bound(node) == 0
        )
    if node.op == "call_method":
        return node.target in RELU_METHODS or (
            node.target in ("clamp", "clamp_min") and lower_bound(node) == 0
        )
    return False


def lower_bound(node: fx.Node) -> object:
    """Return the ``min`` of a clamp."""
    return node.args[1] if len(node.args) > 1 else node.kwargs.get("min")


def name_of(node: fx.Node, traced: fx.GraphModule) -> str:
    """Name a population after its place; the names of a network's populations differ."""
    named = node.op == "call_module"
    base = str(node.target).replace(".", "_") if named else node.name
    taken = dict(traced.get_submodule(NEURONS).named_children())
    return base if base not in taken else f"{base}_again_{len(taken)}"


def output_of(graph: fx.Graph) -> fx.Node:
    """Return the node whose value the network returns."""
    result = next(node for node in graph.nodes if node.op == "output").args[0]
    if not isinstance(result, fx.Node):
        raise ConversionError(
            f"the network returns a {type(result).__name__}; one tensor of logits is required. "
            "Wrap it in a module that returns them."
        )
    return result


def put_population(
    traced: fx.GraphModule, node: fx.Node, name: str, settings: DirectSettings
) -> dict[str, str]:
    """Let a population take the place of an activation, or follow the output.

    Returns the weight layers that feed it, each with the population's name.
    """
    layers = feeding_layers(node, traced)
    neuron = SpikingNeuron(neuron_behind(layers, traced, settings))
    source = node if name == "output" else node.all_input_nodes[0]
    traced.add_submodule(f"{NEURONS}.{name}", neuron)
    with traced.graph.inserting_after(node):
        call = traced.graph.call_module(f"{NEURONS}.{name}", (source,))
    node.replace_all_uses_with(call, delete_user_cb=lambda user: user is not call)
    if node is not source:
        traced.graph.erase_node(node)
    return dict.fromkeys(layers, name)


def neuron_behind(
    layers: list[str], traced: fx.GraphModule, settings: DirectSettings
) -> NeuronSettings:
    """Choose the kind of neuron by the nearest weight layer."""
    linear = bool(layers) and not isinstance(traced.get_submodule(layers[0]), CONVOLUTIONS)
    return settings.linear if linear else settings.conv


def feeding_layers(node: fx.Node, traced: fx.GraphModule) -> list[str]:
    """Return the weight layers whose output reaches a node without passing another population."""
    found: list[str] = []
    waiting, seen = [node], {node}
    while waiting:
        current = waiting.pop(0)
        for parent in current.all_input_nodes if not ends(current, node, traced) else ():
            if parent not in seen:
                seen.add(parent)
                waiting.append(parent)
        if is_weight_layer(current, traced):
            found.append(str(current.target))
    return list(dict.fromkeys(found))


def is_weight_layer(node: fx.Node, traced: fx.GraphModule) -> bool:
    """Tell whether a node calls a convolution or a linear layer."""
    return node.op == "call_module" and isinstance(
        traced.get_submodule(str(node.target)), (nn.Linear, *CONVOLUTIONS)
    )


def ends(node: fx.Node, start: fx.Node, traced: fx.GraphModule) -> bool:
    """Tell whether the search for feeding layers goes no further back than this node."""
    if is_weight_layer(node, traced):
        return True
    is_population = node.op == "call_module" and isinstance(
        traced.get_submodule(str(node.target)), SpikingNeuron
    )
    return is_population or (node is not start and is_activation(node, traced))

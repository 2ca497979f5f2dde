"""The spiking network: the ANN's own graph, evaluated once a time step on decoded values.

Each site keeps its decoded output r_out; a step evaluates the ordinary ANN expression on those
outputs. This is algebraically the spike-by-spike simulation (Huang et al. 2025, restated as
equations D1 to D3), with no time axis, no bias pass, and memory that does not grow with T. Few
images leave the processor waiting for weights; then several steps are evaluated together, layer by
layer, as one larger batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn

from topospike.contracts import ConversionReport
from topospike.errors import ConfigError
from topospike.models.inputs import InputForm, Inputs, rows_of
from topospike.snn.cost import CostModel
from topospike.snn.events import LayerRuns, WeightCache, check_executor
from topospike.snn.fanout import Population, Wiring, wire
from topospike.snn.graphs import GraphCache
from topospike.snn.layers import Program, program
from topospike.snn.site import Site
from topospike.snn.split import is_site
from topospike.snn.together import simulate_together, takes_steps_as_images
from topospike.snn.wiring import Layer

LEAST_IMAGES = 16
"""Smallest part into which a batch is divided; below it matrix products lose more than is won."""


class SpikingNetwork(nn.Module):
    """A converted network. Made by `topospike.convert`, not by hand.

    Parameters
    ----------
    ann
        The network's graph with `Site` modules in the place of its activations. Its parameters
        keep the ANN's names (``snn.ann.get_parameter("features.0.weight")``).
    input_shape
        Shape of one image, without the batch axis.
    report
        What the converter did.
    wiring, optional
        Its weight layers, where they are known already; found when they are asked for if not.

    Attributes
    ----------
    executor : str
        How layers are evaluated where a call does not say; see `forward`.
    costs : CostModel
        What the event executor decides by.
    cuda_graphs : bool
        Whether a step is captured and replayed as a whole on a CUDA device. Off by default, for
        it has not been tried on one yet.

    Examples
    --------
    >>> import torch, topospike as ts
    >>> model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    >>> images = torch.rand(32, 4, generator=torch.Generator().manual_seed(0))
    >>> snn = ts.convert(model, calibration=[images], timesteps=8)
    >>> snn(images, timesteps=8).shape
    torch.Size([8, 32, 3])
    """

    def __init__(
        self,
        ann: fx.GraphModule,
        input_shape: tuple[int, ...],
        report: ConversionReport,
        wiring: Wiring | None = None,
    ) -> None:
        super().__init__()
        self.ann = ann
        self.input_shape = input_shape
        self.inputs = InputForm.of(ann)
        self.report = report
        self.executor = "decoded"
        self.costs = CostModel()
        self.cuda_graphs = False
        self._programs: dict[tuple[str, tuple[fx.Node, ...]], Program] = {}
        self._weights = WeightCache()
        self._graphs = GraphCache()
        self._steps_as_images: bool | None = None
        self._wiring = wiring

    @property
    def sites(self) -> dict[str, Site]:
        """The sites by name, in the order in which they run."""
        called = [str(node.target) for node in self.ann.graph.nodes if node.op == "call_module"]
        modules = [self.ann.get_submodule(target) for target in called]
        return {module.name: module for module in modules if isinstance(module, Site)}

    @property
    def wiring(self) -> tuple[Layer, ...]:
        """Every weight layer in execution order: its links, and what an event of each site costs.

        Found once; the links are those of the masks at that time.

        Examples
        --------
        >>> import torch, topospike as ts
        >>> model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
        >>> snn = ts.convert(model, calibration=[torch.rand(32, 4)], timesteps=8)
        >>> first, second = snn.wiring
        >>> first.fed_by, second.fed_by, second.feeds[0].site, second.feeds[0].fan_out.unique()
        ('image', 'spikes', '1', tensor([3.], dtype=torch.float64))
        """
        return self._wired().layers

    @property
    def populations(self) -> dict[str, Population]:
        """The neurons of each site by its name: how many, and where a batch has its images."""
        return self._wired().populations

    def _wired(self) -> Wiring:
        if self._wiring is None:
            self._wiring = wire(self.ann)
        return self._wiring

    def reset(self) -> None:
        """Forget any run in progress; `forward` does this by itself."""
        for site in self.sites.values():
            site.reset()

    def forward(
        self, x: Inputs, timesteps: int, *, executor: str | None = None
    ) -> Float[Tensor, "time batch classes"]:
        """Simulate ``timesteps`` steps and return the logits after each of them.

        ``result[t - 1]`` is the decoded output after t steps, what the papers call the prediction
        "at T = t". One run gives every t, because a step never looks ahead.

        Parameters
        ----------
        x
            Images: a tensor, or, for a network of several inputs, a tuple in their order or a
            dictionary of their names.
        timesteps
            How many steps.
        executor : {"decoded", "bf16", "event"}, optional
            How layers are evaluated: densely on decoded values; so, but with the products in
            bfloat16 (faster, and less exact; `topospike.snn.dense`); or following the neurons
            that fired (CPU; `topospike.snn.events`), the same to rounding. Default:
            ``self.executor``.

        Raises
        ------
        ConfigError
            If ``timesteps`` is below 1, the executor is unknown or cannot run here, or the inputs
            are not those of the network.
        ShapeError
            If the images do not have the shape the network was converted for.
        NonFiniteError
            If the images hold NaN or infinity.
        """
        x = self._checked(x, timesteps)
        parts = max(1, rows_of(x) // self.images_at_once) if x[0].device.type == "cpu" else 1
        divided = zip(*(tensor.tensor_split(parts) for tensor in x), strict=True)
        logits = [self._simulate(part, timesteps, executor) for part in divided]
        return torch.cat(logits, dim=1) if parts > 1 else logits[0]

    def _simulate(self, x: tuple[Tensor, ...], timesteps: int, executor: str | None) -> Tensor:
        """Return the logits of all steps for one part of a batch; nobody sees the spikes."""
        name = self.executor if executor is None else executor
        check_executor(name, self.like)
        together = min(timesteps, self.steps_at_once(x, name))
        if together == 1:
            steps = self.watch(x, timesteps, (), executor=name, record=False)
            # a step may reuse the memory of the step before it, so each result is copied out
            return torch.stack([logits.clone() for _, logits, _ in steps])
        run = LayerRuns(self.ann, self._program((), executor=name), self._weights, self.costs)
        sites = list(self.sites.values())
        try:
            blocks = simulate_together(
                self.ann, run, sites, x, timesteps=timesteps, together=together
            )
            return torch.cat(list(blocks))
        finally:
            self.reset()

    def steps_at_once(self, x: tuple[Tensor, ...], executor: str) -> int:
        """How many steps `forward` evaluates together: 1 unless the images are few.

        As many as make, with the images, a batch of `images_at_once`. That needs a CPU, layers
        that keep nothing from step to step (the event executor's do), sites that do nothing but
        fire, and a graph in which the first axis counts images wherever a site is.
        """
        images = rows_of(x)
        if executor == "event" or x[0].device.type != "cpu" or images == 0:
            return 1
        together = self.images_at_once // images
        if together > 1 and self._steps_as_images is None:
            self._steps_as_images = takes_steps_as_images(self.ann, list(self.sites.values()), x)
        return together if together > 1 and self._steps_as_images else 1

    @property
    def images_at_once(self) -> int:
        """How many images of a batch, at least, run through all their steps together on a CPU.

        Few, so that their state stays in the processor's cache from step to step; but so many
        that the state outweighs the weights, which have to be fetched for every part. `forward`
        alone divides a batch; `steps` and `watch` show whole ones.
        """
        weights = sum(parameter.nbytes for parameter in self.ann.parameters())
        calls = [node for node in self.ann.graph.nodes if is_site(node, self.ann)]
        shapes = [node.meta["val"].shape for node in calls if "val" in node.meta]
        item = max((p.element_size() for p in self.ann.parameters()), default=4)
        state = item * sum(math.prod(int(size) for size in shape[1:]) for shape in shapes)
        return max(LEAST_IMAGES, math.ceil(weights / max(state, 1)))

    def steps(
        self, x: Inputs, timesteps: int, *, executor: str | None = None
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield ``(t, logits)`` for t = 1..timesteps, so that a caller can look between steps.

        The logits are valid until the next step; ``clone()`` what is to be kept.
        """
        for t, logits, _ in self.watch(x, timesteps, (), executor=executor):
            yield t, logits

    @torch.no_grad()
    def watch(
        self,
        x: Inputs,
        timesteps: int,
        nodes: Sequence[fx.Node],
        *,
        executor: str | None = None,
        record: bool = True,
    ) -> Iterator[tuple[int, Tensor, tuple[Any, ...]]]:
        """Yield ``(t, logits, values)`` with the values of ``nodes`` of the graph at each step.

        Without ``record`` the sites need not keep their ``spikes``.
        """
        x = self._checked(x, timesteps)
        name = self.executor if executor is None else executor
        check_executor(name, self.like)
        sites = list(self.sites.values())
        plan = self._program(tuple(nodes), executor=name)
        if plan.channels_last:
            x = tuple(channels_last(tensor) for tensor in x)
        image_part, step_part = plan.parts
        run = LayerRuns(self.ann, plan, self._weights, self.costs)
        try:
            cached = image_part(self.ann, *x)
            for site in sites:
                site.record = record or name == "event"
            graph = None
            if x[0].is_cuda and self.cuda_graphs:
                graph = self._graphs.get((name, tuple(nodes), record), run, sites, cached)
            for t in range(1, timesteps + 1):
                for site in (*sites, run):
                    site.time_step = t
                results = graph(t) if graph else step_part(self.ann, run, *cached)
                yield t, results[0], tuple(results[1:])
        finally:
            self.reset()

    def _program(self, watched: tuple[fx.Node, ...], *, executor: str) -> Program:
        key = executor, watched
        if key not in self._programs:
            self._programs[key] = program(self.ann, watched, executor=executor)
        return self._programs[key]

    @torch.no_grad()
    def analog(self, x: Inputs) -> Tensor:
        """Return the logits of the ANN itself (batch norms folded as in the spiking network)."""
        return self.ann(*self._checked(x, 1))

    @property
    def like(self) -> Tensor:
        """A tensor of the device and type the network computes in, whatever its inputs are."""
        return next(iter(self.sites.values())).threshold

    def _checked(self, x: Inputs, timesteps: int) -> tuple[Tensor, ...]:
        """Return the input tensors in the order of the graph, once a run can begin."""
        if any(site.time_step for site in self.sites.values()):
            raise ConfigError(
                "a simulation of this network is in progress, and its sites hold that run's "
                "state. Finish the loop over steps() first, call reset() to abandon it, or "
                "simulate a copy.deepcopy of the network."
            )
        if timesteps < 1:
            raise ConfigError(
                f"timesteps is {timesteps}; at least 1 is required. Pass timesteps=8 for DCGS, "
                "16 or more for rate coding."
            )
        return self.inputs.leaves(x)

    def __getstate__(self) -> dict[str, Any]:
        # Generated functions cannot be copied; they are made again from the copied graph.
        fresh = {"_programs": {}, "_weights": WeightCache(), "_graphs": GraphCache()}
        fresh |= {"_wiring": None}
        return {**self.__dict__, **fresh}


def channels_last(x: Tensor) -> Tensor:
    """Return images with their channels last in memory, and anything else as it is."""
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x

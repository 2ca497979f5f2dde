"""The spiking network: the ANN's own graph, evaluated once a time step on decoded values.

Each site keeps its decoded output r_out; a step evaluates the ordinary ANN expression on those
outputs. This is algebraically the spike-by-spike simulation (Huang et al. 2025, restated as
equations D1 to D3), with no time axis, no bias pass, and memory that does not grow with T. Few
images leave the processor waiting for weights; then several steps are evaluated together, layer by
layer, as one larger batch. Input that changes with time is seen as the mean of the frames so far
(`topospike.snn.frames`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn

from topospike.contracts import ConversionReport
from topospike.errors import ConfigError
from topospike.models.inputs import Batch, InputForm, Inputs, leaves, split_batch
from topospike.snn.batches import division
from topospike.snn.coding import SiteState
from topospike.snn.executors.choice import ExecutorChoice, executor_for
from topospike.snn.executors.forms import CostModel
from topospike.snn.executors.program import Executor, Program, site_of
from topospike.snn.executors.steps import blocks
from topospike.snn.frames import Shown, check_run, mean_of, tensors_of
from topospike.snn.records import Settled, StepRecord, silent_from
from topospike.snn.site import Site
from topospike.wiring.arrivals import with_arrivals
from topospike.wiring.fanout import Population, Wiring, wire
from topospike.wiring.graph import site_calls
from topospike.wiring.layers import Layer
from topospike.wiring.tokens import Tokens

if TYPE_CHECKING:
    from topospike.measure.stream import FrameRecord

AT_MOST = 64
"""Steps after which a run until silence is given up."""


class SpikingNetwork(nn.Module):
    """A converted network. Made by `topospike.convert`, not by hand.

    Parameters
    ----------
    ann
        The network's graph with `Site` modules in the place of its activations. Its parameters
        keep the ANN's names (``snn.ann.get_parameter("features.0.weight")``).
    report
        What the converter did.
    wiring, optional
        Its weight layers, where they are known already; found when they are asked for if not.

    Attributes
    ----------
    inputs : InputForm
        Names, shapes and types of the input tensors, as the graph has them.
    executor : str
        How layers are evaluated where a call does not say; see `forward`.
    costs : CostModel
        What the event executor decides by.

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
        report: ConversionReport,
        wiring: Wiring | None = None,
    ) -> None:
        super().__init__()
        self.ann = ann
        self.inputs = InputForm.of(ann)
        self.report = report
        self.executor = "decoded"
        self.choice: ExecutorChoice | None = None
        self.costs = CostModel()
        self._programs: dict[tuple[Any, ...], Program] = {}
        self.steps_as_images: bool | None = None
        self._wiring = wiring

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image, without the batch axis; `ConfigError` for several inputs."""
        return self.inputs.only_shape

    @property
    def sites(self) -> dict[str, Site]:
        """The sites by name, in the order in which they run."""
        called = [site_of(node, self.ann) for node in site_calls(self.ann)]
        return {site.name: site for site in called}

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

    @property
    def tokens(self) -> Tokens | None:
        """The tokens that the network reads, if it does, and which input says what is padding."""
        return self._wired().tokens

    def _wired(self) -> Wiring:
        if self._wiring is None:
            found, by_frames = wire(self.ann), self.report.input != "image"
            self._wiring = with_arrivals(found, self.ann) if by_frames else found
        return self._wiring

    def reset(self) -> None:
        """Do nothing: every call starts anew, and a run's state belongs to the run alone."""

    def forward(
        self,
        x: Inputs,
        timesteps: int | str,
        *,
        hold: int | None = None,
        executor: str | None = None,
    ) -> Float[Tensor, "time batch ..."]:
        """Simulate ``timesteps`` steps and return the logits after each of them.

        ``result[t - 1]`` is the decoded output after t steps, what the papers call the prediction
        "at T = t" (NaN up to the delay of a delayed readout). A step never looks ahead.

        Parameters
        ----------
        x
            Images: a tensor, or, for a network of several inputs, a tuple in their order or a
            dictionary of their names. For a network converted with ``input="frames"`` or
            ``"events"``: frames, (frame, batch, ...); step t reads frame t, and after the last one
            the network settles.
        timesteps
            How many steps, fewer than there are frames too; ``"silent"``: until no neuron fires,
            as `settle`.
        hold
            Steps each frame is shown for; default 1.
        executor : {"decoded", "bf16", "event", "integer", "auto"}, optional
            How layers are evaluated: densely on decoded values; so, but in bfloat16 (less exact);
            following the neurons that fired (CPU); on whole numbers (`topospike.quantise_weights`);
            or the fastest of these, tried once (``self.choice``). Default: ``self.executor``.

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
        if isinstance(timesteps, str):
            if timesteps != "silent":
                raise ConfigError(f"timesteps is {timesteps!r}; a number or 'silent' is required.")
            return self.settle(x, hold=hold, executor=executor).logits
        shown = self.shown(x, timesteps, hold=hold)
        chosen = executor_for(self, executor, x, timesteps)
        images, together = division(self, shown, timesteps, chosen)
        program = self.program(chosen)
        layers = program.first_layers()
        runs = (
            blocks(program, part, timesteps, together=together, layers=layers)
            for part in shown.divided(images)
        )
        # a step may reuse the memory of the step before it, so each result is copied out
        logits = [torch.cat([block.logits.clone() for block in run]) for run in runs]
        return torch.cat(logits, dim=1) if len(logits) > 1 else logits[0]

    def steps(
        self, x: Inputs, timesteps: int, *, hold: int | None = None, executor: str | None = None
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield ``(t, logits)`` for t = 1..timesteps; ``clone()`` what is to outlive a step."""
        for step in self.watch(x, timesteps, hold=hold, executor=executor, record=False):
            yield step.t, step.logits

    @torch.no_grad()
    def watch(
        self,
        x: Inputs,
        timesteps: int,
        nodes: Sequence[fx.Node] = (),
        *,
        hold: int | None = None,
        executor: str | None = None,
        record: bool = True,
    ) -> Iterator[StepRecord]:
        """Yield what happens at each step: logits, spikes, and the values of some graph nodes.

        Without ``record`` the sites need not keep their ``spikes``.

        Examples
        --------
        >>> import topospike as ts
        >>> model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
        >>> x = torch.rand(32, 4)
        >>> snn = ts.convert(model, calibration=[x])
        >>> [int(step.sites["1"].spikes.count_nonzero()) > 0 for step in snn.watch(x, 2)]
        [True, True]
        """
        shown = self.shown(x, timesteps, hold=hold)
        chosen = executor_for(self, executor, x, timesteps)
        program = self.program(chosen, tuple(nodes))
        for block in blocks(program, shown, timesteps, record=record):
            yield from block.steps

    @torch.no_grad()
    def settle(
        self,
        x: Inputs,
        at_most: int = AT_MOST,
        *,
        hold: int | None = None,
        executor: str | None = None,
    ) -> Settled:
        """Simulate until no neuron fires: more steps would change nothing.

        Parameters
        ----------
        x
            Images, as in `forward`.
        at_most
            Steps after which the run ends anyway; ``silent`` names the images it ends for too soon.
        hold, executor
            As in `forward`.

        Raises
        ------
        ConfigError
            If the network's coding never lets neurons fall silent (every one but sigma-delta).

        Examples
        --------
        >>> import topospike as ts
        >>> model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
        >>> x = torch.rand(32, 4)
        >>> run = ts.convert(model, "sigma-delta", calibration=[x]).settle(x)
        >>> bool(run.silent.all()), int(run.spikes[-1].sum()), run.logits.shape[1:]
        (True, 0, torch.Size([32, 3]))
        """
        self.require_settling("a run until silence")
        first = max(silent_from(self.sites.values()), self.shown(x, at_most, hold=hold).length)
        logits, spikes = [], []
        for step in self.watch(x, at_most, hold=hold, executor=executor):
            logits.append(step.logits.clone())
            spikes.append(self.spikes_of_images(step.sites))
            if step.silent:
                break
        fired = torch.stack(spikes)
        steps = torch.arange(1, len(fired) + 1, device=fired.device)[:, None]
        last = torch.where(fired > 0, steps, 0).amax(0)
        silent = (fired[-1] == 0) & (len(fired) >= first)
        return Settled(torch.stack(logits), last, silent, fired)

    @property
    def settles(self) -> bool:
        """Whether every neuron falls silent while the input stays, whatever the state before."""
        return all(site.coding.settles for site in self.sites.values())

    def spikes_of_images(self, sites: Mapping[str, SiteState]) -> Tensor:
        """Return how many neurons fired for each image of a batch, given the sites after a step."""
        counts = [
            self.populations[name].images.by_image(state.spikes).flatten(1).count_nonzero(1)
            for name, state in sites.items()
            if state.spikes is not None
        ]
        return torch.stack(counts).sum(0)

    def require_settling(self, what: str) -> None:
        """Raise `ConfigError` unless every site falls silent while its input stays."""
        for site in self.sites.values():
            if not site.coding.settles:
                raise ConfigError(
                    f"{what} needs neurons that fall silent; those of {site.coding.name!r} coding "
                    "never do. Convert by method='sigma-delta', or give a number of time steps."
                )

    def stream(
        self,
        frames: Iterable[Inputs],
        steps: int = 2,
        *,
        first: int | None = None,
        executor: str | None = None,
    ) -> Iterator[FrameRecord]:
        """Show frames one after the other with the state kept: only what changes costs energy.

        Each frame is the *present* input, which the network goes on to from the one before; see
        `topospike.measure.stream`, which this calls, for parameters and an example.
        """
        from topospike.measure.stream import stream

        return stream(self, frames, steps, first=first, executor=executor)

    def program(
        self,
        executor: Executor,
        watched: tuple[fx.Node, ...] = (),
        sent: tuple[fx.Node, ...] | None = None,
    ) -> Program:
        """Return how an executor runs this network; made once for a device and precision."""
        like, delay = self.like, self.report.readout_delay
        key = executor, watched, sent, self.costs, like.device, like.dtype, delay
        if key not in self._programs:
            self._programs[key] = executor.prepare(self, watched, sent)
        return self._programs[key]

    @property
    def like(self) -> Tensor:
        """A tensor of the device and precision the network computes in."""
        return site_of(site_calls(self.ann)[0], self.ann).threshold

    @torch.no_grad()
    def analog(self, x: Inputs) -> Tensor:
        """Return the logits of the ANN itself (batch norms folded as in the spiking network).

        Of frames it is shown the mean.
        """
        return self.ann(*leaves(mean_of(self.shown(x, 1).frames)))

    def split(self, batch: Batch, what: str) -> tuple[tuple[Tensor, ...], Any]:
        """Divide a batch of a loader into input tensors (images, or frames) and the target."""
        x, target = split_batch(batch, lambda given: min(given, len(self.inputs.names)), what)
        return tensors_of(self.inputs, x, self.report.input), target

    def shown(self, x: Inputs, timesteps: int, *, hold: int | None = None) -> Shown:
        """Return what a run is shown, once it can begin."""
        check_run(timesteps, hold, self.report.input)
        tensors = tensors_of(self.inputs, x, self.report.input)
        if self.report.input == "image":
            return Shown(tuple(tensor[None] for tensor in tensors))
        return self.order_of(tensors, timesteps, hold)

    @property
    def sees_mean(self) -> bool:
        """Whether the network reads frames and sees their running mean."""
        return self.report.input != "image"

    def order_of(self, frames: tuple[Tensor, ...], timesteps: int, hold: int | None) -> Shown:
        """Return how frames follow one another: a converted network sees their running mean."""
        return Shown(frames, hold or 1)

    def __getstate__(self) -> dict[str, Any]:
        # Generated functions cannot be copied; they are made again from the copied graph.
        return {**self.__dict__, "_programs": {}, "_wiring": None}

r"""Convert: train a converted network on, through its own time steps, with its links kept.

A conversion leaves two errors that training before it cannot see: rounding to few steps, and spikes
that come unevenly. Here the weights are trained on in the spiking network itself: forward is the
simulation, value for value; backward, spikes have a surrogate derivative. Thresholds, codings and
masks stay what they are, so the result is a network of the same method, to be saved, counted and
exported like any other.

Spikes are steps of the membrane u, whose derivative is zero almost everywhere. Backward, a spike
counts as

.. math:: \frac{\partial s}{\partial u} = h(u), \qquad h = 1 \text{ where } s \text{ can follow } u

IF neurons: the rectangle of width :math:`\theta` around the threshold (Wu et al. 2018, h1), of area
1 in units of :math:`\theta`. Staircases, several thresholds or whole numbers: 1 from the lowest to
the highest value they can send, the straight-through estimator (Bengio et al. 2013). Forward values
are those of the simulation, to the bit; everything else of a step is differentiated as it is
written, so the gradient runs through decoded values, hence through time.

Source: Rathi et al. (ICLR 2020), conversion as the start of training through time; Deng et al.
(ICLR 2022), the loss at every step.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam, Optimizer

from topospike.conversion.methods.layer_by_layer import LayerByLayer
from topospike.conversion.methods.method import METHODS
from topospike.conversion.methods.shifts import ShiftedSite
from topospike.errors import ConfigError, ConversionError, MissingDataError, NonFiniteError
from topospike.models.inputs import Batch
from topospike.progress import progress
from topospike.snn.coding import SiteState
from topospike.snn.executors.split import repeated
from topospike.snn.executors.steps import Visitor
from topospike.snn.frames import Shown
from topospike.snn.network import SpikingNetwork
from topospike.snn.neurons import (
    Identity,
    MultiThreshold,
    Neuron,
    SignedIntegrateAndFire,
    Uniform,
)
from topospike.snn.records import answer_stays, first_answer
from topospike.snn.site import START, Rule, Site, decoded_of, written_out
from topospike.topology import check_masks, enforce, masks_of

Loss = Callable[[Tensor, Tensor], Tensor]


def fine_tune(
    snn: SpikingNetwork,
    batches: Iterable[Batch],
    timesteps: int = 4,
    *,
    epochs: int = 1,
    learning_rate: float = 1e-4,
    optimizer: Callable[..., Optimizer] = Adam,
    loss: Loss = F.cross_entropy,
    hold: int | None = None,
) -> SpikingNetwork:
    """Return a converted network whose weights were trained on through its time steps.

    Parameters
    ----------
    snn
        A converted network, of any method; it is not changed.
    batches
        Training batches (inputs, target), as `topospike.evaluate` takes them; gone through once an
        epoch, so that several epochs need a list or a loader.
    timesteps
        Steps of a run, which are those the network will be good at. Layers that wait for one
        another (``phase`` and so on) are trained on their whole answer.
    epochs, learning_rate
        How often, and how fast.
    optimizer
        Called with the parameters and ``lr``; Adam without weight decay unless given.
    loss
        ``(outputs, targets) -> number``; its mean over the steps with an answer is descended.
    hold
        Of frames: steps each is shown for.

    Returns
    -------
    SpikingNetwork
        Of the same method, thresholds and links. ``analog`` and an evaluation's ``ann_accuracy``
        are then those of the ANN with the new weights, which was not trained as such.

    Raises
    ------
    ConversionError
        If the network was not converted (trained through time), or no weight can be trained.
    ConfigError
        If a number is below 1, the rate is not positive, or a batch has no target.
    MissingDataError
        If an epoch has no batch.
    NonFiniteError
        If the loss is not finite; nothing is returned then.

    Notes
    -----
    The gradient runs back through all steps, so memory grows with ``timesteps``. Absent links have
    their gradients set to 0 before each step of the optimizer and their weights after it: they stay
    exactly 0. Batch norms are folded and stay so.

    Examples
    --------
    >>> import torch, topospike as ts
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    >>> x = torch.rand(64, 4)
    >>> y = x[:, :3].argmax(1)
    >>> snn = ts.convert(model, "qcfs", calibration=[x])
    >>> tuned = ts.fine_tune(snn, [(x, y)], timesteps=2, epochs=30, learning_rate=0.02)
    >>> before, after = (ts.evaluate(net, [(x, y)], 2).accuracy[1] for net in (snn, tuned))
    >>> after > before
    True
    """
    require_converted(snn)
    if timesteps < 1 or epochs < 1 or not learning_rate > 0:
        raise ConfigError(
            f"timesteps is {timesteps}, epochs {epochs} and learning_rate {learning_rate}; at "
            "least 1, at least 1 and a number above 0 are required."
        )
    tuned = copy.deepcopy(snn)
    weights = trainable(tuned)
    stepper = optimizer(weights, lr=learning_rate)
    for epoch in range(epochs):
        seen = 0
        with progress(f"fine-tuning, epoch {epoch + 1}", unit="batches") as advance:
            for number, batch in enumerate(batches):
                x, target = tuned.split(batch, f"batch {number}")
                if target is None:
                    raise ConfigError(f"batch {number} has no target; pass (inputs, target).")
                stepper.zero_grad()
                total = mean_loss(tuned, x, target, loss, timesteps, hold)
                if not bool(total.isfinite()):
                    raise NonFiniteError(
                        f"the loss is {float(total.detach())} in epoch {epoch + 1}, batch "
                        f"{number}; take a smaller learning_rate than {learning_rate}."
                    )
                total.backward()
                step_on_links(tuned, stepper)
                seen += 1
                advance()
        if not seen:
            raise MissingDataError(
                f"epoch {epoch + 1} has no batch; pass a list or a loader, which can be gone "
                "through several times."
            )
    for weight in weights:
        weight.requires_grad_(False)
        weight.grad = None
    check_masks(tuned.ann)
    sentence = (
        f"Fine-tuned through {timesteps} steps for {epochs} epoch(s) at rate {learning_rate:g}; "
        "the ANN beside it has the new weights and was not trained as such."
    )
    tuned.report = replace(tuned.report, advice=(*tuned.report.advice, sentence))
    return tuned


def require_converted(snn: SpikingNetwork) -> None:
    """Raise `ConversionError` for a network that no method of conversion has made."""
    if snn.report.method not in METHODS:
        raise ConversionError(
            f"a network of method {snn.report.method!r} was not converted; only converted networks "
            "are fine-tuned. Train the model itself on (topospike.direct), or convert an ANN."
        )


def trainable(snn: SpikingNetwork) -> list[nn.Parameter]:
    """Return the real parameters of a network that its graph reads, ready for gradients.

    Those inside sites (trained thresholds) are not among them.
    """
    read = {str(node.target) for node in snn.ann.graph.nodes if node.op == "get_attr"}
    found = [
        parameter
        for name, parameter in snn.ann.named_parameters()
        if name in read and parameter.is_floating_point()
    ]
    if not found:
        raise ConversionError("the network has no weights that can be trained.")
    for parameter in found:
        parameter.requires_grad_(True)
    return found


def mean_loss(
    snn: SpikingNetwork,
    x: tuple[Tensor, ...],
    target: Tensor,
    loss: Loss,
    timesteps: int,
    hold: int | None = None,
) -> Tensor:
    """Return the mean loss over the steps with an answer, with its gradient."""
    first = first_answer(snn)
    outputs = answers_with_gradient(snn, snn.shown(x, timesteps, hold=hold), timesteps)
    if answer_stays(snn):
        return loss(next(outputs)[1], target)
    losses = [loss(answer, target) for t, answer in outputs if t >= first]
    if not losses:
        raise ConfigError(
            f"timesteps is {timesteps}, but the answer is read out from step {first} on; at least "
            f"{first} steps are required."
        )
    return torch.stack(losses).mean()


def answers_with_gradient(
    snn: SpikingNetwork, shown: Shown, timesteps: int
) -> Iterator[tuple[int, Tensor]]:
    """Yield ``(t, answer)``, the values of a run, with gradients by the weights.

    Where layers wait for one another every step is the whole answer.
    """
    delay, early = snn.report.readout_delay, None
    run = Trajectory(first_states(snn, shown.first))
    for t, moment in enumerate(shown.moments(timesteps), start=1):
        run.t = t
        output: Tensor = Visitor(snn.ann, run).run(*moment.inputs)
        if t == delay:
            early = output
        if early is None or t == delay:
            yield t, output
        else:
            yield t, (t * output - delay * early) / (t - delay)


@torch.no_grad()
def first_states(snn: SpikingNetwork, inputs: tuple[Tensor, ...]) -> dict[Site, SiteState]:
    """Return what sites start from, of codings that look at some steps beforehand."""
    steps = max(site.coding.presimulation for site in snn.sites.values())
    states: dict[Site, SiteState] = {}

    def presimulated(site: Site, r_in: Tensor) -> Tensor:
        sent, states[site] = site.coding.presimulate(site, r_in)
        return sent

    if steps and not answer_stays(snn):
        Visitor(snn.ann, presimulated).run(*(repeated(x, steps) for x in inputs))
    return states


def step_on_links(snn: SpikingNetwork, optimizer: Optimizer) -> None:
    """Take a step of the optimizer that leaves absent links at exactly 0."""
    for name, mask in masks_of(snn.ann).items():
        gradient = snn.ann.get_parameter(name).grad
        if gradient is not None:
            gradient.masked_fill_(~mask, 0.0)
    optimizer.step()
    with torch.no_grad():
        enforce(snn.ann)


def slope(neuron: Neuron, u: Tensor, theta: Tensor) -> Tensor:
    """Return h(u), which stands for the derivative of a spike.

    Examples
    --------
    >>> from topospike.snn.neurons import IntegrateAndFire
    >>> u = torch.tensor([0.4, 0.6, 1.4, 1.6])
    >>> slope(IntegrateAndFire(), u, torch.tensor(1.0))
    tensor([0., 1., 1., 0.])
    >>> slope(Uniform(4, gated=True), u - 0.5, torch.tensor(1.0))
    tensor([1., 1., 1., 0.])
    """
    if isinstance(neuron, Identity):
        return torch.ones_like(u)
    if isinstance(neuron, MultiThreshold):
        follows = u.abs() <= 1.5 * theta
    elif isinstance(neuron, Uniform):
        half = theta / (2 * neuron.levels)
        lowest = -half if neuron.gated else -theta
        follows = (u >= lowest) & (u <= theta)
    else:
        follows = (u - theta).abs() <= theta / 2
        if isinstance(neuron, SignedIntegrateAndFire):
            follows = follows | (u.abs() <= theta / 2)
    return (follows & (theta > 0)).to(u.dtype)


def followed(values: Tensor, u: Tensor, h: Tensor) -> Tensor:
    """Return values whose gradient by u is h."""
    return values + h * (u - u.detach())


def fire(neuron: Neuron, u: Tensor, theta: Tensor, available: Tensor | None) -> Tensor:
    """Let a neuron fire, with a gradient."""
    seen = u.detach()
    held = None if available is None else available.detach()
    return followed(neuron.fire(seen, theta, held), u, slope(neuron, seen, theta))


@dataclass(frozen=True, slots=True)
class GradientRule(Rule):
    """The step of a site by the formulas of its coding, with a gradient."""

    def __call__(self, t: int, r_in: Tensor, state: SiteState) -> SiteState:
        """Return the state after step t."""
        return written_out(self.site, t, r_in, state, fire)


def step_with_gradient(site: Site, t: int, r_in: Tensor, state: SiteState) -> SiteState:
    """Return the state of a site after step t, as `topospike.snn.site.site_step`."""
    return site.coding.step(GradientRule(site), t, r_in, state)


def whole_answer(site: Site, r_in: Tensor) -> Tensor:
    """Return what a site of layers that wait sends in all its steps, with a gradient."""
    sent, _ = site.coding.presimulate(site, r_in.detach())
    shift, factor = (site.shift, site.scale) if isinstance(site, ShiftedSite) else (0.0, 1.0)
    h = slope(site.neuron, r_in.detach() + shift, site.threshold)
    return followed(sent, r_in, h * factor)


class Trajectory:
    """The sites of a network during one run of which a gradient is wanted.

    Called with a site and its input it takes the site's next step, for `Visitor`.

    Parameters
    ----------
    states
        What sites start from, where that is not rest.
    """

    def __init__(self, states: dict[Site, SiteState] | None = None) -> None:
        self.t = 0
        self.states = dict(states or {})

    def __call__(self, site: Site, r_in: Tensor) -> Tensor:
        """Take a step."""
        if isinstance(site.coding, LayerByLayer):
            return whole_answer(site, r_in)
        state = step_with_gradient(site, self.t, r_in, self.states.get(site, START))
        self.states[site] = state
        return decoded_of(state)

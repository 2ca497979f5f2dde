"""Convert: put trainable quantised activations in the place of every rectifier of a trained ANN.

The captured graph says where the rectifiers are, what feeds each, and which name its site will
have; the model itself is then given the activations: modules are exchanged, or, where there are
functional calls, all calls redirected (`topospike.models.rectifier_calls`). That both agree is
checked once by running them with a different threshold at every place. The training itself is the
ordinary loop's.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from topospike.conversion.calibrate import drop_ceilings, observe_sites
from topospike.conversion.methods import QCFSMethod
from topospike.conversion.place import Rectifier, place_sites, required_rectifiers
from topospike.conversion.proof import QUANTISED_TOLERANCE, difference
from topospike.errors import ConversionError, MissingDataError
from topospike.models.capture import capture, node_module
from topospike.models.inputs import Batch, InputForm, Inputs, calibration_batches, call, leaves
from topospike.models.outputs import answer
from topospike.models.qcfs import ACTIVATION_KINDS, QCFS, Order
from topospike.models.rectifier_calls import install_calls, take_out_activations
from topospike.thresholds.solvers import solve_thresholds
from topospike.wiring.layers import CONVOLUTIONS, nearest_layers

DEFAULT_THRESHOLD = 8.0
SIMPLE_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.Hardtanh)


def quantise_activations(
    model: nn.Module,
    example: Inputs,
    *,
    output: str | int | None = None,
    kind: str = "s-qcfs",
    levels: int = 4,
    theta_init: float = DEFAULT_THRESHOLD,
    calibration: Iterable[Batch] | Tensor | None = None,
    percentile: float = 0.999,
    positive_map: str | None = None,
    order: Order = "floor_first",
) -> nn.Module:
    """Return a trainable copy of a network with quantised activations instead of rectifiers.

    Parameters
    ----------
    model
        Trained network, dense or masked. ReLU, ReLU6, clamp and hardtanh from 0 up are replaced,
        as modules or functions; a ceiling goes, the threshold takes its place. Not changed.
    example
        One batch of real input: a tensor, or a tuple or dictionary of tensors.
    output, optional
        Which tensor of several the model is for, as of `topospike.convert`.
    kind : {"qcfs", "s-qcfs", "cs-qcfs", "slip-relu"}
        ``qcfs`` learns theta itself, ``s-qcfs`` through a softplus, both one a layer; ``cs-qcfs``
        one a channel behind convolutions (behind linear layers one a layer); ``slip-relu`` is the
        blend of `topospike.models.qcfs`.
    levels
        Quantisation steps L of every activation; their attribute ``steps`` may be changed later.
    theta_init
        Threshold every activation starts from.
    calibration, percentile
        Training images; if given, each threshold starts at this quantile of the positive
        pre-activations of its place instead. Helps short trainings.
    positive_map : {"softplus", "sqrt", "none"}, optional
        In the place of the kind's own map from beta to theta.
    order : {"floor_first", "clamp_first"}
        Which gradient; see `topospike.models.qcfs.qcfs`.

    Returns
    -------
    nn.Module
        A copy of ``model``, of its class, with its parameter names, masks and training mode; new
        are the parameters ``beta``. Give it to `topospike.convert` when it is trained.

    Raises
    ------
    ConversionError
        If the model cannot be captured, has no rectifier or quantised ones already, or its calls
        cannot be matched with the captured graph.
    ConfigError
        If an option is unknown or out of range.

    Notes
    -----
    Bu et al. (ICLR 2022) train with theta starting at 8; CS-QCFS (Yang et al. 2025) first trains
    ``s-qcfs`` and then, from there, channels (`to_channel_thresholds`). Activation checkpointing
    (``torch.utils.checkpoint``) runs functional rectifiers again outside of the model's call and
    is not supported with them; modules are no problem.

    Examples
    --------
    >>> class Net(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.fc1, self.fc2 = nn.Linear(4, 8), nn.Linear(8, 2)
    ...     def forward(self, x):
    ...         return self.fc2(torch.relu(self.fc1(x)))
    >>> quantised = quantise_activations(Net(), torch.rand(2, 4), levels=4)
    >>> sorted(set(quantised.state_dict()) - set(Net().state_dict()))
    ['quantised_calls.0.beta']
    """
    chosen = ACTIVATION_KINDS[kind]
    for path, module in model.named_modules():
        if isinstance(module, QCFS):
            raise ConversionError(
                f"{path} is a quantised activation already. Give the plain model, or go on with "
                "to_channel_thresholds."
            )
    network = capture(model, example, output=output)
    places = required_rectifiers(network)
    thresholds = dict.fromkeys((place.name for place in places), theta_init)
    if calibration is not None:
        thresholds |= percentile_thresholds(network, calibration, percentile)
    activations: dict[str, QCFS] = {}
    for place in places:
        activation = chosen.activation(
            levels,
            theta_init=thresholds[place.name],
            channels=channels_behind_convolution(place.node) if chosen.per_channel else None,
            positive_map=positive_map or chosen.positive_map,
            order=order,
        ).to(leaves(example)[0].device)
        activations[place.name] = activation.train(model.training)
    quantised = put_in(copy.deepcopy(model), places, activations)
    require_agreement(quantised, network, example)
    return quantised


def to_channel_thresholds(
    model: nn.Module, example: Inputs, *, output: str | int | None = None
) -> nn.Module:
    """Return a copy whose layer-wise thresholds behind convolutions are one a channel.

    Every channel starts at its layer's threshold, so that the copy computes the same function: the
    second stage of CS-QCFS (Yang et al. 2025) begins here. Activations behind linear layers keep
    their one threshold.

    Parameters
    ----------
    model
        What `quantise_activations` returned, trained or not. Not changed.
    example, output
        As of `quantise_activations`.

    Raises
    ------
    ConversionError
        If the model has no quantised activations.

    Examples
    --------
    >>> net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    >>> layer_wise = quantise_activations(net, torch.rand(2, 1, 4, 4))
    >>> to_channel_thresholds(layer_wise, torch.rand(2, 1, 4, 4))[1]
    QCFS(steps=4, 3 channels, softplus, floor_first)
    """
    plain, trained = take_out_activations(model)
    if not len(trained):
        raise ConversionError(
            f"{type(model).__name__} has no quantised activations; apply quantise_activations "
            "first."
        )
    places = required_rectifiers(capture(plain, example, output=output))
    activations: dict[str, QCFS] = {}
    for place in places:
        activation = trained.at(place.name, node_module(place.node))
        if activation is None:
            raise ConversionError(
                f"{place.name} is a rectifier that was not quantised; apply quantise_activations "
                "to the plain model."
            )
        activation.requires_grad_(True)
        channels = channels_behind_convolution(place.node)
        if channels is not None and activation.beta.ndim == 0:
            activation = activation.per_channel(channels)
        activations[place.name] = activation
    return put_in(plain, places, activations)


def is_simple_activation(model: nn.Module, path: str) -> bool:
    """Tell whether a path is that of an activation module with no second name."""
    modules = dict(model.named_modules(remove_duplicate=False))
    found = modules.get(path)
    names = sum(module is found for module in modules.values())
    return path != "" and type(found) in SIMPLE_ACTIVATIONS and names == 1


def channels_behind_convolution(node: fx.Node) -> int | None:
    """Return the channels of a value that only convolutions feed, ``None`` for any other."""
    value, layers = node.meta["val"], nearest_layers(node)
    convolved = bool(layers) and all(layer.target in CONVOLUTIONS for layer in layers)
    return int(value.shape[1]) if value.ndim > 2 and convolved else None


def put_in(model: nn.Module, places: list[Rectifier], activations: dict[str, QCFS]) -> nn.Module:
    """Exchange the activation modules, or redirect every rectifier call if one is no module.

    Never both: inside a redirected forward pass an activation's own arithmetic would be redirected.
    """
    paths = [node_module(place.node) for place in places]
    if all(paths.count(path) == 1 and is_simple_activation(model, path) for path in paths):
        for place, path in zip(places, paths, strict=True):
            model.set_submodule(path, activations[place.name])
    else:
        install_calls(model, activations)
    return model


def percentile_thresholds(
    network: fx.GraphModule, calibration: Iterable[Batch] | Tensor, percentile: float
) -> dict[str, float]:
    """Return the quantile of the positive pre-activations of every place, by site name."""
    method = QCFSMethod(solver="percentile", percentile=percentile)
    observed = copy.deepcopy(network)
    sites = [site for site, _ in place_sites(observed, method.site)]
    batches = calibration_batches(calibration, network)
    first = next(batches, None)
    if first is None:
        raise MissingDataError(
            "there are no calibration images to start the thresholds from; give batches of "
            "training images, or leave calibration out."
        )
    rules = {True: method.threshold_rule(1, gated=True)}
    statistics, _ = observe_sites(observed, sites, first, batches, rules)
    return {name: float(solve_thresholds(seen, "percentile")) for name, seen in statistics.items()}


@torch.no_grad()
def require_agreement(quantised: nn.Module, network: fx.GraphModule, example: Inputs) -> None:
    """Raise `ConversionError` unless the model runs its activations where the plain graph has them.

    Each gets a threshold of its own for the moment, so that two that changed places are noticed.
    """
    model = copy.deepcopy(quantised).eval()
    spread_thresholds(model, example)
    _, trained = take_out_activations(model)
    network = copy.deepcopy(network)
    drop_ceilings(network, trained)
    for site, node in place_sites(network, QCFSMethod().site):
        site.activation = trained.at(site.name, node_module(node))
    expected = network(*InputForm.of(network).leaves(example))
    got = answer(call(model, example), network.meta["output"])
    gap = difference(got, expected)
    if not gap <= QUANTISED_TOLERANCE:
        raise ConversionError(
            f"{type(quantised).__name__} with quantised activations differs from its captured "
            f"graph by {gap:.0%}, so its rectifiers cannot be told apart. Use nn.ReLU "
            "modules whose result is used, in the same order in every forward pass."
        )


def spread_thresholds(model: nn.Module, example: Inputs) -> None:
    """Set every threshold to another share of the largest value that reaches it."""
    activations = [module for module in model.modules() if isinstance(module, QCFS)]

    def set_share(activation: nn.Module, args: tuple[Any, ...], *, share: float) -> None:
        if isinstance(activation, QCFS):
            largest = float(args[0].max())
            activation.start_at(share * largest if largest > 0 else 1.0)

    handles = [
        # the golden ratio spreads any number of shares evenly
        activation.register_forward_pre_hook(
            partial(set_share, share=0.2 + 0.8 * ((number + 1) * 0.618034 % 1.0))
        )
        for number, activation in enumerate(activations)
    ]
    call(model, example)
    for handle in handles:
        handle.remove()

"""Export: fold thresholds and pool divisors into the weights, so that spikes are plain ones.

A spike of a site with threshold theta carries theta (per channel). Multiply the weights that read
it by theta along their inputs, divide the weights that feed the site by theta along their outputs:
all thresholds are then 1 and all spikes 0 or 1 (a multi-threshold neuron: plus or minus a power of
one half). The divisor of an average pool moves into the weights as well, which leaves a sum. A
factor cannot turn an absent link into one: zeros stay exact zeros.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from topospike.errors import ConversionError
from topospike.export.event_form import EventForm, Pathway, SumPool, Weights
from topospike.snn.site import Site


def fold(form: EventForm) -> EventForm:
    """Return an equal network whose thresholds are all 1 and whose pools are plain sums.

    Raises
    ------
    ConversionError
        If a site has a threshold for each neuron: a convolution shares its weights over positions,
        so they cannot take it up.

    Examples
    --------
    >>> import topospike as ts
    >>> from torch import nn
    >>> from topospike.export.event_form import event_form
    >>> model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    >>> _ = [nn.init.ones_(p) for p in model.parameters()]
    >>> snn = ts.convert(model, "qcfs", [torch.rand(8, 2)], thresholds={"1": 4.0})
    >>> first, readout = fold(event_form(snn)).populations
    >>> first.pathways[0].steps[0].weight[0, 0].item(), readout.pathways[0].steps[0].weight[0, 0].item()
    (0.25, 4.0)
    """  # noqa: E501
    sizes = {
        population.name: channel_thresholds(population.site, population.shape)
        for population in form.populations
        if population.site is not None
    }
    populations = tuple(
        replace(
            population,
            pathways=tuple(
                fold_pathway(
                    pathway,
                    arriving=None if pathway.source is None else sizes[pathway.source],
                    threshold=sizes.get(population.name),
                )
                for pathway in population.pathways
            ),
        )
        for population in form.populations
    )
    return replace(form, populations=populations)


def channel_thresholds(site: Site, shape: tuple[int, ...]) -> Tensor:
    """Return one threshold for each channel (or feature) of a site."""
    theta = site.threshold
    if 1 < theta.ndim < len(shape) + 1:  # a site on vectors, (1, features), in a network of images
        theta = theta[(...,) + (None,) * (len(shape) + 1 - theta.ndim)]
    rows = theta.expand(1, *shape).reshape(shape[0], -1)
    if not bool((rows == rows[:, :1]).all()):
        raise ConversionError(
            f"site {site.name} has a threshold for each of its {rows.numel()} neurons; weights "
            "that are shared over positions cannot take them up. Convert with "
            "granularity='channel' or 'layer'."
        )
    return rows[:, 0].clone()


def fold_pathway(pathway: Pathway, *, arriving: Tensor | None, threshold: Tensor | None) -> Pathway:
    """Move spike sizes, pool divisors and the threshold of the target into the weights."""
    steps = list(pathway.steps)
    layers = [index for index, step in enumerate(steps) if isinstance(step, Weights)]
    if not layers:  # an identity shortcut, or a pool alone
        like = threshold if arriving is None else arriving
        steps.append(identity_layer(pathway.shape, like=like))
        layers = [len(steps) - 1]
    for index, step in enumerate(steps):
        if isinstance(step, SumPool):
            following = next((place for place in layers if place > index), layers[-1])
            behind = following > index
            steps[following] = rescaled(steps[following], step.scale, with_bias=not behind)
            steps[index] = replace(step, scale=1.0)
    if arriving is not None:
        steps[layers[0]] = rescaled(steps[layers[0]], along_inputs(steps[layers[0]], arriving))
    if threshold is not None:
        last = steps[layers[-1]]
        steps[layers[-1]] = rescaled(last, 1.0 / threshold, with_bias=True)
    return replace(pathway, steps=tuple(steps))


def identity_layer(shape: tuple[int, ...], *, like: Tensor | None) -> Weights:
    """Return the layer that changes nothing: one link from each channel to itself."""
    eye = torch.eye(shape[0]) if like is None else torch.eye(shape[0]).to(like)
    weight = eye if len(shape) == 1 else eye[:, :, None, None]
    return Weights("shortcut", weight, None, is_shortcut=True)


def along_inputs(layer: Weights | SumPool, factor: Tensor) -> Tensor:
    """Shape a factor per input channel so that it multiplies the weight."""
    if not isinstance(layer, Weights):
        raise TypeError("only weights can be rescaled")
    return factor.view(1, -1, *[1] * (layer.weight.ndim - 2))


def rescaled(
    layer: Weights | SumPool, factor: Tensor | float, *, with_bias: bool = False
) -> Weights:
    """Multiply a layer's weight; with its bias, a vector factor is one per output channel."""
    if not isinstance(layer, Weights):
        raise TypeError("only weights can be rescaled")
    bias, spread = layer.bias, factor
    if with_bias:
        bias = None if bias is None else bias * factor
        if isinstance(factor, Tensor):
            spread = factor.view(-1, *[1] * (layer.weight.ndim - 1))
    return replace(layer, weight=layer.weight * spread, bias=bias)

"""Say how healthy a conversion is: dead and saturated neurons, what stays MAC, and what to do.

The commonest complaint about conversion tools is an accuracy of ten per cent and no word why. So
the converter looks at some images with the thresholds it has chosen, and turns what it sees into
sentences. How far each site is from the ANN after t steps: `topospike.measure.compare`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, fx
from torch._ops import OpOverload

from topospike.contracts import (
    DEAD_LIMIT,
    SATURATED_LIMIT,
    ConversionReport,
    SiteReport,
)
from topospike.conversion.place import Placed, is_tensor
from topospike.models.capture import node_module
from topospike.snn.site import Site, observing
from topospike.thresholds.statistics import SiteStatistics
from topospike.wiring.fanout import Population
from topospike.wiring.graph import changing_nodes
from topospike.wiring.layers import WEIGHT_OPS, Layer
from topospike.wiring.linear_maps import FILLING, MOVING, UNCHANGED


class SaturationObserver:
    """Looks at the activations of one site and remembers the share above its threshold."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.share = 0.0

    def __call__(self, r_in: Tensor) -> None:
        """Record the share of one batch."""
        above = (r_in if self.site.gated else r_in.abs()) > self.site.threshold
        self.share = float(above.float().mean())


def site_reports(
    network: fx.GraphModule,
    placed: Placed,
    statistics: Mapping[str, SiteStatistics],
    images: tuple[Tensor, ...],
    populations: Mapping[str, Population],
) -> tuple[SiteReport, ...]:
    """Run the ANN on some images with the thresholds chosen, and describe every site.

    Who is driven at all is known from the calibration; what lies above a threshold only now. A
    quarter of a calibration pass is enough for that share.
    """
    seen_images = max(s.images for s in statistics.values())
    observers = {site: SaturationObserver(site) for site, _ in placed}
    with observing(observers), torch.no_grad():
        network(*(tensor[: max(1, seen_images // 4)] for tensor in images))
    reports = []
    for site, node in placed:
        theta, driven = site.threshold, statistics[site.name].driven
        reports.append(
            SiteReport(
                name=site.name,
                op="relu" if site.gated else "operand",
                module=node_module(node),
                sources=populations[site.name].sources,
                channels=theta.numel(),
                threshold_min=float(theta.min()),
                threshold_mean=float(theta.double().mean()),
                threshold_max=float(theta.max()),
                dead_share=0.0 if driven is None else 1.0 - float(driven.float().mean()),
                saturated_share=observers[site].share,
            )
        )
    return tuple(reports)


MANY_ZEROS = 0.1
"""Share of zeros in a layer without a mask that is worth a sentence."""


def advise(report: ConversionReport, layers: Iterable[Layer]) -> tuple[str, ...]:
    """Return what a user should know or change, most serious first."""
    sites, solver = report.sites, report.solver
    advice = [
        f"{site.name}: {site.saturated_share:.1%} of its values exceed the threshold and are "
        f"clipped at first; use solver 'max' or a higher percentile instead of {solver!r}."
        for site in sites
        if site.saturated_share > SATURATED_LIMIT
    ]
    advice += [
        f"{site.name}: {site.dead_share:.0%} of its neurons are driven by no calibration image; "
        "give more images, or expect these neurons to stay silent."
        for site in sites
        if site.dead_share > DEAD_LIMIT
    ]
    advice += [
        f"{layer.name} is counted as MAC at every step, because {layer.reason}."
        for layer in report.layers
        if layer.input == "graded"
    ]
    advice += [
        f"{layer.name} is counted as a MAC for each link and frame, because {layer.reason}."
        for layer in report.layers
        if layer.input == "image" and report.input == "events"
    ]
    advice += [
        f"{layer.name}: {layer.zeros:.0%} of its weights are exactly 0 but it has no mask, so they "
        "are counted as links. If they are absent links, give the layer a mask before converting: "
        "topospike.topology.register_mask(layer, layer.weight != 0)."
        for layer in layers
        if layer.zeros >= MANY_ZEROS and not layer.is_sparse
    ]
    return tuple(advice)


def uncounted_operations(network: fx.GraphModule) -> tuple[str, ...]:
    """Name what is evaluated at every step and is in no count: one line a kind of module.

    Norms, softmax, activations, rotary positions, residual sums: everything that computes with
    numbers that change in time and is neither a weight layer nor a site. What only moves numbers
    is left out, and so are embeddings and masks, which depend on the input alone.

    Examples
    --------
    >>> import topospike as ts
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 3))
    >>> ts.convert(model, calibration=[torch.rand(9, 4)]).report.uncounted
    ('GELU: gelu', 'LayerNorm: layer_norm')
    """
    found: dict[str, set[str]] = {}
    for node in changing_nodes(network):
        operation = node.target
        if not isinstance(operation, OpOverload) or not is_tensor(node):
            continue
        if operation in WEIGHT_OPS | UNCHANGED | MOVING - FILLING:
            continue
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        kind = str(stack[-1][1]).rpartition(".")[2] if stack else "model"
        found.setdefault(kind, set()).add(operation._schema.name.split("::")[1].strip("_"))
    return tuple(f"{kind}: {', '.join(sorted(names))}" for kind, names in found.items())


def conversion_text(report: ConversionReport) -> str:
    """Return the report as plain text: settings, one line a site, one line a layer, advice."""
    lines = [
        f"{report.method}: {report.coding} coding, {report.neuron}, {report.levels} level(s), "
        f"thresholds by {report.solver!r} per {report.granularity}, "
        f"{report.calibration_images} calibration images",
        *([f"options: {report.settings}"] if report.options else []),
        f"batch norms folded: {len(report.batch_norms_folded)}",
        *([f"input: {report.input}"] if report.input != "image" else []),
        "",
        f"{'site':<28} {'after':<28} {'thresholds (min mean max)':<32} {'dead':>6} {'above':>6}",
    ]
    for site in report.sites:
        thresholds = f"{site.threshold_min:.3g} {site.threshold_mean:.3g} {site.threshold_max:.3g}"
        lines.append(
            f"{site.name:<28} {', '.join(site.sources):<28} {thresholds:<32} "
            f"{site.dead_share:>6.1%} {site.saturated_share:>6.1%}"
        )
    lines += ["", f"{'layer':<28} {'kind':<8} {'fed by':<8} why"]
    lines += [f"{la.name:<28} {la.kind:<8} {la.input:<8} {la.reason}" for la in report.layers]
    lines += ["", "not counted, evaluated on decoded values:"] if report.uncounted else []
    lines += [f"  {name}" for name in report.uncounted]
    lines += ["", *(f"- {sentence}" for sentence in report.advice)] if report.advice else []
    return "\n".join(lines)

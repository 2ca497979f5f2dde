"""Where a spiking network departs from its ANN: every site's error, and sentences that say why.

One pass over a few batches. The ANN runs once a batch, the spiking network to the last step asked
for; per site and step six sums and one bit a neuron are kept, so memory does not grow with the
number of images. The first site where the error jumps is the one to look at: what comes after
inherits its error. Accuracy and energy are measured elsewhere (`topospike.measure.evaluate`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from topospike.contracts import (
    SATURATED_LIMIT,
    ActivationComparison,
    ConversionReport,
    SiteComparison,
)
from topospike.errors import ConfigError, MissingDataError
from topospike.models.inputs import Batch
from topospike.snn.network import SpikingNetwork
from topospike.snn.records import first_answer
from topospike.snn.site import Site
from topospike.wiring.graph import site_calls

OUTPUT = "output"


def compare_activations(
    snn: SpikingNetwork,
    batches: Iterable[Batch],
    timesteps: Sequence[int] = (1, 4, 8),
    *,
    images: int | None = None,
) -> ActivationComparison:
    """Compare the decoded output of every site with the ANN's activation.

    Parameters
    ----------
    snn
        A converted network.
    batches
        Batches as `topospike.evaluate` takes them, with or without labels; a hundred images say
        enough.
    timesteps
        Steps t to look at.
    images
        Look at no more than so many images.

    Returns
    -------
    ActivationComparison
        One record a site and step in execution order, the network's output last; the site where
        the error jumps, and what to do about it.

    Raises
    ------
    ConfigError
        If no step is asked for, or one below 1.
    MissingDataError
        If there is no image.

    Notes
    -----
    With a the activation, r the decoded output, over all neurons and images: relative error
    ``|r - a| / |a|`` (Euclidean norms), Pearson's correlation of r and a, mean bias
    ``mean(r - a)``. By step t a site decodes at most theta with rate coding and
    theta (1 + 1/2 + ... + 1/t) with differential coding; activations above are saturated. The
    error contains what the sites before have handed on. Of frames, the ANN is shown their mean. At
    steps without an answer (`topospike.snn.records`) the output counts as 0.

    Examples
    --------
    >>> import torch, topospike as ts
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    >>> x = torch.rand(32, 4, generator=torch.Generator().manual_seed(0))
    >>> found = compare_activations(ts.convert(model, calibration=[x]), [x], timesteps=(1, 8))
    >>> [(record.site, record.t) for record in found.sites]
    [('1', 1), ('output', 1), ('1', 8), ('output', 8)]
    """
    steps = tuple(sorted(set(timesteps)))
    if not steps or steps[0] < 1:
        raise ConfigError(
            f"timesteps is {tuple(timesteps)}; at least one step, each 1 or more, is required."
        )
    tally = Tally(snn, steps)
    left = math.inf if images is None else images
    for number, batch in enumerate(batches):
        x, _ = snn.split(batch, f"batch {number}")
        axis = 0 if snn.report.input == "image" else 1
        given = x[0].shape[axis]
        if given:
            tally.add_batch(tuple(t.narrow(axis, 0, int(min(left, given))) for t in x))
        left -= given
        if left <= 0:
            break
    if not tally.images:
        raise MissingDataError("there is no image to compare on; at least one is required.")
    found = ActivationComparison(steps, tally.images, tally.records())
    jump = first_jump(found)
    return ActivationComparison(
        steps, tally.images, found.sites, jump, advise(found, jump, snn.report)
    )


@dataclass
class Sums:
    """Running sums over the values of one site at one step (float64 scalars)."""

    count: int = 0
    terms: Tensor | None = None
    silent: Tensor | None = None
    driven: Tensor | None = None
    beyond: float = 0.0

    def add(self, analog: Tensor, decoded: Tensor, limit: Tensor | None) -> None:
        """Add one batch of activations and decoded outputs."""
        a, r = analog.flatten(1), decoded.flatten(1)
        wide_a, wide_r = a.double(), r.double()
        gap = wide_r - wide_a
        terms = torch.stack(
            [wide_a.sum(), wide_r.sum(), wide_a.square().sum(), wide_r.square().sum(),
             (wide_a * wide_r).sum(), gap.square().sum()]
        )  # fmt: skip
        self.count += a.numel()
        self.terms = terms if self.terms is None else self.terms + terms
        silent, driven = (r == 0).all(0), (a != 0).any(0)
        self.silent = silent if self.silent is None else self.silent & silent
        self.driven = driven if self.driven is None else self.driven | driven
        if limit is not None:
            self.beyond += float((analog.abs() > limit).sum())

    def record(self, site: str, t: int) -> SiteComparison:
        """Turn the sums into shares and ratios."""
        if self.terms is None or self.silent is None or self.driven is None:
            raise MissingDataError(f"{site}: no image reached this site.")
        sum_a, sum_r, square_a, square_r, product, gap = self.terms.tolist()
        n = self.count
        spread = math.sqrt(max(square_a - sum_a**2 / n, 0.0) * max(square_r - sum_r**2 / n, 0.0))
        return SiteComparison(
            site=site,
            t=t,
            relative_error=math.sqrt(gap / square_a) if square_a > 0 else None,
            correlation=(product - sum_a * sum_r / n) / spread if spread > 0 else None,
            mean_bias=(sum_r - sum_a) / n,
            dead_share=float((self.silent & self.driven).double().mean()),
            saturated_share=self.beyond / n,
        )


@dataclass
class Tally:
    """The sums of every site at every step asked for."""

    snn: SpikingNetwork
    steps: tuple[int, ...]
    images: int = 0
    sums: dict[tuple[int, str], Sums] = field(default_factory=dict)

    @torch.no_grad()
    def add_batch(self, x: tuple[Tensor, ...]) -> None:
        """Run ANN and spiking network on one batch and add what they hold."""
        sites = self.snn.sites
        nodes, first = site_calls(self.snn.ann), first_answer(self.snn)
        with activations_of(sites) as analog:
            analog[OUTPUT] = self.snn.analog(x)
        for step in self.snn.watch(x, self.steps[-1], nodes):
            if (t := step.t) in self.steps:
                answer = step.logits if t >= first else torch.zeros_like(step.logits)
                decoded = {**dict(zip(sites, step.values, strict=True)), OUTPUT: answer}
                for name, value in decoded.items():
                    limit = reach(sites[name], t) if name in sites else None
                    sums = self.sums.setdefault((t, name), Sums())
                    sums.add(analog[name], value, limit)
        self.images += len(analog[OUTPUT])

    def records(self) -> tuple[SiteComparison, ...]:
        """Return one record a step and site, in the order in which they run."""
        return tuple(sums.record(name, t) for (t, name), sums in self.sums.items())


def reach(site: Site, t: int) -> Tensor | None:
    """Return the largest value a site can decode to after t steps; ``None`` where it has none."""
    if not site.neuron.levels:
        return None
    return site.threshold * site.coding.reach(t)


@contextmanager
def activations_of(sites: dict[str, Site]) -> Iterator[dict[str, Tensor]]:
    """Collect what each site returns while the ANN runs inside the ``with`` block."""
    seen: dict[str, Tensor] = {}

    def keep(site: torch.nn.Module, _: object, result: Tensor) -> None:
        if isinstance(site, Site):
            seen[site.name] = result

    handles = [site.register_forward_hook(keep) for site in sites.values()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


LARGE_ERROR = 0.1
JUMP_FACTOR = 2.0
SILENT_LIMIT = 0.1


def first_jump(comparison: ActivationComparison) -> str | None:
    """Return the first site where the error jumps at the last step, ``None`` if nowhere.

    A jump is a relative error of at least 10 % that is at least twice the largest error of the
    sites that run before.
    """
    before = 0.0
    for record in comparison.at(comparison.timesteps[-1]):
        error = record.relative_error or 0.0
        if error >= max(LARGE_ERROR, JUMP_FACTOR * before):
            return record.site
        before = max(before, error)
    return None


def advise(
    comparison: ActivationComparison, jump: str | None, report: ConversionReport
) -> tuple[str, ...]:
    """Say at which site the error jumps, what is the likely cause, and what to change."""
    if jump is None:
        return ()
    t = comparison.timesteps[-1]
    records = {record.site: record for record in comparison.at(t)}
    names = list(records)
    place = names.index(jump)
    before = max((records[name].relative_error or 0.0 for name in names[:place]), default=0.0)
    came = f"from {before:.1%} " if place else ""
    return (
        f"{jump}: the relative error jumps {came}to {records[jump].relative_error:.1%} at t = {t}; "
        f"{cause(records[jump], t, report)}.",
    )


def cause(record: SiteComparison, t: int, report: ConversionReport) -> str:
    """Name the likeliest cause of a large error at one site, and the remedy."""
    if record.saturated_share > SATURATED_LIMIT:
        return (
            f"{record.saturated_share:.1%} of its activations lie above what it can decode by "
            f"then: use another solver than {report.solver!r} ('max', or a higher percentile), a "
            "larger scale, or more time steps"
        )
    if record.dead_share > SILENT_LIMIT:
        return (
            f"{record.dead_share:.0%} of its neurons, driven in the ANN, have not fired yet: its "
            "thresholds are too high for so few steps; raise levels, take granularity 'channel', "
            "or simulate longer"
        )
    graded = {layer.name: layer.reason for layer in report.layers if layer.input == "graded"}
    sources = next((site.sources for site in report.sites if site.name == record.site), ())
    for name in sources:
        if name in graded:
            return f"it follows {name}, which is fed graded numbers ({graded[name]})"
    return (
        f"its values are coarse: raise levels (now {report.levels}), use granularity 'channel', "
        "or simulate longer"
    )


def comparison_text(comparison: ActivationComparison) -> str:
    """Return the comparison as plain text: one line a site, one column of errors a step."""
    steps = comparison.timesteps
    head = "".join(f"{f't={t}':>9}" for t in steps)
    lines = [
        f"relative error of decoded outputs against the ANN, {comparison.images} images",
        f"{'site':<28}{head}{'corr.':>9}{'bias':>11}{'silent':>9}{'above':>9}",
    ]
    errors = {(record.site, record.t): record for record in comparison.sites}
    for last in comparison.at(steps[-1]):
        row = [errors[last.site, t].relative_error for t in steps]
        lines.append(
            f"{last.site:<28}"
            + "".join(f"{'-' if error is None else f'{error:.2%}':>9}" for error in row)
            + f"{'-' if last.correlation is None else f'{last.correlation:.4f}':>9}"
            + f"{last.mean_bias:>11.3g}{last.dead_share:>9.1%}{last.saturated_share:>9.1%}"
        )
    lines += ["", *(f"- {sentence}" for sentence in comparison.advice)] if comparison.advice else []
    return "\n".join(lines)

"""Turn a comparison of spiking and ANN activations into sentences: where it goes wrong, and why.

The first site where the error jumps is the one to look at: what comes after inherits its error.
"""

from __future__ import annotations

from topospike.contracts import (
    SATURATED_LIMIT,
    ActivationComparison,
    ConversionReport,
    SiteComparison,
)

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

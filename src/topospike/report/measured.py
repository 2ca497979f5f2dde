"""What the networks of a run are measured by, and how it is written: a share, or a perplexity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from topospike.report.chart import Layout, axis, log_axis, share_axis
from topospike.report.units import percent, plain, points

SHARES = ("accuracy", "top5", "agreement", "mean_iou")
DIGITS = 4


@dataclass(frozen=True, slots=True)
class Measured:
    """A metric by its name, whether small values are good, and what one example is called.

    Examples
    --------
    >>> Measured().written(0.5), Measured("perplexity", lower_is_better=True).written(3.14159)
    ('50.00\u202f%', '3.142')
    """

    name: str = "accuracy"
    lower_is_better: bool = False
    example: str = "image"

    @property
    def is_share(self) -> bool:
        """Whether values are fractions, which are written in per cent."""
        return self.name in SHARES

    @property
    def words(self) -> str:
        """The name in a sentence."""
        return self.name.replace("_", " ")

    @property
    def title(self) -> str:
        """The name at the beginning of one."""
        return self.words[0].upper() + self.words[1:]

    def written(self, value: float | None) -> str:
        """Write a value."""
        return percent(value) if self.is_share else plain(value, DIGITS)

    def distance(self, difference: float) -> str:
        """Write how far two values are apart, without a sign."""
        return points(difference) if self.is_share else plain(abs(difference), 3)

    def goodness(self, value: float) -> float:
        """Return a number that is larger for better values."""
        return -value if self.lower_is_better else value

    def axis(self, values: Sequence[float]) -> Layout:
        """Return the axis of the metric on test data, logarithmic for perplexities."""
        title = f"test {self.words}"
        if self.is_share:
            return share_axis(title)
        if self.name == "perplexity" and any(value > 0 for value in values):
            return log_axis(title, values, written=lambda tick: f"{tick:g}")
        return axis(title)

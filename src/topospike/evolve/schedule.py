"""Stage 2 (evolve): after which epochs (or optimizer steps) the topology changes.

Epochs count from 0 and an update happens after an epoch has finished, so its time is
t = epoch + 1 completed epochs. Updates fall on t = start + interval, start + 2 interval, ... up to
stop (and on start itself if training begins before it). What happens at an update depends on t
through `topospike.topology.schedules`. All this holds for optimizer steps as well, when the
schedule counts those; the text says epochs for both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from topospike.errors import ConfigError

UNITS = ("epoch", "step")


@dataclass(frozen=True)
class UpdateSchedule:
    """The window and the rhythm of topology updates.

    Attributes
    ----------
    epochs
        Length of the whole training.
    interval
        Epochs between updates.
    start_fraction, stop_fraction
        The window, as shares of ``epochs``; Bao et al. (2026) stop at 0.75.
    unit
        ``epoch`` or ``step``: what ``epochs`` and ``interval`` count, and what the controller is
        told. Language models and translation are evolved every 100 steps (Zhang et al. 2025).

    Examples
    --------
    >>> UpdateSchedule(epochs=8, interval=2).update_epochs
    (1, 3, 5)
    >>> UpdateSchedule(epochs=300, interval=5, start_fraction=1 / 30, stop_fraction=0.6).first
    10
    """

    epochs: int
    interval: int = 1
    start_fraction: float = 0.0
    stop_fraction: float = 0.75
    unit: str = "epoch"

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.interval < 1:
            raise ConfigError(
                f"{self.unit}s={self.epochs}, update_interval={self.interval}; both must be at "
                "least 1."
            )
        if self.unit not in UNITS:
            raise ConfigError(f"unit is {self.unit!r}. Known: {', '.join(UNITS)}.")
        if not 0.0 <= self.start_fraction <= self.stop_fraction <= 1.0:
            raise ConfigError(
                f"start_fraction={self.start_fraction}, stop_fraction={self.stop_fraction}; "
                "0 <= start_fraction <= stop_fraction <= 1 is required."
            )

    @property
    def start(self) -> int:
        """Completed epochs at the start of the window."""
        return math.floor(self.start_fraction * self.epochs + 1e-6)

    @property
    def stop(self) -> int:
        """Completed epochs at the end of the window; at least one update fits a window > 0."""
        stop = math.floor(self.stop_fraction * self.epochs + 1e-6)
        return max(stop, 1) if self.stop_fraction > 0 else 0

    @cached_property
    def update_range(self) -> range:
        """The same as a range, in which a step is found at once."""
        first = self.start if self.start > 0 else self.interval
        return range(first - 1, self.stop, self.interval)

    @property
    def update_epochs(self) -> tuple[int, ...]:
        """The epochs after which the topology changes."""
        return tuple(self.update_range)

    @property
    def first(self) -> int:
        """Time of the first update; 0 if there is none."""
        return self.update_range[0] + 1 if self.update_range else 0

    @property
    def last(self) -> int:
        """Time of the last update; 0 if there is none."""
        return self.update_range[-1] + 1 if self.update_range else 0

    def is_update_epoch(self, epoch: int) -> bool:
        """Say whether the topology changes after ``epoch``."""
        return epoch in self.update_range

    def progress(self, epoch: int) -> float:
        """Return the share of the evolution that is over after ``epoch``, in [0, 1]."""
        return min((epoch + 1) / self.last, 1.0) if self.last else 1.0

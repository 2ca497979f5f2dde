"""Stage 2 (evolve): the checked options of a sparsifier, and their digest.

The options travel in one frozen record so that a checkpoint can say which of them differ. Nothing
here looks at a model.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from topospike.errors import ConfigError
from topospike.evolve.conv import UNFOLDINGS
from topospike.evolve.plan import LayerPlan
from topospike.evolve.removal import REMOVAL_CRITERIA, removal_exponent
from topospike.evolve.rules import Rule
from topospike.evolve.schedule import UpdateSchedule
from topospike.topology import DENSITY_SCHEDULES, ZETA_SCHEDULES, zeta_at

EARLY_STOPS = ("off", "all", "layer")


@dataclass(frozen=True, slots=True)
class EvolutionSettings:
    """Every option of `sparsify` beyond the plan; see there for their meaning."""

    rule: Rule
    schedule: UpdateSchedule
    seed: int
    removal: str
    removal_exponents: tuple[float, float]
    exponent_schedule: str
    zeta: float
    zeta_schedule: str
    density_decay: str
    decay_k: float
    percolation: bool
    conv_unfold: str
    early_stop: str
    early_stop_overlap: float
    history: bool = False

    def __post_init__(self) -> None:
        _ = REMOVAL_CRITERIA[self.removal], ZETA_SCHEDULES[self.zeta_schedule]
        _ = DENSITY_SCHEDULES[self.density_decay]
        zeta_at(0, zeta=self.zeta, end=1)
        start, end = self.removal_exponents
        removal_exponent(0.0, start=start, end=end, schedule=self.exponent_schedule)
        if not 0 < start <= end:
            raise ConfigError(
                f"removal_exponents={self.removal_exponents!r}; 0 < start <= end is required."
            )
        if not self.decay_k > 0:
            raise ConfigError(f"decay_k is {self.decay_k!r}; the steepness must be positive.")
        if self.conv_unfold not in UNFOLDINGS:
            raise ConfigError(
                f"conv_unfold is {self.conv_unfold!r}. Known: {', '.join(UNFOLDINGS)}."
            )
        if self.early_stop not in EARLY_STOPS:
            raise ConfigError(
                f"early_stop is {self.early_stop!r}. Known: {', '.join(EARLY_STOPS)}."
            )
        if not 0 < self.early_stop_overlap <= 1:
            raise ConfigError(
                f"early_stop_overlap is {self.early_stop_overlap!r}; it must lie in (0, 1]."
            )
        if not 0 <= self.rule.elastic < 1 or (self.rule.elastic and self.rule.choice == "none"):
            raise ConfigError(
                f"elastic is {self.rule.elastic!r}; it is a share of all positions in [0, 1), and "
                "needs a rule that replaces links."
            )
        if self.rule.decay is None:
            return
        if self.density_decay == "constant":
            raise ConfigError(
                f"rule {self.rule.name!r} lets density fall, density_decay='constant' does not. "
                "Choose sigmoid, sigmoid_literal, cubic or linear."
            )
        if not self.schedule.update_epochs:
            raise ConfigError(
                f"rule {self.rule.name!r} lets density fall, but {self.schedule} has no update. "
                "Give more epochs, a smaller update_interval or a larger stop_fraction."
            )

    @property
    def needs_gradient(self) -> bool:
        """Whether removal or growth reads the dense gradient."""
        return (
            REMOVAL_CRITERIA[self.removal].needs_gradient or self.rule.growth_needs_gradient
        ) and self.rule.choice != "none"


def description(settings: EvolutionSettings, layers: Mapping[str, LayerPlan]) -> dict[str, Any]:
    """Return settings and plan as plain values, for checkpoints and provenance."""
    options = {
        field.name: getattr(settings, field.name)
        for field in dataclasses.fields(settings)
        if field.name not in ("rule", "schedule", "history")
    }
    # Written only where they are used, so that checkpoints from before they existed still match.
    newer: dict[str, Any] = {"elastic": settings.rule.elastic} if settings.rule.elastic else {}
    newer |= {"history": True} if settings.history else {}
    schedule = dataclasses.asdict(settings.schedule)
    if schedule["unit"] == "epoch":
        del schedule["unit"]
    return {
        "rule": settings.rule.name,
        **newer,
        **schedule,
        **options,
        "removal_exponents": list(settings.removal_exponents),
        "layers": {
            name: {**dataclasses.asdict(plan), "shape": list(plan.shape)}
            for name, plan in layers.items()
        },
    }


def digest_of(described: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a description."""
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()

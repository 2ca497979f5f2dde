"""Stage 2 (evolve): when the topology changes, and what an update shall reach.

Epochs count from 0 and an update happens after an epoch has finished, so its time is
t = epoch + 1 completed epochs. Updates fall on t = start + interval, start + 2 interval, ... up to
stop (and on start itself if training begins before it). All this holds for optimizer steps as well,
when the schedule counts those; the text says epochs for both.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from topospike.errors import CheckpointError, ConfigError
from topospike.evolve.nodes import SCORE_RULES
from topospike.evolve.plan import LayerPlan
from topospike.evolve.rules import RULES, Rule, derived_generator
from topospike.evolve.scores import UNFOLDINGS
from topospike.recipe import SparsitySettings
from topospike.registry import suggestion
from topospike.topology import (
    DENSITY_SCHEDULES,
    WEIGHT_INITS,
    ZETA_SCHEDULES,
    active_count,
    share_count,
    sparsity_at,
    zeta_at,
)


@dataclass(frozen=True)
class UpdateSchedule:
    """The window and the rhythm of topology updates.

    Attributes
    ----------
    length
        Length of the whole training.
    interval
        Epochs between updates.
    start_fraction, stop_fraction
        The window, as shares of ``length``; Bao et al. (2026) stop at 0.75.
    unit
        ``epoch`` or ``step``: what ``length`` and ``interval`` count, and what the controller is
        told. Language models and translation are evolved every 100 steps (Zhang et al. 2025).

    Examples
    --------
    >>> UpdateSchedule(8, interval=2).update_epochs
    (1, 3, 5)
    >>> UpdateSchedule(300, interval=5, start_fraction=1 / 30, stop_fraction=0.6).first
    10
    """

    length: int
    interval: int = 1
    start_fraction: float = 0.0
    stop_fraction: float = 0.75
    unit: Literal["epoch", "step"] = "epoch"

    def __post_init__(self) -> None:
        if self.length < 1 or self.interval < 1:
            raise ConfigError(
                f"{self.unit}s={self.length}, update_interval={self.interval}; both must be at "
                "least 1."
            )

    @property
    def start(self) -> int:
        """Completed epochs at the start of the window."""
        return share_count(self.length, self.start_fraction)

    @property
    def stop(self) -> int:
        """Completed epochs at the end of the window; at least one update fits a window > 0."""
        stop = share_count(self.length, self.stop_fraction)
        return max(stop, 1) if self.stop_fraction > 0 else 0

    @cached_property
    def update_range(self) -> range:
        """The epochs after which the topology changes, as a range: a step is found at once."""
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

    def check(self, epochs: int, steps_per_epoch: int) -> None:
        """Raise `ConfigError` unless a training of this length is the one planned for.

        Examples
        --------
        >>> UpdateSchedule(4).check(epochs=5, steps_per_epoch=10)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        topospike.errors.ConfigError: the sparsifier was made for 4 epochs, ... 5 epochs ...
        """
        found = epochs if self.unit == "epoch" else epochs * steps_per_epoch
        if found != self.length:
            raise ConfigError(
                f"the sparsifier was made for {self.length} {self.unit}s, the training has "
                f"{epochs} epochs of {steps_per_epoch} optimizer steps; it would follow another "
                f"schedule. Give sparsify {self.unit}s={found}."
            )


@dataclass(frozen=True)
class Evolution:
    """Everything that decides about a topology beyond the layers: settings, rule, time, seed.

    ``settings`` has no open choice left: where it said ``None`` the rule's own stands.
    """

    settings: SparsitySettings
    rule: Rule
    schedule: UpdateSchedule
    seed: int

    @classmethod
    def of(
        cls,
        given: str | Rule | SparsitySettings,
        options: Mapping[str, Any],
        *,
        epochs: int | None,
        steps: int | None,
        seed: int,
    ) -> Evolution:
        """Make and check it from the arguments of `sparsify`."""
        if isinstance(given, Rule):
            rule, settings = given, settings_of({**options, "rule": given.name})
        else:
            settings = given if isinstance(given, SparsitySettings) else None
            settings = settings_of({**options, "rule": given}) if settings is None else settings
            rule = RULES[settings.rule]
        settings = dataclasses.replace(
            settings,
            removal=settings.removal or rule.removal,
            density_decay=settings.density_decay or rule.decay or "constant",
            early_stop=settings.early_stop or rule.early_stop,
        )
        evolution = cls(settings, rule, schedule_of(settings, epochs, steps), seed)
        evolution.check()
        return evolution

    def check(self) -> None:
        """Raise `ConfigError` for a name nobody knows and for options that contradict the rule."""
        settings, rule = self.settings, self.rule
        _ = rule.criteria(str(settings.removal)), DENSITY_SCHEDULES[str(settings.density_decay)]
        _ = ZETA_SCHEDULES[settings.zeta_schedule], WEIGHT_INITS[settings.weight_init]
        _ = SCORE_RULES[settings.linear_score], SCORE_RULES[settings.conv_score]
        if settings.conv_unfold not in UNFOLDINGS:
            raise ConfigError(
                f"conv_unfold is {settings.conv_unfold!r}. Known: {', '.join(UNFOLDINGS)}."
            )
        if rule.decay is None:
            if settings.initial_shares:
                raise ConfigError(
                    f"initial sparsity {settings.initial_shares} needs a rule whose density falls "
                    f"(chtss, granet, gmp); {rule.name!r} keeps it. Leave it out."
                )
            return
        if settings.density_decay == "constant":
            raise ConfigError(
                f"rule {rule.name!r} lets density fall, density_decay='constant' does not. "
                "Choose sigmoid, sigmoid_literal, cubic or linear."
            )
        if not self.schedule.update_range:
            raise ConfigError(
                f"rule {rule.name!r} lets density fall, but {self.schedule} has no update. "
                "Give more epochs, a smaller update_interval or a larger stop_fraction."
            )

    @property
    def needs_gradient(self) -> bool:
        """Whether removal or growth reads the dense gradient."""
        criteria = self.rule.criteria(str(self.settings.removal))
        removal = any(criterion is not None and criterion.needs_gradient for criterion in criteria)
        return removal or (self.rule.replaces and self.rule.growth_needs_gradient)

    def links(self, plan: LayerPlan, epoch: int) -> int:
        """Return how many links a layer shall have after the update that follows ``epoch``."""
        if plan.initial_links == plan.links or epoch + 1 >= self.schedule.last:
            return plan.links
        sparsity = sparsity_at(
            epoch + 1,
            initial=plan.initial_sparsity,
            final=plan.sparsity,
            start=self.schedule.start,
            end=self.schedule.last,
            kind=str(self.settings.density_decay),
            k=self.settings.decay_k,
        )
        return active_count(plan.size, sparsity)

    def zeta(self, epoch: int) -> float:
        """Return the share of its links a layer replaces in the update that follows ``epoch``."""
        return zeta_at(
            epoch + 1,
            zeta=self.settings.zeta,
            end=self.schedule.stop,
            kind=self.settings.zeta_schedule,
        )

    def exponent(self, epoch: int) -> float:
        """Return the exponent of soft removal in the update that follows ``epoch``.

        Notes
        -----
        It moves linearly from start to end, as the public code has it. The text of Zhang et al.
        (2025) moves delta = e / (1 + e) linearly instead.
        """
        start, end = self.settings.removal_exponents
        return start + (end - start) * self.schedule.progress(epoch)

    def new_weights(self, layer: str, weight: Tensor, mask: Tensor, update: int) -> Tensor:
        """Return what new links of a layer start from, at every position of its weight."""
        start = torch.zeros_like(weight)
        if self.settings.new_links != "zero" and mask.any():
            density = int(mask.count_nonzero()) / mask.numel()
            generator = derived_generator(self.seed, update, layer, self.settings.new_links)
            WEIGHT_INITS[self.settings.new_links](start, mask, density, generator, 1.0)
        return start

    def description(self, layers: Mapping[str, LayerPlan]) -> dict[str, Any]:
        """Return settings and plan as plain values, for checkpoints and provenance."""
        options = dataclasses.asdict(self.settings)
        del options["keep_every"], options["update_unit"]  # the schedule says the unit
        return {
            **options,
            "removal_exponents": list(self.settings.removal_exponents),
            "seed": self.seed,
            **dataclasses.asdict(self.schedule),
            "sparse_layers": {name: plan.description() for name, plan in layers.items()},
        }

    def require_same(self, stored: Mapping[str, Any], layers: Mapping[str, LayerPlan]) -> None:
        """Raise `CheckpointError` naming the settings in which a checkpoint differs."""
        # Through JSON, so that tuples and lists compare alike whatever format carried the state.
        one, other = (json.loads(json.dumps(it)) for it in (stored, self.description(layers)))
        changed = differences(one.pop("sparse_layers", {}), other.pop("sparse_layers"))
        details = [f"sparse_layers: {', '.join(changed)}"] if changed else []
        details += [
            f"{key}: {one.get(key)!r} in the checkpoint, {other.get(key)!r} here"
            for key in differences(one, other)
        ]
        if details:
            raise CheckpointError(
                f"the sparsifier state belongs to another plan ({'; '.join(details)}). Call "
                "sparsify with the settings of the checkpoint."
            )


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the keys in which two mappings differ."""
    return [key for key in sorted({*one, *other}) if one.get(key) != other.get(key)]


def settings_of(options: Mapping[str, Any]) -> SparsitySettings:
    """Make settings from the keywords of `sparsify`.

    ``sparsity`` and ``initial_sparsity`` are one number for all kinds, or a mapping by kind and
    layer name.

    Raises
    ------
    ConfigError
        For an option that does not exist, or a number out of range.

    Examples
    --------
    >>> settings = settings_of({"sparsity": {"linear": 0.9, "fc2": 0.5}})
    >>> settings.linear, settings.conv, settings.layers
    (0.9, 0.0, {'fc2': 0.5})
    """
    options = dict(options)
    sparsity = options.pop("sparsity", None)
    initial = options.pop("initial_sparsity", None)
    known = {field.name for field in dataclasses.fields(SparsitySettings)}
    for name in options:
        if name not in known:
            raise ConfigError(
                f"sparsify has no option {name!r}.{suggestion(name, known)} Known: "
                f"{', '.join(sorted(known))}, sparsity, initial_sparsity."
            )
    if sparsity is not None:
        shares = by_kind(sparsity)
        kinds = {kind: shares.pop(kind, 0.0) for kind in ("linear", "conv")}
        options |= {**kinds, "layers": shares}
    if initial is not None:
        shares = by_kind(initial)
        options |= {f"initial_{kind}": shares.pop(kind, None) for kind in ("linear", "conv")}
        options |= {"initial_layers": shares}
    return SparsitySettings(**options)


def by_kind(shares: float | Mapping[str, float]) -> dict[str, float]:
    """Return shares by kind and layer name; one number stands for both kinds."""
    is_mapping = isinstance(shares, Mapping)
    return dict(shares) if is_mapping else {"linear": shares, "conv": shares}


def schedule_of(
    settings: SparsitySettings, epochs: int | None, steps: int | None
) -> UpdateSchedule:
    """Return the schedule in the unit in which the length of the training is given."""
    if (epochs is None) == (steps is None):
        raise ConfigError(
            f"epochs={epochs!r}, steps={steps!r}; give the length of the training in exactly one "
            "of the two, the schedules count the same unit."
        )
    window = (settings.update_interval, settings.start_fraction, settings.stop_fraction)
    if steps is not None:
        return UpdateSchedule(steps, *window, unit="step")
    return UpdateSchedule(epochs or 0, *window, unit="epoch")

"""Command line: what a sweep searches, and which trial is best.

An entry of a space is a key of the recipe and its values, separated by commas, or a range
``low:high`` (on a logarithmic scale ``low:high:log``), which only Optuna can search.

``validation`` judges trials by images cut off from the training split, so the test split has no
part in the choice. ``paper`` judges by the test split, as Bao et al. (2026) do ("we report the SNN
with best accuracy"), and is there to compare with them: its winner's accuracy is not that of an
unseen set. What is judged is the trained network (``ann``), or it converted by one method, at that
conversion's time step; by the recipe's ``measure.metric``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import yaml
from torch import nn

from topospike.contracts import Evaluation
from topospike.data.loader import SplitBatches
from topospike.errors import ConfigError
from topospike.files.reading import UNREADABLE, reason
from topospike.measure import METRICS, evaluate
from topospike.measure.metrics import MetricSums
from topospike.metrics_log import read_log
from topospike.modes import evaluating
from topospike.pipeline.networks import trained_model
from topospike.pipeline.run import Network, Run
from topospike.pipeline.stages import spiking_network
from topospike.recipe import ConversionSettings, Recipe
from topospike.recipe.files import dotted_names, nearest

LOGARITHMIC = "log"
SELECTIONS = ("validation", "paper")
ANN = "ann"


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``; whole ones if both are."""

    low: float
    high: float
    logarithmic: bool = False

    def for_ray(self) -> Any:
        """Return the range as Ray Tune takes it."""
        from ray import tune

        if isinstance(self.low, int) and isinstance(self.high, int):
            kind = tune.lograndint if self.logarithmic else tune.randint
            return kind(self.low, self.high + 1)
        return (tune.loguniform if self.logarithmic else tune.uniform)(self.low, self.high)


@dataclass(frozen=True)
class Space:
    """The dimensions of a search, by recipe key: listed values, or a range."""

    dimensions: Mapping[str, tuple[Any, ...] | Range]

    def for_ray(self) -> dict[str, Any]:
        """Return the space as Ray Tune takes it, for sampling."""
        from ray import tune

        return {
            key: dimension.for_ray() if isinstance(dimension, Range) else tune.choice(dimension)
            for key, dimension in self.dimensions.items()
        }


def parse_space(entries: Sequence[str], *, known: Recipe) -> Space:
    """Read the entries of a search space.

    Raises
    ------
    ConfigError
        No entry, one without values, or a key that no recipe has; suggests the nearest one.

    Examples
    --------
    >>> space = parse_space(["data.batch_size=32,64", "seed=1:9", "train.learning_rate=.1:1:log"],
    ...                     known=Recipe())
    >>> for key, dimension in space.dimensions.items():
    ...     print(key, dimension)
    data.batch_size (32, 64)
    seed Range(low=1, high=9, logarithmic=False)
    train.learning_rate Range(low=0.1, high=1, logarithmic=True)
    """
    if not entries:
        raise ConfigError(
            "nothing to search; name what varies, such as --space train.learning_rate=0.1,0.01 "
            "data.batch_size=32,64."
        )
    names = dotted_names(type(known))
    dimensions: dict[str, tuple[Any, ...] | Range] = {}
    for entry in entries:
        key, equals, values = entry.partition("=")
        if not equals or not values:
            raise ConfigError(f"--space {entry!r} has no values; write {key}=0.1,0.01 or 0.01:0.1.")
        if key not in names:
            raise ConfigError(f"--space: unknown key {key!r}.{nearest(key, names)}")
        try:
            dimensions[key] = parse_values(entry, values)
        except ConfigError:
            raise
        except (yaml.YAMLError, *UNREADABLE) as error:
            raise ConfigError(f"--space {key}: no values can be read ({reason(error)}).") from error
    return Space(dimensions)


def parse_values(entry: str, text: str) -> tuple[Any, ...] | Range:
    """Read listed values or a range."""
    low, colon, rest = text.partition(":")
    if not colon:
        return tuple(yaml.safe_load(f"[{text}]"))
    high, _, scale = rest.partition(":")
    ends = [yaml.safe_load(end or "null") for end in (low, high)]
    if not all(isinstance(end, int | float) for end in ends) or scale not in ("", LOGARITHMIC):
        raise ConfigError(f"--space {entry!r} is no range; write low:high or low:high:log.")
    if ends[0] >= ends[1] or (scale and ends[0] <= 0):
        raise ConfigError(
            f"--space {entry!r}: the lower end must be smaller than the upper one, and above 0 on "
            "a logarithmic scale."
        )
    return Range(ends[0], ends[1], logarithmic=bool(scale))


def grid_points(space: Space) -> list[dict[str, Any]]:
    """Return every combination of the listed values, the last key varying fastest.

    Raises
    ------
    ConfigError
        A dimension is a range.

    Examples
    --------
    >>> grid_points(Space({"a": (1, 2), "b": (3,)}))
    [{'a': 1, 'b': 3}, {'a': 2, 'b': 3}]
    """
    lists = []
    for key, dimension in space.dimensions.items():
        if isinstance(dimension, Range):
            raise ConfigError(
                f"{key} is a range, which a grid cannot go through; list its values, or add "
                "--search optuna."
            )
        lists.append(dimension)
    return [dict(zip(space.dimensions, point, strict=True)) for point in itertools.product(*lists)]


def nested(point: Mapping[str, Any]) -> dict[str, Any]:
    """Turn dotted keys into nested mappings.

    Examples
    --------
    >>> nested({"train.epochs": 3, "seed": 1})
    {'train': {'epochs': 3}, 'seed': 1}
    """
    result: dict[str, Any] = {}
    for key, value in point.items():
        group, dot, name = key.partition(".")
        if dot:
            result[group] = {**result.get(group, {}), **nested({name: value})}
        else:
            result[key] = value
    return result


@dataclass(frozen=True)
class Judgement:
    """By which images (``select``), on what (``on``) and by which metric trials are judged."""

    select: str
    on: str = ANN
    metric: str = "accuracy"

    @property
    def rule(self) -> str:
        """The rule in words."""
        images = "the validation split" if self.select == "validation" else "the test split"
        network = "the trained network" if self.on == ANN else f"its conversion by {self.on}"
        return f"{self.metric.replace('_', ' ')} of {network} on {images}"

    @property
    def lower_is_better(self) -> bool:
        """Whether small values are good."""
        return METRICS[self.metric].lower_is_better

    def checked(self, recipe: Recipe) -> Judgement:
        """Return itself, if the recipe has that conversion."""
        names = [settings.label for settings in recipe.convert]
        if self.on != ANN and self.on not in names:
            raise ConfigError(
                f"--judge is {self.on!r}; 'ann' or one of the recipe's conversions "
                f"({', '.join(names) or 'none'}) is required."
            )
        if self.on == ANN and METRICS[self.metric].against_ann:
            raise ConfigError(
                f"measure.metric is {self.metric!r}, by which every trained network agrees with "
                f"itself. Judge a conversion: --judge {names[0] if names else 'METHOD'}."
            )
        return self


def judge_run(run: Run, judgement: Judgement) -> tuple[float | None, float, float]:
    """Return what a finished run has on validation and on test images, and the one that counts.

    Of two networks the sparse one is judged. Accuracies are fractions.
    """
    network, metric = run.networks[-1], judgement.metric
    if judgement.on == ANN:
        test = ann_test(run, network, metric)
        validation = ann_validation(run, network, metric)
    else:
        settings = next(s for s in run.recipe.convert if s.label == judgement.on)
        test = evaluation_of(network, settings).metrics[metric][step_of(run, settings) - 1]
        validation = snn_validation(run, network, settings, metric)
    score = validation if judgement.select == "validation" else test
    if score is None:
        raise ConfigError(
            "the runs have no validation images to be judged by; set data.validation_fraction, or "
            "judge as the paper does: --select paper."
        )
    return validation, test, score


def step_of(run: Run, settings: ConversionSettings) -> int:
    """Return the time step at which a conversion is judged."""
    return min(settings.timesteps, run.recipe.measure.timesteps)


def evaluation_of(network: Network, settings: ConversionSettings) -> Evaluation:
    """Read what was measured of one conversion."""
    return Evaluation.load(network.folder / "conversions" / settings.label / "evaluation.json")


def ann_test(run: Run, network: Network, metric: str) -> float:
    """Return the value of a trained network on test images; measured here if none was converted."""
    if run.recipe.convert:
        return evaluation_of(network, run.recipe.convert[0]).ann_metrics[metric]
    return value_of(trained_model(run, network), run.data.test, metric)


def ann_validation(run: Run, network: Network, metric: str) -> float | None:
    """Return the value of the weights that training ended with on validation images."""
    if metric == "accuracy":  # training has written it down
        epochs = read_log(network.folder / "metrics.jsonl").epochs
        return epochs[-1].validation_accuracy if epochs else None
    if run.data.validation.images == 0:
        return None
    return value_of(trained_model(run, network), run.data.validation, metric)


def value_of(model: nn.Module, batches: SplitBatches, metric: str) -> float:
    """Return what a metric says of a trained network."""
    sums, device = MetricSums(METRICS[metric], 0), next(model.parameters()).device
    with evaluating(model), torch.no_grad():
        for number, (x, y) in enumerate(batches):
            sums.begin_batch(model(x.to(device)), y, f"batch {number}")
    return sums.values()[0]


def snn_validation(
    run: Run, network: Network, settings: ConversionSettings, metric: str
) -> float | None:
    """Simulate one conversion on the validation images."""
    if run.data.validation.images == 0:
        return None
    converted, steps = spiking_network(run, network, settings), step_of(run, settings)
    return evaluate(converted, run.data.validation, steps, metric=metric).metrics[metric][-1]


def best_of(scores: Sequence[float | None], *, lower_is_better: bool = False) -> int | None:
    """Return the place of the best score; the first of equal ones, never one that is NaN.

    Examples
    --------
    >>> best_of([0.5, None, 0.9, 0.9]), best_of([None]), best_of([3.5, 3.6], lower_is_better=True)
    (2, None, 0)
    """
    sign = -1 if lower_is_better else 1
    known = [
        (sign * score, -place)
        for place, score in enumerate(scores)
        if score is not None and not math.isnan(score)
    ]
    return -max(known)[1] if known else None

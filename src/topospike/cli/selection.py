"""Command line: which trial of a sweep is best.

``validation`` judges by images cut off from the training split, so the test split has no part in
the choice. ``paper`` judges by the test split, as Bao et al. (2026) do ("we report the SNN with
best accuracy"), and is there to compare with them: its winner's accuracy is not that of an unseen
set. What is judged is the trained network (``ann``), or it converted by one method, at that
conversion's time step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from topospike.cli.networks import trained_model
from topospike.cli.run import Network, Run
from topospike.cli.stages import spiking_network
from topospike.contracts import Evaluation
from topospike.errors import ConfigError
from topospike.measure import evaluate
from topospike.recipe import ConversionSettings, Recipe
from topospike.report.folder import read_metrics
from topospike.train import evaluate_accuracy

SELECTIONS = ("validation", "paper")
ANN = "ann"


@dataclass(frozen=True)
class Judgement:
    """By which images (``select``) and on what (``on``) trials are judged."""

    select: str
    on: str = ANN

    @property
    def rule(self) -> str:
        """The rule in words."""
        images = "the validation split" if self.select == "validation" else "the test split"
        network = "the trained network" if self.on == ANN else f"its conversion by {self.on}"
        return f"accuracy of {network} on {images}"

    def checked(self, recipe: Recipe) -> Judgement:
        """Return itself, if the recipe has that conversion."""
        names = [settings.label for settings in recipe.convert]
        if self.on != ANN and self.on not in names:
            raise ConfigError(
                f"--judge is {self.on!r}; 'ann' or one of the recipe's conversions "
                f"({', '.join(names) or 'none'}) is required."
            )
        return self


def judge_run(run: Run, judgement: Judgement) -> tuple[float | None, float, float]:
    """Return validation accuracy, test accuracy, and the one that counts, of a finished run.

    Of two networks the sparse one is judged. Accuracies are fractions.
    """
    network = run.networks[-1]
    if judgement.on == ANN:
        test = ann_accuracy(run, network)
        validation = ann_validation(run, network)
    else:
        settings = next(s for s in run.recipe.convert if s.label == judgement.on)
        test = evaluation_of(network, settings).accuracy[step_of(run, settings) - 1]
        validation = snn_validation(run, network, settings)
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


def ann_accuracy(run: Run, network: Network) -> float:
    """Return the test accuracy of a trained network; measured here if nothing was converted."""
    if run.recipe.convert:
        return evaluation_of(network, run.recipe.convert[0]).ann_accuracy
    return evaluate_accuracy(trained_model(run, network), run.data.test)


def ann_validation(run: Run, network: Network) -> float | None:
    """Return the validation accuracy of the weights that training ended with."""
    epochs, _ = read_metrics(network.folder / "metrics.jsonl", [])
    return epochs[-1].validation_accuracy if epochs else None


def snn_validation(run: Run, network: Network, settings: ConversionSettings) -> float | None:
    """Simulate one conversion on the validation images."""
    if run.data.validation.images == 0:
        return None
    converted = spiking_network(run, network, settings)
    return evaluate(converted, run.data.validation, step_of(run, settings)).accuracy[-1]


def best_of(scores: Sequence[float | None]) -> int | None:
    """Return the place of the highest score; the first of equal ones.

    Examples
    --------
    >>> best_of([0.5, None, 0.9, 0.9]), best_of([None])
    (2, None)
    """
    known = [(score, -place) for place, score in enumerate(scores) if score is not None]
    return -max(known)[1] if known else None

"""Data stage: a dataset ready for training, and what of its settings a stopped run depends on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from topospike.data.loader import SplitBatches
from topospike.recipe import DataSettings

# Settings that name or describe the data, or change how fast they come, and no number of a run.
NOT_COMPARED = (
    "source",
    "train_split",
    "test_split",
    "limit_train",
    "limit_test",
    "validation_fraction",
    "label_column",
    "eval_batch_size",
    "workers",
    "memory_gib",
)


@dataclass(frozen=True)
class DataBundle:
    """A dataset ready for training, with what the other stages need to know of it.

    ``calibration`` holds the training images without augmentation, in a seeded order: what a
    conversion takes its thresholds from.
    ``image_size`` is (height, width); ``mean`` and ``std`` are per channel for pixels in [0, 1].
    Of text, ``context`` is the number of tokens of a context and ``classes`` the vocabulary;
    ``channels`` and ``image_size`` are 0 there, as ``context`` is of images. ``in_memory`` tells
    which of the two loading paths was taken. ``identity`` holds what training numbers depend on
    (labels or tokens, normalisation, augmentation, seed): a stopped run goes on with equal ones
    only.
    """

    name: str
    train: SplitBatches
    validation: SplitBatches
    test: SplitBatches
    calibration: SplitBatches
    classes: int
    channels: int
    image_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    label_names: tuple[str, ...] | None
    in_memory: bool = True
    context: int = 0
    identity: Mapping[str, Any] = field(default_factory=dict)

    @property
    def over_time(self) -> DataBundle:
        """The same recordings with the frames one after the other: ``x`` is (frame, batch, ...).

        Raises
        ------
        ConfigError
            If the data are images or text.
        """
        splits = ("train", "validation", "test", "calibration")
        return dataclasses.replace(self, **{s: getattr(self, s).over_time() for s in splits})


def settings_compared(settings: DataSettings, *, seed: int) -> dict[str, Any]:
    """Collect the settings that training depends on, and the seed."""
    chosen = {k: v for k, v in dataclasses.asdict(settings).items() if k not in NOT_COMPARED}
    if not settings.events.frames:
        del chosen["events"]  # of images they say nothing
    if not settings.text.context:
        del chosen["text"]
    return {f"data.{name}": value for name, value in {**chosen, "seed": seed}.items()}

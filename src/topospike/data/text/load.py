"""From a text to batches of contexts; train, validation and test are parts of it by position."""

from __future__ import annotations

import hashlib
from pathlib import PurePath
from typing import Any

import torch

from topospike.data.bundle import DataBundle, settings_compared
from topospike.data.text.contexts import ContextBatches, Contexts
from topospike.data.text.sources import open_corpus
from topospike.errors import ConfigError, MissingDataError
from topospike.recipe import DataSettings

SHIFT = "shift"
IMAGES_ONLY = ("image_column", "label_column", "image_size", "channels", "mean", "std")


def load_text(
    settings: DataSettings, *, seed: int, device: torch.device | str = "cpu"
) -> DataBundle:
    """Read a text and make its batches; see `topospike.data.load_data`.

    The last ``validation_fraction`` of the tokens to train on are those of validation. No token
    lies in two parts.

    Raises
    ------
    ConfigError
        If a setting is for images only, or a context is longer than a part.
    MissingDataError
        If the text is missing or empty.
    """
    refuse_settings_of_images(settings)
    length, corpus = settings.text.context, open_corpus(settings)
    whole = Contexts(corpus.train, length).first(settings.limit_train)
    cut = len(whole.tokens) - round(settings.validation_fraction * len(whole.tokens))
    train, validation = (Contexts(t, length) for t in (whole.tokens[:cut], whole.tokens[cut:]))
    test = Contexts(corpus.test, length).first(settings.limit_test)
    wanted = {"training": train, "test": test}
    wanted |= {"validation": validation} if settings.validation_fraction else {}
    for name, part in wanted.items():
        require_a_context(part, name, settings.source)

    def batches(part: Contexts, **options: Any) -> ContextBatches:
        given = {"batch_size": settings.eval_batch_size, "seed": seed, "device": device, **options}
        return ContextBatches(part, **given)

    train = train.to(device)  # training and calibration share one copy
    return DataBundle(
        name=PurePath(settings.source).name or settings.source,
        train=batches(
            train, batch_size=settings.batch_size, shuffle=True, shifts=SHIFT in settings.augment
        ),
        validation=batches(validation),
        test=batches(test),
        calibration=batches(train, shuffle=True),
        classes=corpus.vocabulary,
        channels=0,
        image_size=(0, 0),
        mean=(),
        std=(),
        label_names=None,
        context=length,
        identity={
            **settings_compared(settings, seed=seed),
            "data.tokens": [len(part.tokens) for part in (train, validation)],
            "data.sha256": digest(train, validation),
        },
    )


def refuse_settings_of_images(settings: DataSettings) -> None:
    """Refuse options that text does not have."""
    for option in IMAGES_ONLY:
        if getattr(settings, option) is not None:
            raise ConfigError(
                f"data.{option} = {getattr(settings, option)!r} has no meaning for text; leave it "
                "out, or set data.text.context to 0 for images."
            )
    if settings.mix:
        raise ConfigError(f"data.mix = {list(settings.mix)} would mix tokens; leave it out.")
    unknown = [name for name in settings.augment if name != SHIFT]
    if unknown:
        raise ConfigError(
            f"data.augment = {list(settings.augment)}: text has no augmentation {unknown[0]!r}; "
            f"{SHIFT!r} is the only one."
        )


def require_a_context(part: Contexts, name: str, source: str) -> None:
    """Refuse a part that holds no context."""
    tokens, needed = len(part.tokens), part.length + 1
    if tokens == 0:
        raise MissingDataError(
            f"the {name} part of data.source = {source!r} has no text; give a longer text, or "
            "larger fractions."
        )
    if len(part) == 0:
        raise ConfigError(
            f"data.text.context is {part.length}, and the {name} part of data.source = {source!r} "
            f"has {tokens} tokens; {needed} are required at least (the last is only predicted). "
            "Use shorter contexts, a longer text, or larger fractions."
        )


def digest(*parts: Contexts) -> str:
    """Return a short name of the tokens of some parts."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part.tokens.cpu().numpy().tobytes() + b"|")
    return found.hexdigest()[:16]

"""Pipeline: what the networks of a recipe are shown, and what is counted of it.

An ANN of recordings of events is trained on the mean of their frames. A spiking network reads the
frames one after the other, unless its conversion says otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from topospike.errors import ConfigError
from topospike.measure import Conventions
from topospike.recipe import ConversionSettings, MeasureSettings, Recipe

if TYPE_CHECKING:
    from topospike.data import DataBundle
    from topospike.pipeline.run import Run


def input_of(recipe: Recipe, settings: ConversionSettings) -> str:
    """Return what a spiking network of a recipe is shown: ``image``, ``frames`` or ``events``.

    Raises
    ------
    ConfigError
        If frames are asked for, and the data have none.
    """
    has_frames = recipe.data.events.frames > 0 and not recipe.data.events.stack
    if settings.input in ("frames", "events") and not has_frames:
        raise ConfigError(
            f"convert has input: {settings.input}, and the data are images; recordings of events "
            "are required (data.events.frames, with data.events.stack off). Leave input out."
        )
    return settings.input or ("events" if has_frames else "image")


def shown_data(run: Run, settings: ConversionSettings) -> DataBundle:
    """Return the data as a spiking network is shown them."""
    return run.data if input_of(run.recipe, settings) == "image" else run.data.over_time


def conventions_of(measure: MeasureSettings) -> Conventions:
    """Return what the settings count."""
    return Conventions(
        first_layer=measure.first_layer, pooled=measure.pooled, input_events=measure.input_events
    )


def hold_of(run: Run, settings: ConversionSettings) -> int | None:
    """Return the steps each frame is shown for, where there are frames."""
    return None if input_of(run.recipe, settings) == "image" else run.recipe.measure.hold

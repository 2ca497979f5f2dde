"""Conversion for input that changes with time: calibration on means, and what is refused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from topospike.conversion.method import Method
from topospike.errors import ConfigError
from topospike.models.inputs import Inputs
from topospike.snn.frames import check_counts, mean_of
from topospike.snn.site import Site


def means_of(batches: Iterable[Inputs], kind: str) -> Iterator[Inputs]:
    """Yield what the ANN is shown of calibration frames: the mean of each recording.

    Raises
    ------
    ShapeError
        If a batch has no axis of frames.
    ConfigError
        If frames of ``events`` hold what is no number of events.
    """
    for number, frames in enumerate(batches):
        if kind == "events":
            check_counts(frames, f"calibration batch {number}")
        yield mean_of(frames)


def refuse_frames(sites: Iterable[Site], method: Method, kind: str) -> None:
    """Raise `ConfigError` for neurons that cannot read frames.

    Some look at a few steps of their image before a run; and neurons on the pixels take the place
    of the events that enter.
    """
    if kind == "image":
        return
    for site in sites:
        if site.coding.presimulation:
            raise ConfigError(
                f"input={kind!r}: {method.name!r} looks at {site.coding.presimulation} steps of "
                "a constant image before a run, and frames are not known before they come. Use "
                "another method, or input='image'."
            )
    if kind == "events" and method.sites_on_inputs:
        raise ConfigError(
            f"input='events': this {method.name!r} puts neurons on the pixels (pixels=True), and "
            "what they send is counted in place of the events. Leave pixels out, or use "
            "input='frames'."
        )

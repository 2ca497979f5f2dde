"""Stage prune: the frozen record of what was pruned.

It says what was done, not what the network is worth; links are counted from masks, never from
weights that happen to be zero.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topospike.contracts import to_json, write_atomically
from topospike.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class LayerPruning:
    """What happened to one layer.

    Attributes
    ----------
    name, kind
        Dotted path; ``linear`` or ``conv``.
    shape
        Of the weight.
    links, possible
        Links that stay, of how many.
    error_before, error_after
        Relative error of the layer's output on the calibration images,
        ``||(W' - W) X|| / ||W X||``, with the mask alone and with the adjusted weights; ``None``
        where it was not measured.
    seconds
        Time to rank and adjust.
    is_classifier
        Whether this is the classifier, which loses inputs when channels are pruned before it.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    links: int
    possible: int
    error_before: float | None = None
    error_after: float | None = None
    seconds: float = 0.0
    is_classifier: bool = False

    @property
    def density(self) -> float:
        """Share of links that stay."""
        return self.links / self.possible

    @property
    def sparsity(self) -> float:
        """Share of links that went."""
        return 1.0 - self.density


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What `topospike.prune` did.

    Attributes
    ----------
    method, comparison, inputs
        Name of the method; within what weights were ranked; whether blocks saw ``sequential`` or
        ``dense`` inputs, ``none`` without calibration images.
    images
        Calibration images.
    target
        Sparsity asked for, by kind or layer name.
    layers
        In order of execution.
    weights
        Weights of all convolutions and linear layers of the model, pruned or not.
    seconds
        Of the whole call.
    widths
        Layer -> channels or neurons that stay of how many, for structured pruning.
    """

    method: str
    comparison: str
    inputs: str
    images: int
    target: Mapping[str, float]
    layers: tuple[LayerPruning, ...]
    weights: int
    seconds: float
    widths: Mapping[str, tuple[int, int]]

    def sparsity(self, kind: str | None = None) -> float:
        """Return the share of links that went, over the pruned layers (of one kind).

        The classifier is left out: what it loses is reported in its own entry.
        """
        chosen = [
            layer for layer in self.layers if kind in (None, layer.kind) and not layer.is_classifier
        ]
        possible = sum(layer.possible for layer in chosen)
        return 1.0 - sum(layer.links for layer in chosen) / possible if possible else 0.0

    @property
    def overall_sparsity(self) -> float:
        """Share of links that went, over all convolutions and linear layers of the model."""
        return sum(layer.possible - layer.links for layer in self.layers) / self.weights

    def save(self, path: str | Path) -> None:
        """Write the record as JSON, atomically."""
        write_atomically(path, json.dumps(to_json(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> PruneReport:
        """Read what `save` wrote.

        Raises
        ------
        CheckpointError
            The file is missing or is not such a record.
        """
        try:
            raw: dict[str, Any] = json.loads(Path(path).read_text())
            layers = tuple(
                LayerPruning(**{**layer, "shape": tuple(layer["shape"])}) for layer in raw["layers"]
            )
            widths = {name: (kept, width) for name, (kept, width) in raw["widths"].items()}
            return cls(**{**raw, "layers": layers, "widths": widths})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise CheckpointError(
                f"{path} is not the record of a pruning ({error}). Prune again to write it."
            ) from error

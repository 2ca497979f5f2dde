"""Stage prune: the frozen record of what was pruned.

It says what was done, not what the network is worth; links are counted from masks, never from
weights that happen to be zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from topospike.contracts import to_json, write_json
from topospike.files.ranges import Amount, Count, Share
from topospike.files.reading import read_record


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
    shape: tuple[Count, ...]
    links: Count
    possible: Count
    error_before: Amount | None = None
    error_after: Amount | None = None
    seconds: Amount = 0.0
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
    images: Count
    target: Mapping[str, Share]
    layers: tuple[LayerPruning, ...]
    weights: Count
    seconds: Amount
    widths: Mapping[str, tuple[Count, Count]]

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
        write_json(path, to_json(self))

    @classmethod
    def load(cls, path: str | Path) -> PruneReport:
        """Read what `save` wrote; `CheckpointError` if it is something else."""
        return read_record(path, cls, remedy="Prune again to write it.")

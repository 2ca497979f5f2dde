"""Stage 2 (evolve): find out which layers feed which, without the user having to say it.

The model's graph needs one input of the right shape. A forward pre-hook notes the shape in passing;
it computes nothing, adds no operation, and is removed when the topology is frozen. The graph itself
is read by `chains` and `couplings`, once, when the first update needs it.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from topospike.errors import ConfigError, ConversionError
from topospike.evolve.couplings import Relation, find_relations


class InputProbe:
    """A forward pre-hook that notes the shape and dtype of the first tensor it sees.

    It holds nothing else, so a model that carries it can be copied and saved.
    """

    def __init__(self) -> None:
        self.shape: tuple[int, ...] | None = None
        self.dtype = torch.float32

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Note what the model was called with."""
        # No branch on what was seen before: a compiled model would be compiled again for it.
        if torch.compiler.is_exporting():
            return
        for value in (*args, *kwargs.values()):
            if isinstance(value, Tensor):
                self.shape, self.dtype = tuple(value.shape), value.dtype
                return

    def example(self, device: torch.device) -> Tensor | None:
        """Return zeros shaped like the input, or ``None`` if the model was never called."""
        if self.shape is None:
            return None
        return torch.zeros([int(size) for size in self.shape], dtype=self.dtype, device=device)


class LazyRelations:
    """Which layers of a model feed or multiply which, found when first asked for.

    Parameters
    ----------
    model
        The model; gets an `InputProbe` if no example is given.
    layers
        Names of the masked layers.
    example
        One input batch, or ``None``.
    wanted
        ``False`` answers "none" without looking.
    """

    def __init__(
        self, model: nn.Module, layers: Collection[str], *, example: Tensor | None, wanted: bool
    ) -> None:
        self.model = model
        self.layers = tuple(layers)
        self.example = example
        self.found: list[Relation] | None = None if wanted and len(layers) > 1 else []
        self.probe: InputProbe | None = None
        self.handle: RemovableHandle | None = None
        if self.found is None and example is None:
            self.probe = InputProbe()
            self.handle = model.register_forward_pre_hook(self.probe, with_kwargs=True)

    def get(self) -> list[Relation]:
        """Return the relations; if they cannot be found, warn once and return none."""
        if self.found is None:
            example = self.example
            if example is None and self.probe is not None:
                example = self.probe.example(next(self.model.parameters()).device)
            self.found = self.search(example)
        return self.found

    def search(self, example: Tensor | None) -> list[Relation]:
        """Read the model's graph; percolation is off, with a warning, where that is impossible."""
        reason = "the model was never called, so the shape of its input is unknown"
        if example is not None:
            try:
                return find_relations(self.model, example, self.layers)
            except (ConversionError, ConfigError) as error:
                reason = str(error)
        warnings.warn(
            f"percolation is off for this run: {reason}. Pass example_input to sparsify, or "
            "percolation=False to do without.",
            UserWarning,
            stacklevel=5,
        )
        return []

    def close(self) -> None:
        """Take the probe off the model; a compiled model is compiled again when that happens."""
        if self.handle is not None:
            self.handle.remove()

"""Stage 2 (evolve): find out which layers feed which, without the user having to say it.

The model's graph needs one input of the right shape. A forward pre-hook notes the shape in passing;
it computes nothing, adds no operation and is removed after use. The graph itself is read by
`chains`, once, when the first update needs it.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from topospike.errors import ConversionError
from topospike.evolve.chains import find_chains


class InputProbe:
    """Note the shape and dtype of the tensor a model is called with, until removed."""

    def __init__(self, model: nn.Module) -> None:
        self.shape: tuple[int, ...] | None = None
        self.dtype = torch.float32
        probe = self

        # A plain function, not a method: copying the model must not copy the controller.
        # No branch on what was seen before: a compiled model would be compiled again for it.
        def note(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            if torch.compiler.is_exporting():
                return
            for value in (*args, *kwargs.values()):
                if isinstance(value, Tensor):
                    probe.shape, probe.dtype = tuple(value.shape), value.dtype
                    return

        self.handle = model.register_forward_pre_hook(note, with_kwargs=True)

    def example(self, device: torch.device) -> Tensor | None:
        """Return zeros shaped like the input, or ``None`` if the model was never called."""
        if self.shape is None:
            return None
        return torch.zeros([int(size) for size in self.shape], dtype=self.dtype, device=device)

    def remove(self) -> None:
        """Take the hook off the model."""
        self.handle.remove()


class LazyChains:
    """The chains of consecutive layers of a model, found when first asked for.

    Parameters
    ----------
    model
        The model; gets an `InputProbe` if no example is given.
    layers
        Names of the masked layers.
    example
        One input batch, or ``None``.
    wanted
        ``False`` answers "no chains" without looking.
    """

    def __init__(
        self, model: nn.Module, layers: Collection[str], *, example: Tensor | None, wanted: bool
    ) -> None:
        self.model = model
        self.layers = tuple(layers)
        self.example = example
        self.found: list[tuple[str, ...]] | None = None if wanted and len(layers) > 1 else []
        looks_at_input = self.found is None and example is None
        self.probe = InputProbe(model) if looks_at_input else None

    def get(self) -> list[tuple[str, ...]]:
        """Return the chains; if they cannot be found, warn once and return none."""
        if self.found is None:
            example = self.example
            if example is None and self.probe is not None:
                example = self.probe.example(next(self.model.parameters()).device)
            self.close()
            self.found = self.search(example)
        return self.found

    def search(self, example: Tensor | None) -> list[tuple[str, ...]]:
        """Read the model's graph; percolation is off, with a warning, where that is impossible."""
        reason = "the model was never called, so the shape of its input is unknown"
        if example is not None:
            try:
                return find_chains(self.model, example, self.layers)
            except ConversionError as error:
                reason = str(error)
        warnings.warn(
            f"percolation is off for this run: {reason}. Pass example_input to sparsify, or "
            "percolation=False to do without.",
            UserWarning,
            stacklevel=5,
        )
        return []

    def close(self) -> None:
        """Take the probe off the model."""
        if self.probe is not None:
            self.probe.remove()
            self.probe = None

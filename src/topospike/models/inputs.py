"""What a model takes: one tensor, several, or tensors by name; and which part of a batch that is.

A model is called as ``model(x)`` with a tensor, ``model(*x)`` with a tuple or list, ``model(**x)``
with a dictionary. Batches of a data loader hold targets beside the inputs. What is an input is read
from the model's ``forward``, never guessed from a tensor: where two readings are possible the user
is asked. A captured network takes the same structures; `InputForm` turns them into the tensors of
its graph, in their order.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx, nn

from topospike.errors import ConfigError, NonFiniteError, ShapeError
from topospike.models.tokens import require_tokens, vocabularies
from topospike.modes import evaluating

Inputs: TypeAlias = Tensor | Sequence[Tensor] | Mapping[str, Tensor]
Batch: TypeAlias = Tensor | Sequence[Any] | Mapping[str, Any]

LABEL_NAMES = ("labels", "label", "targets", "target")
"""Keys of a batch, and arguments of ``forward``, that are never inputs."""


def call(model: Callable[..., Any], x: Inputs) -> Any:
    """Return ``model(x)``, ``model(*x)`` or ``model(**x)``, as the structure says."""
    if isinstance(x, Tensor):
        return model(x)
    return model(**x) if isinstance(x, Mapping) else model(*x)


def leaves(x: Inputs) -> tuple[Tensor, ...]:
    """Return the tensors of a structure in its own order."""
    if isinstance(x, Tensor):
        return (x,)
    return tuple(x.values() if isinstance(x, Mapping) else x)


def mapped(change: Callable[[Tensor], Tensor], x: Inputs) -> Inputs:
    """Return the same structure with every tensor changed.

    Examples
    --------
    >>> {name: len(rows) for name, rows in mapped(lambda t: t[:2], {"a": torch.ones(5, 1)}).items()}
    {'a': 2}
    """
    if isinstance(x, Tensor):
        return change(x)
    if isinstance(x, Mapping):
        return {name: change(tensor) for name, tensor in x.items()}
    return tuple(change(tensor) for tensor in x)


def rows_of(x: Inputs) -> int:
    """Return how many images (sentences, pairs, ...) a batch holds."""
    return len(leaves(x)[0])


def is_constant(size: int | torch.SymInt) -> bool:
    """Tell whether a size is one number, written as such or tied to it by a guard."""
    return isinstance(size, int) or size.node.maybe_as_int() is not None


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode, without a key-value cache, for the length of a block.

    The cache of a Hugging Face model only serves generation, and its container is no tensor.
    """
    configs: list[Any] = [vars(module).get("config") for module in model.modules()]
    caching = [config for config in configs if getattr(config, "use_cache", False)]
    for config in caching:
        config.use_cache = False
    try:
        with evaluating(model):
            yield
    finally:
        for config in caching:
            config.use_cache = True


@dataclass(frozen=True)
class Forward:
    """How many tensors a model's ``forward`` takes by place: needed ones, and possible ones."""

    name: str
    needed: tuple[str, ...]
    possible: tuple[str, ...]
    open_ended: bool

    @classmethod
    def of(cls, model: nn.Module) -> Forward:
        """Read it from the signature; options (numbers, flags) and labels are no inputs."""
        by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        parameters = list(inspect.signature(model.forward).parameters.values())
        taken = [p for p in parameters if p.kind in by_place and may_be_a_tensor(p)]
        return cls(
            name=type(model).__name__,
            needed=tuple(p.name for p in taken if p.default is p.empty),
            possible=tuple(p.name for p in taken),
            open_ended=any(p.kind is p.VAR_POSITIONAL for p in parameters),
        )

    def inputs_among(self, tensors: int) -> int:
        """Return how many of a flat tuple's tensors are inputs.

        Raises
        ------
        ConfigError
            If the last could be an optional input as well as a label.
        """
        if tensors <= max(1, len(self.needed)):
            return tensors
        if not self.open_ended and max(1, len(self.needed)) == len(self.possible):
            return len(self.possible)
        first = self.possible[0] if self.possible else "x"
        others = ", ".join(self.possible[max(1, len(self.needed)) :]) or "*args"
        raise ConfigError(
            f"a batch is a tuple of {tensors} tensors, and {self.name}.forward takes more than one "
            f"(also {others}), so it is not clear which are inputs and which are labels. Pass "
            f"(x,), y for one input and a label, (x1, x2), y for two, dictionaries such as "
            f"{{{first!r}: x, 'labels': y}}, or inputs alone."
        )


def may_be_a_tensor(parameter: inspect.Parameter) -> bool:
    """Tell whether an argument of ``forward`` can hold an input tensor."""
    if parameter.name in LABEL_NAMES or parameter.default not in (None, parameter.empty):
        return False
    if parameter.annotation is parameter.empty or parameter.default is parameter.empty:
        return True
    return "Tensor" in str(parameter.annotation)


def split_batch(batch: Batch, inputs_among: Callable[[int], int], what: str) -> tuple[Inputs, Any]:
    """Divide one batch of a loader into inputs and target (``None`` if there is none).

    Parameters
    ----------
    batch
        A tensor; a dictionary, whose ``labels`` (``label``, ``targets``, ``target``) are the
        target; a pair whose first part is itself a tuple or dictionary of inputs; or a flat tuple
        or list of tensors.
    inputs_among
        How many tensors of a flat tuple of so many are inputs.
    what
        What the batch is called in messages, for example ``calibration batch 3``.

    Raises
    ------
    ConfigError
        If an input is no tensor with a batch axis, or the parts cannot be told apart.

    Examples
    --------
    >>> a, b, y = torch.ones(2, 1), torch.zeros(2, 1), torch.arange(2)
    >>> inputs, target = split_batch(((a, b), y), len, "batch 0")
    >>> len(inputs), target is y
    (2, True)
    """
    if isinstance(batch, Mapping):
        found = [name for name in LABEL_NAMES if batch.get(name) is not None]
        x: Any = {str(k): v for k, v in batch.items() if k not in LABEL_NAMES and v is not None}
        rest: Sequence[Any] = [batch[name] for name in found]
    elif not isinstance(batch, tuple | list):
        x, rest = batch, []
    elif batch and isinstance(batch[0], tuple | list | Mapping):
        x, rest = batch[0], batch[1:]
    else:
        count = inputs_among(len(batch))
        x, rest = tuple(batch[:count]), batch[count:]
        x = x[0] if len(x) == 1 else x
    require_tensors(x, batch, what)
    return x, (rest[0] if len(rest) == 1 else tuple(rest) or None)


def require_tensors(x: Any, batch: object, what: str) -> None:
    """Raise `ConfigError` unless the inputs are tensors with one common batch axis."""
    parts = (
        [x] if not isinstance(x, tuple | list | Mapping)
        else list(x.values() if isinstance(x, Mapping) else x)
    )  # fmt: skip
    wrong = [part for part in parts if not isinstance(part, Tensor) or part.ndim == 0]
    if wrong or not parts:
        held = type(wrong[0]).__name__ if wrong else "nothing"
        inside = "" if parts and wrong[0] is batch else f" of {held}"
        raise ConfigError(
            f"{what} is {type(batch).__name__}{inside}; a tensor x, a tuple or dictionary of "
            "tensors, or a pair of these and a label is required, every tensor with the batch "
            "first."
        )
    sizes = [len(part) for part in parts]
    if len(set(sizes)) > 1:
        raise ShapeError(
            f"{what} has input tensors of {sizes} rows; all must have the same number, one for "
            "each image. Put the batch first in every input, and constants into buffers."
        )


def calibration_batches(
    calibration: Iterable[Batch] | Tensor | None, model: nn.Module
) -> Iterator[Inputs]:
    """Yield what the model takes of every batch that is not empty; ``None`` has none.

    Parameters
    ----------
    calibration
        One tensor of images, or batches as `split_batch` takes them; targets are left out.
    model
        Its ``forward`` says how many tensors are inputs.

    Raises
    ------
    ConfigError
        If inputs and labels cannot be told apart, or an input is no tensor; names the batch.
    ShapeError
        If inputs differ in structure, size or type from those of the first batch.
    NonFiniteError
        If a value is NaN or infinite.

    Examples
    --------
    >>> x, y = torch.rand(4, 1, 8, 8), torch.zeros(4)
    >>> batches = calibration_batches([(x, y), x[:0], x[:2]], nn.Flatten())
    >>> [tuple(images.shape) for images in batches]
    [(4, 1, 8, 8), (2, 1, 8, 8)]
    """
    if calibration is None:
        return
    takes = Forward.of(model)
    first: Inputs | None = None
    batches = [calibration] if isinstance(calibration, Tensor) else calibration
    for number, batch in enumerate(batches):
        what = f"calibration batch {number}"
        x, _ = split_batch(batch, takes.inputs_among, what)
        first = x if first is None else first
        require_same_form(x, first, what)
        require_finite(leaves(x), what)
        if rows_of(x):
            yield x


def require_same_form(x: Inputs, first: Inputs, what: str) -> None:
    """Raise `ShapeError` unless a batch has the structure, sizes and types of the first one."""
    kinds = [described(one) for one in (x, first)]
    if kinds[0] != kinds[1]:
        raise ShapeError(
            f"{what} has inputs of {kinds[0]}, batch 0 of {kinds[1]}; all must agree. Resize, crop "
            "or pad them to one size, and normalise all of them."
        )


def described(x: Inputs) -> str:
    """Return the shapes without the batch axis and the types of inputs, in words."""
    names = list(x) if isinstance(x, Mapping) else [""] * len(leaves(x))
    return ", ".join(
        f"{name} shape {tuple(tensor.shape[1:])} and dtype {tensor.dtype}".strip()
        for name, tensor in zip(names, leaves(x), strict=True)
    )


def require_finite(tensors: Iterable[Tensor], what: str) -> None:
    """Raise `NonFiniteError` if a floating-point value is NaN or infinite."""
    for tensor in tensors:
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            bad = int((~torch.isfinite(tensor)).sum())
            raise NonFiniteError(
                f"{what} holds NaN or infinite values ({bad} of {tensor.numel()}); finite ones are "
                "required. Check the data loading and normalisation."
            )


@dataclass(frozen=True)
class InputForm:
    """What a captured network takes: its placeholders, in order.

    ``names`` are those of ``forward``'s arguments; ``shapes`` are without the batch axis;
    ``vocabulary`` is how many rows the table has in which the input's numbers are looked up.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[torch.dtype, ...]
    vocabulary: tuple[int | None, ...]

    @classmethod
    def of(cls, network: fx.GraphModule) -> InputForm:
        """Read it from the graph."""
        places = [node for node in network.graph.nodes if node.op == "placeholder"]
        values = [node.meta["val"] for node in places]
        return cls(
            names=tuple(str(node.target) for node in places),
            shapes=tuple(tuple(int(size) for size in value.shape[1:]) for value in values),
            dtypes=tuple(value.dtype for value in values),
            vocabulary=tuple(map(vocabularies(network.graph).get, places)),
        )

    @property
    def only_shape(self) -> tuple[int, ...]:
        """The shape of the one input; `ConfigError` if there are several."""
        if len(self.shapes) != 1:
            raise ConfigError(
                f"the network takes {len(self.shapes)} input tensors ({', '.join(self.names)}); "
                "this works on networks of one. Take the inputs together in one tensor."
            )
        return self.shapes[0]

    def leaves(self, x: Inputs) -> tuple[Tensor, ...]:
        """Return the tensors of ``x`` in the network's order.

        Raises
        ------
        ConfigError
            If there are more, fewer or others than the network takes.
        ShapeError
            If a shape, or the kind of numbers, is not the one the network was captured for; if a
            token is outside the vocabulary, or the batch is all padding.
        NonFiniteError
            If a value is NaN or infinite.
        """
        if isinstance(x, Mapping):
            if set(x) != set(self.names):
                raise ConfigError(
                    f"the inputs are named {sorted(x)}; {sorted(self.names)} are required, those "
                    "the network was converted with. Leave out or add what differs."
                )
            found = tuple(x[name] for name in self.names)
        else:
            found = leaves(x)
        if len(found) != len(self.names):
            raise ConfigError(
                f"{len(found)} input tensors were given; the network takes {len(self.names)} "
                f"({', '.join(self.names)}). Pass them as a tuple or by name in a dictionary."
            )
        require_tensors(found, x, "the input")
        for name, shape, dtype, tensor in zip(
            self.names, self.shapes, self.dtypes, found, strict=True
        ):
            if tuple(tensor.shape[1:]) != shape:
                raise ShapeError(
                    f"the images have shape {tuple(tensor.shape)} ({name}); (batch, "
                    f"{', '.join(map(str, shape))}) is required, the shape the network was "
                    "converted for. Resize the images or convert again."
                )
            if tensor.is_floating_point() != dtype.is_floating_point:
                raise ShapeError(
                    f"{name} is {tensor.dtype}; the network was converted for {dtype}. Pass the "
                    "same kind of numbers, or convert again."
                )
        require_finite(found, "the input")
        require_tokens(dict(zip(self.names, found, strict=True)), self.vocabulary)
        return found

    def split(self, batch: Batch, what: str) -> tuple[tuple[Tensor, ...], Any]:
        """Divide a batch of a loader into the network's input tensors and the target."""
        x, target = split_batch(batch, lambda given: min(given, len(self.names)), what)
        return self.leaves(x), target

    def blank(self, rows: int, like: Tensor) -> tuple[Tensor, ...]:
        """Return zeros of the right shapes, on the device and in the precision of ``like``."""
        return tuple(
            torch.zeros(
                rows,
                *shape,
                dtype=like.dtype if dtype.is_floating_point else dtype,
                device=like.device,
            )
            for shape, dtype in zip(self.shapes, self.dtypes, strict=True)
        )

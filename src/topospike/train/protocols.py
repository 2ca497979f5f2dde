"""Stage train: what the loop asks of the things it is given.

Training knows neither how a topology evolves nor how images are read. It knows these protocols;
the sparsifier of ``topospike.evolve`` and the bundle of ``topospike.data`` satisfy them, and so
may anything of the user's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor
from torch.optim import Optimizer

from topospike.contracts import TopologyUpdate


@runtime_checkable
class TopologyController(Protocol):
    """Something that owns the masks of a model and changes them between epochs.

    The contract: after `attach`, weights, gradients and same-shaped optimizer slots are exactly
    zero off the mask after every optimizer step; only `update_topology` changes a mask; the masks
    themselves are buffers of the model, so `state_dict` holds only what the model does not. Weights
    of layers that run on their links alone have no gradient (``None``) at a step; the last step
    before an update has all gradients.
    """

    @property
    def unit(self) -> str:
        """What the schedule counts: ``epoch``, or ``step``.

        With ``step``, `is_update_epoch` and `update_topology` get the number of the optimizer step
        in the run, from 0, instead of that of the epoch.
        """
        ...

    def attach(self, optimizer: Optimizer) -> object:
        """Register the pre-step hook that masks gradients; the return value is not used."""
        ...

    def mask_gradients(self) -> object:
        """Zero the gradients of absent links now (before a clip norm is taken)."""
        ...

    def check_schedule(self, epochs: int, steps_per_epoch: int) -> object:
        """Raise `ConfigError` if the topology was planned for a run of another length."""
        ...

    def is_update_epoch(self, epoch: int) -> bool:
        """Say whether the topology changes after epoch ``epoch`` (counted from 0)."""
        ...

    def update_topology(self, epoch: int) -> TopologyUpdate:
        """Change the topology and say what was changed."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and strings; lists and dictionaries with string keys of them."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> object:
        """Take up what `state_dict` returned; the model's masks are already in place."""
        ...


@runtime_checkable
class SharedController(Protocol):
    """A controller that can let process 0 decide for several processes.

    ``peers`` has a ``rank`` and the collectives ``broadcast`` and ``gather`` of any object
    (`topospike.train.Processes`).
    """

    def share_decisions(self, peers: Any) -> object:
        """Take every later decision from process 0, and compare masks after each."""
        ...


@runtime_checkable
class ImageBatches(Protocol):
    """A re-iterable source of ``(images, labels)`` of one split.

    Images are ``(batch, chan, height, width)`` floats, labels ``(batch,)`` int64, or class
    probabilities ``(batch, classes)``. After
    ``set_epoch(e)`` order and augmentation depend on the seed and ``e`` alone (or on torch's
    global generator, which the checkpoint restores): this is what makes a resumed run exact.
    Several processes take their parts of the same batches, so there it must be the seed and ``e``.
    """

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]: ...

    def __len__(self) -> int: ...

    def set_epoch(self, epoch: int) -> object:
        """Fix order and augmentation of the passes that follow."""
        ...


@runtime_checkable
class TrainingData(Protocol):
    """The part of a ``DataBundle`` that training reads; the test split is not part of it.

    If there is an ``identity``, a mapping of plain values, a stopped run goes on only with data
    that have an equal one.
    """

    @property
    def train(self) -> ImageBatches:
        """Shuffled and augmented."""
        ...

    @property
    def validation(self) -> ImageBatches:
        """Neither; may be empty (``len() == 0``)."""
        ...

    @property
    def classes(self) -> int:
        """Number of classes, i.e. of logits."""
        ...

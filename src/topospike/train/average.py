"""Stage train: an exponential moving average of the weights, with the topology of the weights.

After optimizer step n the average is ``a_1 = w_1``, ``a_n = d a_(n-1) + (1 - d) w_n``, for every
floating-point parameter and buffer. When links change, it is set to 0 off the new masks, or links
that are gone would live on in it. It is evaluated and returned in place of the weights, which go
on training untouched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from topospike.topology import masks_of
from topospike.train.distributed import Processes


class WeightAverage:
    """The average of a model's weights over optimizer steps.

    Parameters
    ----------
    model
        Its parameters and buffers are followed by name.
    decay
        Share ``d`` of the average kept at every step, in (0, 1).

    Examples
    --------
    >>> layer = nn.Linear(1, 1, bias=False)
    >>> average = WeightAverage(layer, decay=0.75)
    >>> for value in (1.0, 5.0):
    ...     _ = layer.weight.data.fill_(value)
    ...     average.update(layer)
    >>> average.values["weight"].item()
    2.0
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.values = {name: tensor.clone() for name, tensor in followed(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take up the weights after an optimizer step."""
        weights = list(followed(model).values())
        share = 1.0 if self.steps == 0 else 1.0 - self.decay
        torch._foreach_lerp_(list(self.values.values()), weights, share)  # pyright: ignore[reportPrivateImportUsage]
        self.steps += 1

    def project(self, model: nn.Module) -> None:
        """Set the average to 0 off the model's masks."""
        for name, mask in masks_of(model).items():
            self.values[name].masked_fill_(~mask, 0)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Overwrite the model's weights with the average, zero off the masks."""
        self.project(model)
        for name, tensor in followed(model).items():
            tensor.copy_(self.values[name])

    @contextmanager
    def in_place(self, model: nn.Module) -> Iterator[None]:
        """Put the average in place of the weights for the length of a block."""
        trained = {name: tensor.clone() for name, tensor in followed(model).items()}
        self.copy_to(model)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, tensor in followed(model).items():
                    tensor.copy_(trained[name])

    def take_buffers(self, model: nn.Module, processes: Processes) -> None:
        """Take process 0's averages of buffers; those of parameters are equal already."""
        buffers = dict(model.named_buffers())
        for name, value in self.values.items():
            if processes.count > 1 and name in buffers:
                value.copy_(processes.broadcast(value))

    def state_dict(self) -> dict[str, Any]:
        """Return the average and the number of steps in it."""
        return {"steps": self.steps, "values": dict(self.values)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        self.steps = int(state_dict["steps"])
        for name, value in self.values.items():
            value.copy_(state_dict["values"][name])


def followed(model: nn.Module) -> dict[str, Tensor]:
    """Return the floating-point parameters and buffers of a model by name, detached."""
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: tensor.detach() for name, tensor in named if tensor.is_floating_point()}

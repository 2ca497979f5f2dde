"""Stage 2 (evolve): the last weights of links that were removed.

An option of Cannistraci-Hebb training (Zhang et al. 2025, appendix J): a link that is grown again
starts from the weight it had when it was last present, a link that never was present from 0. One
copy of each weight is kept, on the weight's device. Without it every new link starts at 0. Masks
are not touched here.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from topospike.errors import CheckpointError


class WeightHistory:
    """Remembers weights by layer name.

    Call `remember` with the weight and the mask as an update finds them, then let the update write
    zeros and masks, then `revive` the grown links.

    Examples
    --------
    >>> history = WeightHistory()
    >>> weight = torch.tensor([3.0, 0.0])
    >>> history.remember("fc", weight, torch.tensor([True, False]))
    >>> _ = weight.zero_()
    >>> history.revive("fc", weight, torch.tensor([True, True]))
    >>> weight.tolist()
    [3.0, 0.0]
    """

    def __init__(self) -> None:
        self.last: dict[str, Tensor] = {}

    @torch.no_grad()
    def remember(
        self, layer: str, weight: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"]
    ) -> None:
        """Note the weights of the links that are present now."""
        before = self.last.get(layer)
        absent = torch.zeros_like(weight) if before is None else before.to(weight)
        self.last[layer] = torch.where(mask, weight.detach(), absent)

    @torch.no_grad()
    def revive(
        self, layer: str, weight: Float[Tensor, "*shape"], grown: Bool[Tensor, "*shape"]
    ) -> None:
        """Write the remembered weights, in place, at the grown links."""
        weight.copy_(torch.where(grown, self.last[layer].to(weight), weight))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the remembered weights by layer name."""
        return dict(self.last)

    def load_state_dict(self, state: Mapping[str, Tensor], shapes: Mapping[str, tuple]) -> None:
        """Take up what `state_dict` returned.

        Raises
        ------
        CheckpointError
            If a layer is unknown or has another shape.
        """
        for name, tensor in state.items():
            if tuple(tensor.shape) != shapes.get(name):
                raise CheckpointError(
                    f"the weight history of layer {name!r} has shape {tuple(tensor.shape)}, the "
                    f"layer {shapes.get(name)}. Use the checkpoint of this network."
                )
        self.last = {name: tensor.clone() for name, tensor in state.items()}

"""Stage prune: train a pruned network on with its links as they are.

The gradients of absent links are zeroed before every optimizer step; nothing else changes a mask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from topospike.contracts import TopologyUpdate
from topospike.errors import CheckpointError, TopologyViolation
from topospike.evolve.agreement import Peers, laid_out_as, require_same_masks, whole
from topospike.evolve.gradients import GradientMasker
from topospike.topology import Topology, check_masks, masked_layers


class KeptTopology:
    """A topology controller that keeps the links of a model through fine-tuning.

    Parameters
    ----------
    model
        Network with masks; pass the controller to `topospike.train.fit` as ``sparsifier``.

    Raises
    ------
    TopologyViolation
        If the model has no mask, or a weight off its mask is not zero.

    Examples
    --------
    >>> import torch, topospike as ts
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> _ = ts.prune(model, method="magnitude", sparsity=0.5)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> _ = KeptTopology(model).attach(optimizer)
    >>> model(torch.rand(3, 4)).sum().backward()
    >>> optimizer.step()
    >>> bool(model[0].weight[~model[0].weight_mask].any())
    False
    """

    def __init__(self, model: nn.Module) -> None:
        modules = tuple(layer.module for layer in masked_layers(model))
        if not modules:
            raise TopologyViolation(
                f"no layer of {type(model).__name__} has a mask to keep; prune it first."
            )
        check_masks(model)
        self.model = model
        self.masker = GradientMasker(modules, record=False)

    def attach(self, optimizer: Optimizer) -> KeptTopology:
        """Mask gradients before every step of this optimizer."""
        optimizer.register_step_pre_hook(self.masker.before_step)
        return self

    def share_decisions(self, peers: Peers) -> None:
        """Check that all processes that train copies of this model have the same links.

        Raises
        ------
        TopologyViolation
            If they differ; names the process and the layer.
        """
        require_same_masks(peers, self.masks(), moment="after pruning")

    def shard(self, shard_model: Callable[[nn.Module], object], *, peers: Peers) -> None:
        """Spread the weights over processes, and every mask as its weight is."""
        masks = self.masks()
        shard_model(self.model)
        for name, mask in masks.items():
            module = self.model.get_submodule(name)
            module._buffers["weight_mask"] = laid_out_as(mask, module.weight)  # pyright: ignore[reportArgumentType]
        self.share_decisions(peers)

    def masks(self) -> dict[str, Tensor]:
        """Return the masks by layer name, whole."""
        return {
            layer.name: whole(layer.mask)  # pyright: ignore[reportArgumentType]
            for layer in masked_layers(self.model)
        }

    def mask_gradients(self) -> None:
        """Zero the gradients of absent links now."""
        self.masker.mask_now()

    def is_update_epoch(self, epoch: int) -> bool:
        """Say that the topology never changes."""
        return False

    def update_topology(self, epoch: int) -> TopologyUpdate:
        """Refuse to change the topology."""
        raise TopologyViolation(
            f"the links of a pruned network are kept, so update_topology({epoch}) is not possible; "
            "use topospike.sparsify for links that change."
        )

    def freeze(self) -> Topology:
        """Return the topology, after checking the weights against it."""
        return Topology.from_model(self.model)

    def state_dict(self) -> dict[str, Any]:
        """Return the digest of the links, which the model itself holds."""
        return {"digest": self.freeze().digest}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Check that the model has the links of a checkpoint.

        Raises
        ------
        CheckpointError
            If it has others.
        """
        if state_dict.get("digest") != self.freeze().digest:
            raise CheckpointError(
                "the masks of the model are not those of the checkpoint; prune with the settings "
                "of the stopped run, or start again in another folder."
            )

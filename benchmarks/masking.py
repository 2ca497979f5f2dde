"""What masking costs: a training step of a sparse network against the same step of a dense one.

`ours` multiplies the gradients by cached masks before the optimizer step. `reference style` does
what the public code does: gradient, every optimizer slot and weight times the bool mask, every
step. The three take turns in one process, the median counts.

    python benchmarks/masking.py [--quick] [--threads 1] [--networks VGG-16 ViT-B]
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from timing import alternate, options, seconds, table
from timing.networks import Network, networks, train_step
from torch import Tensor, nn

from topospike.topology import masked_parameters

NAMES = ("VGG-16", "ViT-B")


class ReferenceMasking:
    """Multiply gradient, optimizer slots and weight by the mask around every step."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.pairs = [(entry.parameter, entry.mask) for entry in masked_parameters(model)]
        optimizer.register_step_pre_hook(self.before)
        optimizer.register_step_post_hook(self.after)

    @torch.no_grad()
    def before(self, *_: object) -> None:
        """Mask the gradients."""
        for weight, mask in self.pairs:
            if weight.grad is not None:
                weight.grad.mul_(mask)

    @torch.no_grad()
    def after(self, *_: object) -> None:
        """Mask what the step has changed."""
        for weight, mask in self.pairs:
            for slot in self.optimizer.state[weight].values():
                if isinstance(slot, Tensor) and slot.shape == weight.shape:
                    slot.mul_(mask)
            weight.mul_(mask)


def step_of(network: Network, kind: str, *, bf16: bool) -> Callable[[], None]:
    """Return the training step of a fresh network, dense or masked in one of two ways."""
    torch.manual_seed(0)
    model = network.build()
    sparsifier = None if kind == "dense" else network.sparsify(model, epochs=4)
    if bf16:
        model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = network.optimizer(model)
    if kind == "ours" and sparsifier is not None:
        sparsifier.attach(optimizer)
    elif kind == "reference style":
        ReferenceMasking(model, optimizer)
    x, y = network.images()
    return partial(train_step, model, optimizer, x, y, bf16=bf16)


def main() -> None:
    """Print one table."""
    given = options(__doc__, networks=NAMES)
    found = networks(vit_blocks=2 if given.quick else 6, batch=64 if given.quick else 128)
    rows = []
    for name in given.networks:
        network = found[name]
        for bf16 in (False,) if given.quick or name == "ViT-B" else (False, True):
            steps = {
                kind: step_of(network, kind, bf16=bf16)
                for kind in ("dense", "ours", "reference style")
            }
            durations = alternate(steps, 3 if given.quick else given.repetitions)
            for kind, duration in durations.items():
                rows.append(
                    (
                        f"{network.name}, batch {network.batch}, {'bf16' if bf16 else 'fp32'}",
                        kind,
                        seconds(duration.cpu),
                        seconds(duration.wall),
                        f"{duration.cpu / durations['dense'].cpu:.3f}",
                        f"{duration.wall / durations['dense'].wall:.3f}",
                    )
                )
    table(("step", "masking", "cpu", "wall", "x dense, cpu", "wall"), rows)


if __name__ == "__main__":
    main()

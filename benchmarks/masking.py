"""What masking costs: a training step of a sparse network against the same step of a dense one.

`ours` multiplies the gradients by cached masks before the optimizer step. `reference style` does
what the public code does: gradient, every optimizer slot and weight times the bool mask, every
step. The three take turns in one process, the median of the turns counts.

The last two columns time the masking operations by themselves. They are a lower bound, not the
overhead: what masking makes slower elsewhere shows in the whole step alone. Adam is such a case:
its second moment is exactly 0 off the mask, and `torch.sqrt` of many zeros is several times slower
on CPUs where MKL computes it. `ViT-B-fused` has the fused AdamW, which does not call it.

    python benchmarks/masking.py [--quick] [--threads 1] [--networks VGG-16 ViT-B ViT-B-fused]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from timing import alternate, options, seconds, table
from timing.networks import Network, networks, train_step
from torch import Tensor, nn

from topospike.evolve.gradients import mask_of
from topospike.topology import masked_layers

NAMES = ("VGG-16", "ViT-B", "ViT-B-fused")


class ReferenceMasking:
    """Multiply gradient, optimizer slots and weight by the mask around every step."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.pairs = [(layer.weight, mask_of(layer)) for layer in masked_layers(model)]
        optimizer.register_step_pre_hook(self.before)
        optimizer.register_step_post_hook(self.after)

    def around_step(self) -> None:
        """Do all the masking of one step."""
        self.before()
        self.after()

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


@dataclass(frozen=True)
class Variant:
    """A training step, and the masking it contains by itself."""

    step: Callable[[], None]
    masking: Callable[[], None]


def variant(network: Network, kind: str, *, bf16: bool) -> Variant:
    """Return the training step of a fresh network, dense or masked in one of two ways."""
    torch.manual_seed(0)
    model = network.build()
    sparsifier = None if kind == "dense" else network.sparsify(model, epochs=4)
    if bf16:
        model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = network.optimizer(model)
    masking: Callable[[], None] = lambda: None  # noqa: E731
    if kind == "ours" and sparsifier is not None:
        masking = sparsifier.attach(optimizer).mask_gradients
    elif kind == "reference style":
        reference = ReferenceMasking(model, optimizer)
        masking = reference.around_step
    x, y = network.images()
    return Variant(partial(train_step, model, optimizer, x, y, bf16=bf16), masking)


def main() -> None:
    """Print one table."""
    given = options(__doc__, networks=NAMES)
    found = networks(vit_blocks=2 if given.quick else 6, batch=64 if given.quick else 128)
    rows = []
    for name in given.networks:
        network = found[name]
        for bf16 in (False,) if given.quick or name != "VGG-16" else (False, True):
            variants = {
                kind: variant(network, kind, bf16=bf16)
                for kind in ("dense", "ours", "reference style")
            }
            repetitions = 3 if given.quick else given.repetitions
            steps = alternate({kind: v.step for kind, v in variants.items()}, repetitions)
            alone = alternate({kind: v.masking for kind, v in variants.items()}, 10)
            for kind, step in steps.items():
                rows.append(
                    (
                        f"{network.name}, batch {network.batch}, {'bf16' if bf16 else 'fp32'}",
                        kind,
                        seconds(step.cpu),
                        seconds(step.wall),
                        f"{step.cpu / steps['dense'].cpu:.3f}",
                        f"{step.wall / steps['dense'].wall:.3f}",
                        seconds(alone[kind].cpu),
                        f"{alone[kind].cpu / steps['dense'].cpu:.2%}",
                    )
                )
    heading = ("step", "masking", "cpu", "wall", "x dense, cpu", "wall", "masking alone", "share")
    table(heading, rows)


if __name__ == "__main__":
    main()

"""The three networks of the benchmarks, with one training step each.

VGG-16 and ResNet-18 for 32 x 32 images; a vision transformer with the layer shapes of ViT-B/16
(width 768, MLP 3072, 197 tokens), whole or with fewer blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import topospike as ts
from topospike.models import resnet18, vgg16


@dataclass(frozen=True)
class Network:
    """A network, how it is made sparse, and the batch it is trained with."""

    name: str
    build: Callable[[], nn.Module]
    sparsity: dict[str, float]
    image: int
    batch: int
    optimizer: Callable[..., torch.optim.Optimizer]

    def images(self) -> tuple[Tensor, Tensor]:
        """Return one batch of noise and labels."""
        return torch.randn(self.batch, 3, self.image, self.image), torch.arange(self.batch) % 10

    def sparsify(self, model: nn.Module, epochs: int) -> ts.Sparsifier:
        """Make the model sparse by CHTss; densities fall to the network's sparsity."""
        return ts.sparsify(
            model,
            "chtss",
            sparsity=self.sparsity,
            initial_sparsity={"conv": 0.2, "linear": min(0.5, self.sparsity["linear"])},
            epochs=epochs,
            example_input=torch.zeros(2, 3, self.image, self.image),
        )


class Logits(nn.Module):
    """A Hugging Face classifier that returns its logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of a batch of images."""
        return self.model(x).logits


def vision_transformer(blocks: int) -> nn.Module:
    """Build ViT-B/16 with this many blocks and ten classes."""
    from transformers import ViTConfig, ViTForImageClassification

    options: dict[str, Any] = {"num_hidden_layers": blocks, "num_labels": 10}
    return Logits(ViTForImageClassification(ViTConfig(**options)))


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    """Return SGD with momentum, as the convolutional networks are trained."""
    return torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    """Return AdamW, as the transformer is trained."""
    return torch.optim.AdamW(model.parameters(), lr=1e-5)


def fused_adamw(model: nn.Module) -> torch.optim.Optimizer:
    """Return AdamW in one kernel: no separate square root over moments that are zero."""
    return torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)


def networks(*, vit_blocks: int, batch: int = 128) -> dict[str, Network]:
    """Return the networks by name."""
    small = {"conv": 0.78, "linear": 0.99}
    return {
        "VGG-16": Network("VGG-16", lambda: vgg16(10), small, 32, batch, sgd),
        "ResNet-18": Network("ResNet-18", lambda: resnet18(10), small, 32, batch, sgd),
        "ViT-B": Network(
            f"ViT-B, {vit_blocks} of 12 blocks",
            lambda: vision_transformer(vit_blocks),
            {"linear": 0.7},
            224,
            2,
            adamw,
        ),
        "ViT-B-fused": Network(
            f"ViT-B fused, {vit_blocks} of 12 blocks",
            lambda: vision_transformer(vit_blocks),
            {"linear": 0.7},
            224,
            2,
            fused_adamw,
        ),
    }


def train_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, *, bf16: bool
) -> None:
    """Take one optimizer step."""
    optimizer.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        loss = functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()

"""Models: networks of Hugging Face ``transformers``, answering with logits alone.

A vision transformer with the parameter names of ``ViTForImageClassification``, and Llama (Touvron
et al. 2023: root mean square norms, rotary positions, gated perceptrons) with those of
``LlamaForCausalLM``. So published weights load by name and a trained network goes back; only the
answer differs, a tensor of logits where ``transformers`` returns a record, because that is what
training and measuring expect.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, cast

from torch import Tensor, nn

from topospike.errors import ConfigError, require
from topospike.models.networks.sizes import check_positive, sizes_of_blocks


def vit(
    classes: int = 1000,
    *,
    channels: int = 3,
    image_size: tuple[int, int] = (224, 224),
    widths: Sequence[int] = (768,),
    blocks: Sequence[int] = (12,),
    hidden: Sequence[int] = (3072,),
    heads: int = 12,
    patch: int = 16,
    dropout: float = 0.0,
) -> nn.Module:
    """Build ViT-B/16, or a smaller network of the same form.

    Parameters
    ----------
    classes, channels, image_size
        Classes to tell apart; channels and (height, width) of the images, which must be square.
    widths
        Width of the token vectors, one value.
    blocks
        Number of transformer blocks, one value.
    hidden
        Width of the hidden layer of each block's perceptron, one value.
    heads
        Attention heads; they share the width evenly.
    patch
        Side of a patch in pixels; must divide the image's side.
    dropout
        Share of activations dropped after projections in training.

    Raises
    ------
    ConfigError
        If the sizes do not fit together; names the option.
    MissingDependencyError
        If ``transformers`` is not installed.

    Notes
    -----
    Pre-norm blocks with class token and learnt positions (Dosovitskiy et al. 2021). DeiT-S is
    ``widths=(384,), hidden=(1536,), heads=6``. ``transformers`` has no stochastic depth, which
    DeiT's own training uses (Touvron et al. 2021, rate 0.1).

    Examples
    --------
    >>> model = vit(10, channels=1, image_size=(8, 8), widths=(16,), blocks=(1,), hidden=(32,),
    ...             heads=2, patch=4)
    >>> import torch
    >>> model(torch.zeros(3, 1, 8, 8)).shape
    torch.Size([3, 10])
    """
    check_positive(
        "vit",
        classes=classes,
        channels=channels,
        widths=widths,
        blocks=blocks,
        hidden=hidden,
        heads=heads,
        patch=patch,
    )
    width, depth, inner = sizes_of_blocks("vit", widths=widths, blocks=blocks, hidden=hidden)
    check_fit(width, heads, image_size, patch)
    network, config = transformer_classes()
    return network(
        config(
            hidden_size=width,
            num_hidden_layers=depth,
            num_attention_heads=heads,
            intermediate_size=inner,
            image_size=image_size[0],
            patch_size=patch,
            num_channels=channels,
            num_labels=classes,
            hidden_dropout_prob=dropout,
        )
    )


def check_fit(width: int, heads: int, image_size: tuple[int, int], patch: int) -> None:
    """Refuse sizes that do not divide one another."""
    if width % heads:
        raise ConfigError(f"vit: heads = {heads} must divide the width {width}")
    if image_size[0] != image_size[1]:
        raise ConfigError(f"vit: image_size = {tuple(image_size)} must be square")
    if image_size[0] % patch:
        raise ConfigError(
            f"vit: patch = {patch} must divide the image's side {image_size[0]}; "
            "set model.patch or data.image_size"
        )


@cache
def transformer_classes() -> tuple[type[nn.Module], type]:
    """Import the network of ``transformers``, which is slow, and let it answer with logits."""
    require("transformers", purpose="model 'vit'")
    from transformers import ViTConfig, ViTForImageClassification

    class VisionTransformer(ViTForImageClassification):
        """A vision transformer that returns the logits of a batch of images."""

        def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
            return cast("Tensor", super().forward(pixel_values=x).logits)

    return VisionTransformer, ViTConfig


def llama(
    classes: int = 32_000,
    *,
    context: int = 256,
    widths: Sequence[int] = (512,),
    blocks: Sequence[int] = (8,),
    hidden: Sequence[int] = (1376,),
    heads: int = 8,
) -> nn.Module:
    """Build the LLaMA of 60 million parameters that sparse training is published on, or another.

    Parameters
    ----------
    classes, context
        Tokens of the vocabulary; tokens of a context.
    widths
        Width of the token vectors, one value.
    blocks
        Number of transformer blocks, one value.
    hidden
        Width of the hidden layer of each block's gated perceptron, one value.
    heads
        Attention heads; they share the width evenly, in even parts since positions rotate pairs.

    Raises
    ------
    ConfigError
        If the sizes do not fit together; names the option.
    MissingDependencyError
        If ``transformers`` is not installed.

    Notes
    -----
    The sizes are those of Zhang et al. (2025). The head has weights of its own.

    Examples
    --------
    >>> model = llama(11, context=8, widths=(16,), blocks=(1,), hidden=(24,), heads=2)
    >>> import torch
    >>> model(torch.zeros(3, 8, dtype=torch.int64)).shape
    torch.Size([3, 8, 11])
    """
    check_positive(
        "llama",
        classes=classes,
        context=context,
        widths=widths,
        blocks=blocks,
        hidden=hidden,
        heads=heads,
    )
    width, depth, inner = sizes_of_blocks("llama", widths=widths, blocks=blocks, hidden=hidden)
    if width % (2 * heads):
        raise ConfigError(f"llama: 2 x heads = {2 * heads} must divide the width {width}")
    network, config = causal_classes()
    return network(
        config(
            vocab_size=classes,
            max_position_embeddings=context,
            hidden_size=width,
            num_hidden_layers=depth,
            intermediate_size=inner,
            num_attention_heads=heads,
            use_cache=False,
            tie_word_embeddings=False,
        )
    )


@cache
def causal_classes() -> tuple[type[nn.Module], type]:
    """Import the network of ``transformers``, which is slow, and let it answer with logits."""
    require("transformers", purpose="model 'llama'")
    from transformers import LlamaConfig, LlamaForCausalLM

    class CausalLlama(LlamaForCausalLM):
        """A Llama that returns the logits of the next token after each one given."""

        def forward(self, tokens: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
            return cast("Tensor", super().forward(input_ids=cast("Any", tokens)).logits)

    return CausalLlama, LlamaConfig

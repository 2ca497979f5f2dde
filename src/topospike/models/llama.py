"""Models: Llama of Hugging Face ``transformers``, answering with logits alone.

The network and its parameter names are those of ``LlamaForCausalLM`` (Touvron et al. 2023): root
mean square norms, rotary positions, gated perceptrons. Only the answer differs, a tensor of logits
where ``transformers`` returns a record with a cache of keys and values.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, cast

from torch import Tensor, nn

from topospike.errors import ConfigError, require
from topospike.models.sizes import check_positive, sizes_of_blocks


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

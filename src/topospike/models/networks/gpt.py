"""Models: a small causal language model in plain torch, which continues a text token by token.

Pre-norm blocks of attention and a gated perceptron with learnt positions: the form of GPT-2
(Radford et al. 2019) with the perceptron of Llama (Shazeer 2020; Touvron et al. 2023), so that a
sparse network has all the couplings published for language models: query with key, value with
output, gate and up with each other and with down. Every projection is a linear layer of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from topospike.errors import ConfigError, ShapeError
from topospike.models.networks.sizes import check_dropout, check_positive, sizes_of_blocks


@torch.fx.wrap  # a symbolic trace keeps the call, and does not look inside
def checked_length(tokens: Tensor, context: int) -> int:
    """Return the number of tokens; `ShapeError` unless they are (batch, token) and fit."""
    if tokens.ndim != 2 or not 1 <= tokens.shape[1] <= context:
        raise ShapeError(
            f"the tokens have shape {tuple(tokens.shape)}; (batch, token) with 1 to {context} "
            "tokens is required, the length of the context the model was built for."
        )
    return tokens.shape[1]


@torch.fx.wrap
def square(seen: Tensor, length: int) -> Tensor:
    """Return the part of a mask that concerns so many tokens."""
    return seen[:length, :length]


class CausalAttention(nn.Module):
    """Attention of every token to itself and the tokens before it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(
        self, x: Float[Tensor, "batch token width"], seen: Tensor
    ) -> Float[Tensor, "batch token width"]:
        """Mix the values of the tokens that ``seen`` (token, token) marks in each row."""
        query, key, value = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        return self.out(mixed.transpose(1, 2).flatten(2))


class GatedPerceptron(nn.Module):
    """``down(silu(gate(x)) * up(x))``."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch token width"]:
        """Apply the perceptron to every token."""
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """Attention and perceptron, each behind a layer norm and added to what came in."""

    def __init__(self, width: int, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm, self.perceptron_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = CausalAttention(width, heads)
        self.perceptron = GatedPerceptron(width, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "batch token width"], seen: Tensor
    ) -> Float[Tensor, "batch token width"]:
        """Add both parts to the residual stream."""
        x = x + self.dropout(self.attention(self.attention_norm(x), seen))
        return x + self.dropout(self.perceptron(self.perceptron_norm(x)))


class GPT(nn.Module):
    """A causal language model: logits of the next token after each token of a context."""

    seen: Tensor

    def __init__(
        self,
        vocabulary: int,
        context: int,
        *,
        width: int,
        depth: int,
        hidden: int,
        heads: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, hidden, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        seen = torch.ones(context, context, dtype=torch.bool).tril()
        self.register_buffer("seen", seen, persistent=False)
        draw_weights(self, depth)

    def forward(self, tokens: Int[Tensor, "batch token"]) -> Float[Tensor, "batch token class"]:
        """Return the logits of the token after each one given.

        Raises
        ------
        ShapeError
            If the tokens are not (batch, token), or more than the context holds.
        """
        length = checked_length(tokens, self.positions.num_embeddings)
        x = self.dropout(self.tokens(tokens) + self.positions.weight[:length])
        seen = square(self.seen, length)
        for block in self.blocks:
            x = block(x, seen)
        return self.head(self.norm(x))


def gpt(
    classes: int = 256,
    *,
    context: int = 128,
    widths: Sequence[int] = (128,),
    blocks: Sequence[int] = (5,),
    hidden: Sequence[int] = (344,),
    heads: int = 4,
    dropout: float = 0.0,
) -> GPT:
    """Build a causal language model, by default one of a million parameters over bytes.

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
        Attention heads; they share the width evenly.
    dropout
        Share of activations dropped in training, behind embeddings, attention and perceptron.

    Raises
    ------
    ConfigError
        If the sizes do not fit together; names the option.

    Notes
    -----
    The head has weights of its own. Weights tied to the embedding would be at once a table that is
    read and a matrix that is multiplied, and could not be counted, pruned or kept dense as one.
    The causal mask is a constant of the graph. Weights are drawn as in GPT-2: N(0, 0.02), those
    that end a residual branch divided by sqrt(2 blocks).

    Examples
    --------
    >>> model = gpt(256, context=8, widths=(16,), blocks=(1,), hidden=(24,), heads=2)
    >>> model(torch.zeros(3, 8, dtype=torch.int64)).shape
    torch.Size([3, 8, 256])
    """
    check_positive(
        "gpt",
        classes=classes,
        context=context,
        widths=widths,
        blocks=blocks,
        hidden=hidden,
        heads=heads,
    )
    check_dropout("gpt", dropout)
    width, depth, inner = sizes_of_blocks("gpt", widths=widths, blocks=blocks, hidden=hidden)
    if width % heads:
        raise ConfigError(f"gpt: heads = {heads} must divide the width {width}")
    return GPT(
        classes, context, width=width, depth=depth, hidden=inner, heads=heads, dropout=dropout
    )


def draw_weights(model: nn.Module, depth: int) -> None:
    """Draw all weights from N(0, 0.02), smaller where residual branches end; biases become 0."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            ends_branch = name.endswith((".out", ".down"))
            nn.init.normal_(module.weight, std=0.02 / ((2 * depth) ** 0.5 if ends_branch else 1.0))
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

"""Masks over products of activations, however they are written: what they leave out of a count."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import topospike as ts

TOKENS, WIDTH, HEADS = 5, 8, 2
CAUSAL = torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()
LOWEST = torch.finfo(torch.float32).min

Scores = Callable[[Tensor], Tensor]


def added(value: float) -> Tensor:
    return torch.zeros(TOKENS, TOKENS).masked_fill(~CAUSAL, value)


# scores -> attention; the causal mask in each
SOFTMAX: dict[str, Scores] = {
    "fill": lambda s: s.masked_fill(~CAUSAL, float("-inf")).softmax(-1),
    "fill of a tensor": lambda s: s.masked_fill(~CAUSAL, torch.tensor(LOWEST)).softmax(-1),
    "choice": lambda s: torch.where(CAUSAL, s, LOWEST).softmax(-1),
    "other choice": lambda s: torch.where(~CAUSAL, float("-inf"), s).softmax(-1),
    "lowest term": lambda s: (0.5 * s + added(LOWEST)).softmax(-1),
    "infinite term": lambda s: (added(float("-inf")) + s).softmax(-1),
    "two masks": lambda s: (s.masked_fill(~CAUSAL, -1e4) + added(LOWEST)).softmax(-1),
    "capped before": lambda s: s.tanh().masked_fill(~CAUSAL, LOWEST).softmax(-1),
    "heads folded": lambda s: (
        s.flatten(0, 1).unflatten(0, (-1, HEADS)).masked_fill(~CAUSAL, LOWEST).softmax(-1)
    ),
}
SCORES_ALONE: dict[str, Scores] = {
    "factor": lambda s: s * CAUSAL.float(),
    "capped behind": lambda s: s.masked_fill(~CAUSAL, LOWEST).tanh().softmax(-1),
    "softmax over queries": lambda s: s.masked_fill(~CAUSAL, LOWEST).softmax(-2),
    "small fill": lambda s: s.masked_fill(~CAUSAL, -1e4).softmax(-1),
}
NOTHING: dict[str, Scores] = {
    "no mask": lambda s: s.softmax(-1),
    "small term": lambda s: (s + added(-1e4)).softmax(-1),
    "bias": lambda s: (s + added(0.5)).softmax(-1),
    "read twice": lambda s: s.masked_fill(~CAUSAL, LOWEST).softmax(-1) + 0.1 * s,
    "data": lambda s: s.masked_fill(s < 0, LOWEST).softmax(-1),
}


class Attention(nn.Module):
    """Two products around what becomes of the scores."""

    def __init__(self, between: Scores) -> None:
        super().__init__()
        self.between = between

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.between(q @ k.mT) @ v


class Fused(nn.Module):
    """The same by torch."""

    def __init__(self, *, groups: int, is_causal: bool) -> None:
        super().__init__()
        self.groups, self.is_causal = groups, is_causal

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        mask = None if self.is_causal else CAUSAL
        k, v = k[:, : self.groups], v[:, : self.groups]
        return F.scaled_dot_product_attention(
            q, k, v, mask, is_causal=self.is_causal, enable_gqa=self.groups < HEADS
        )


class Net(nn.Module):
    """Every way on the same queries, keys and values."""

    def __init__(self, ways: dict[str, nn.Module]) -> None:
        super().__init__()
        self.qkv, self.ways = nn.Linear(WIDTH, 3 * WIDTH), nn.ModuleDict(ways)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(x).unflatten(-1, (HEADS, -1)).transpose(1, 2).chunk(3, -1)
        return torch.stack([way(*parts) for way in self.ways.values()], 1).flatten(2).sum(1)


@pytest.mark.slow
def test_a_masked_score_is_counted_only_where_something_reads_it() -> None:
    torch.manual_seed(0)
    ways = {name: Attention(f) for name, f in (SOFTMAX | SCORES_ALONE | NOTHING).items()}
    fused = {
        "fused, causal": Fused(groups=2, is_causal=True),
        "fused, masked": Fused(groups=2, is_causal=False),
        "fused, grouped": Fused(groups=1, is_causal=True),
    }
    net, x = Net(ways | fused).eval(), torch.randn(6, TOKENS, WIDTH)
    snn = ts.convert(net, calibration=[x])
    with torch.no_grad():
        torch.testing.assert_close(snn.analog(x), net(x), rtol=1e-4, atol=1e-4)
    run = ts.evaluate(snn, [(x, torch.zeros(6, dtype=torch.int64))], 2)
    assert run.tokens == 0
    assert run.energy_per_token_joule == ()
    products = [layer for layer in run.layers if layer.kind == "matmul"]
    assert len(products) == 2 * len(net.ways)
    whole, half = 25.0 * WIDTH, 15.0 * WIDTH
    sops = {}
    for name, pair in zip(net.ways, zip(products[::2], products[1::2], strict=True), strict=True):
        masked = name in SOFTMAX | fused, name in SOFTMAX | SCORES_ALONE | fused
        expected = (half if masked[1] else whole), (half if masked[0] else whole)
        assert tuple(layer.macs for layer in pair) == expected, name
        sops[name] = pair[0].sops
    # the same queries and keys fire alike: what is left out is left out of all
    assert len({sops[name] for name in SOFTMAX | SCORES_ALONE}) == 1
    assert len({sops[name] for name in NOTHING}) == 1
    assert sops["fill"][-1] < sops["no mask"][-1]

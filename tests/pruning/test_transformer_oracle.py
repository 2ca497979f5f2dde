"""The walk through a two-block transformer equals the reference drivers'.

Tolerances: masks exact; weights 1e-4 of the largest; outputs 1e-4.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import topospike as ts

FILE = Path(__file__).parents[1] / "oracles" / "pruning" / "tiny_vit_seq.npz"
LAYERS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        batch, tokens, width = x.shape
        split = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))


class Block(nn.Module):
    def __init__(self, width, heads, inner):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Module()
        self.mlp.fc1 = nn.Linear(width, inner)
        self.mlp.fc2 = nn.Linear(inner, width)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp.fc2(nn.functional.gelu(self.mlp.fc1(self.norm2(x))))


class Transformer(nn.Module):
    """The oracle's blocks and, so that nothing in them is taken for a classifier, a head."""

    def __init__(self, arrays):
        super().__init__()
        width, inner = arrays["X0"].shape[2], arrays["blocks.0.mlp.fc1.weight"].shape[0]
        heads = int(arrays["heads"])
        self.blocks = nn.ModuleList(Block(width, heads, inner) for _ in range(2))
        self.head = nn.Linear(width, 3)
        state = {name: value for name, value in arrays.items() if name.startswith("blocks.")}
        self.load_state_dict(state, strict=False)

    def features(self, x):
        for block in self.blocks:
            x = block(x)
        return x

    def forward(self, x):
        return self.head(self.features(x).mean(1))


@pytest.fixture(scope="module")
def arrays():
    with np.load(FILE, allow_pickle=False) as data:
        return {name: torch.from_numpy(data[name]) for name in data.files}


def test_the_dense_network_is_the_oracles(arrays):
    with torch.no_grad():
        out = Transformer(arrays).eval().features(arrays["X0"])
    torch.testing.assert_close(out, arrays["dense_out"], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("tag", "method", "comparison"),
    [
        pytest.param("sequential/wanda_row", "wanda", "row", marks=pytest.mark.slow),
        pytest.param("sequential/ria_row", "ria", "row", marks=pytest.mark.slow),
        pytest.param("sequential/ria_layer", "ria", "layer", marks=pytest.mark.slow),
        pytest.param("sequential/wanda_rec_row", "wanda-rec", "row", marks=pytest.mark.slow),
        pytest.param("sequential/ria_rec_row", "ria-rec", "row", marks=pytest.mark.slow),
        ("sequential/sparsegpt", "sparsegpt", None),
        pytest.param("dense_inputs/wanda_row", "wanda", "row", marks=pytest.mark.slow),
        ("dense_inputs/wanda_layer", "wanda", "layer"),
    ],
)
def test_every_driver(arrays, tag, method, comparison):
    model = Transformer(arrays)
    report = ts.prune(
        model,
        method=method,
        sparsity=float(arrays["p"]),
        calibration=arrays["X0"],
        comparison=comparison,
        inputs="dense" if tag.startswith("dense") else "sequential",
        chunk=3,
    )
    names = [f"blocks.{block}.{layer}" for block in range(2) for layer in LAYERS]
    assert [layer.name for layer in report.layers] == names
    for name in names:
        layer = model.get_submodule(name)
        if f"{tag}/{name}/W" in arrays:
            expected = arrays[f"{tag}/{name}/W"]
            tolerance = 1e-4 * float(expected.abs().max())
            torch.testing.assert_close(layer.weight.detach(), expected, rtol=0, atol=tolerance)
        else:
            packed = arrays[f"{tag}/{name}/pruned"].numpy()
            pruned = np.unpackbits(packed)[: layer.weight.numel()].reshape(layer.weight.shape)
            assert np.array_equal(~layer.weight_mask.numpy(), pruned.astype(bool))
    if f"{tag}/out" in arrays:
        with torch.no_grad():
            out = model.eval().features(arrays["X0"])
        torch.testing.assert_close(out, arrays[f"{tag}/out"], rtol=0, atol=1e-4)

"""Small vision transformers against the reference code: thresholds, logits, spikes, counts.

Sites sit in front of every operand, the image included. The reference counts every layer as
accumulates and products by three terms; its monitor of products divides the held values by t + 1
instead of t, which moves their zeros by exact cancellations, so products agree exactly at t = 1 and
to a few per cent later. Tolerances: thresholds 1e-5 relative (float32 statistics), logits 1e-8,
spikes 1e-6 relative (stored as float32), counts of weight layers exact.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import topospike.measure
from topospike.conversion import convert
from topospike.snn import SpikingNetwork
from topospike.snn.neurons import Identity

ORACLES = Path(__file__).parents[1] / "oracles" / "dcgs"
FILES = sorted(path.stem for path in ORACLES.glob("vit_*.npz"))
BLOCK = (
    "attn.qkv.0", "attn.at1.neuron1", "attn.at1.neuron2", "attn.at2.neuron1", "attn.at2.neuron2",
    "attn.proj.0", "mlp.fc1.0", "mlp.fc2.0",
)  # fmt: skip


class Attention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.qkv, self.proj, self.heads = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim), heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, dim = x.shape
        shape = (batch, tokens, 3, self.heads, dim // self.heads)
        q, k, v = self.qkv(x).reshape(shape).permute(2, 0, 3, 1, 4).unbind(0)
        weights = ((q @ k.transpose(-2, -1)) * (dim // self.heads) ** -0.5).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(batch, tokens, dim))


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads)
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(dim, ratio * dim), "fc2": nn.Linear(ratio * dim, dim)}
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x))
        hidden = nn.functional.gelu(self.mlp["fc1"](self.norm2(x)))
        return x + self.mlp["fc2"](hidden)


class ReferenceViT(nn.Module):
    def __init__(self, arch: dict) -> None:
        super().__init__()
        dim, patch = arch["dim"], arch["patch"]
        tokens = (arch["img"] // patch) ** 2 + 1
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, dim, patch, patch)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, dim))
        self.blocks = nn.ModuleList(
            Block(dim, arch["heads"], arch["mlp_ratio"]) for _ in range(arch["depth"])
        )
        self.norm, self.head = nn.LayerNorm(dim, eps=1e-6), nn.Linear(dim, arch["classes"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch_embed["proj"](x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


def load(stem: str) -> tuple[dict[str, np.ndarray], dict, dict]:
    with np.load(ORACLES / f"{stem}.npz", allow_pickle=False) as archive:
        arrays = {key: archive[key] for key in archive.files}
    about = json.loads((ORACLES / f"{stem}.json").read_text())
    (config,) = about["configs"]
    return arrays, config, about["arch"]


def reference_sites(depth: int) -> list[str]:
    blocks = [f"blocks.{i}.{name}" for i in range(depth) for name in BLOCK]
    return ["patch_embed.proj.0", *blocks, "head.0"]


def model_of(arrays: dict[str, np.ndarray], arch: dict) -> nn.Module:
    model = ReferenceViT(arch).double()
    model.load_state_dict(
        {k[2:]: torch.from_numpy(v) for k, v in arrays.items() if k.startswith("w/")}
    )
    return model.eval()


def spiking(
    arrays: dict[str, np.ndarray], config: dict, arch: dict, *, given: bool
) -> SpikingNetwork:
    options = {
        "calibration": [torch.from_numpy(arrays[f"calib{i}"]).double() for i in range(3)],
        "timesteps": config["time"],
        "coding": "differential" if config["coding_type"] == "diff_rate" else "rate",
        "levels": config["num_thresholds"],
        "granularity": config["threshold_level"],
        "scale": config["c"],
        "stat": "signed",
    }
    model = model_of(arrays, arch)
    snn = convert(model, **options)
    if not given:
        return snn
    thresholds = {
        name: torch.from_numpy(arrays[f"{config['key']}/thr/{theirs}"])
        for name, theirs in zip(snn.sites, reference_sites(arch["depth"]), strict=True)
    }
    for name, theta in thresholds.items():  # zeros are allowed in the reference
        snn.sites[name].threshold = theta.double()
    return snn


@pytest.fixture(scope="module", params=FILES)
def case(request: pytest.FixtureRequest) -> tuple[dict, dict, dict]:
    return load(request.param)


@pytest.mark.slow
def test_thresholds(case: tuple[dict, dict, dict]) -> None:
    arrays, config, arch = case
    snn = spiking(arrays, config, arch, given=False)
    for site, theirs in zip(snn.sites.values(), reference_sites(arch["depth"]), strict=True):
        expected = arrays[f"{config['key']}/thr/{theirs}"]
        found = site.threshold.numpy()
        assert found.size == expected.size, theirs
        np.testing.assert_allclose(found.ravel(), expected.ravel(), rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_logits_and_spikes_at_every_step(case: tuple[dict, dict, dict]) -> None:
    arrays, config, arch = case
    snn = spiking(arrays, config, arch, given=True)
    x = torch.from_numpy(arrays["x"]).double()
    np.testing.assert_allclose(snn.analog(x).numpy(), arrays["ann_logits"], atol=1e-8)
    frames = 1 if config["coding_type"] == "diff_rate" else 0
    for step in snn.watch(x, config["time"]):
        expected = arrays[f"{config['key']}/running_mean"][step.t - 1]
        np.testing.assert_allclose(step.logits.numpy(), expected, rtol=0, atol=1e-8)
        for held, theirs in zip(step.sites.values(), reference_sites(arch["depth"]), strict=True):
            emitted = held.spikes
            assert emitted is not None
            stored = arrays[f"{config['key']}/spk/{theirs}"][step.t - 1 + frames]
            np.testing.assert_allclose(emitted[0].numpy(), stored, rtol=1e-6, atol=1e-8)


@pytest.mark.slow
def test_operation_counts(case: tuple[dict, dict, dict]) -> None:
    arrays, config, arch = case
    snn = spiking(arrays, config, arch, given=True)
    x = torch.from_numpy(arrays["x"]).double()
    result = topospike.measure.evaluate(
        snn, [(x, torch.zeros(len(x), dtype=torch.long))], config["time"]
    )
    names = [key.split("/sop/")[1] for key in arrays if "/sop/" in key]
    order = ["patch_embed.proj"]
    for i in range(arch["depth"]):
        parts = ("attn.qkv", "attn.at1", "attn.at2", "attn.proj", "mlp.fc1", "mlp.fc2")
        order += [f"blocks.{i}.{part}" for part in parts]
    for layer, ours in zip(result.layers, [*order, "head"], strict=True):
        (theirs,) = [name for name in names if name.startswith(f"{ours}.")]
        expected = arrays[f"{config['key']}/sop/{theirs}"]
        per_step = np.diff([0.0, *layer.sops]) * result.images
        assert layer.macs * result.images == expected[0, 1], ours
        if ".at" in ours:
            assert per_step[0] == expected[0, 0]
            np.testing.assert_allclose(per_step, expected[:, 0], rtol=0.12, err_msg=ours)
        else:
            assert per_step.round(6).tolist() == expected[:, 0].tolist(), ours


@pytest.mark.slow
def test_identity_sites_repeat_the_ann() -> None:
    arrays, _, arch = load(FILES[0])
    model, x = model_of(arrays, arch), torch.from_numpy(arrays["x"]).double()
    snn = convert(model, calibration=[x], neuron=Identity())
    assert len(snn.sites) == 8 * arch["depth"] + 2
    for _, logits in snn.steps(x, 4):
        torch.testing.assert_close(logits, model(x).detach(), rtol=0, atol=1e-12)

"""The networks that are simulated: dense, with few links, and trained ones from a run folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from topospike.data import load_data
from topospike.models import build_model, resnet18, vgg16, vit
from topospike.recipe.files import recipe_from

BUILDS = {
    "small": lambda: vgg16(10, pool="avg", widths=(64, 128, 256), blocks=(2, 2, 2)),
    "vgg16": lambda: vgg16(10, pool="avg"),
    "resnet18": lambda: resnet18(10),
    "vit-s": lambda: vit(
        10, image_size=(32, 32), widths=(384,), hidden=(1536,), heads=6, patch=4, blocks=(12,)
    ),
}
"""``small`` is conv 64-64-A-128-128-A-256-256-A, fc 512-512; ``vgg16`` has average pools too."""

DENSITY = {"conv": 0.22, "linear": 0.01}


def untrained(name: str, *, sparse: bool, density: Mapping[str, float] = DENSITY) -> nn.Module:
    """Build a network whose batch norms have seen four batches; with ``sparse``, few links.

    The links are drawn at random (by default at the published densities), the first and the last
    layer excepted, and weights rescaled to the fewer inputs: which links exist costs no time.
    """
    torch.manual_seed(0)
    model = BUILDS[name]()
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        for layer in layers[1:-1] if sparse else []:
            share = density["conv" if isinstance(layer, nn.Conv2d) else "linear"]
            share = max(share, 0.3) if name == "vit-s" else share
            layer.weight.mul_((torch.rand_like(layer.weight) < share) / share**0.5)
        model.train()
        for _ in range(4):
            model(torch.randn(16, 3, 32, 32))
    return model.eval()


def trained(folder: Path, images: int) -> tuple[nn.Module, Tensor, Tensor]:
    """Return the network of a run, 64 images to calibrate on, and test images.

    The newest checkpoint is taken where the training has not finished.
    """
    record = json.loads((folder / "record.json").read_text())
    recipe = recipe_from(record["recipe"], source=str(folder))
    data = load_data(recipe.data, seed=recipe.seed)
    calibration = next(iter(data.calibration))[0][:64]
    test = next(iter(data.test))[0][:images]
    model = build_model(recipe.model, classes=data.classes, channels=3, image_size=(32, 32))
    final = folder / "model.safetensors"
    if final.is_file():
        state = load_file(final)
    else:
        newest = max((folder / "checkpoint").glob("epoch-*.safetensors"))
        stored = load_file(newest)
        state = {k.removeprefix("model."): v for k, v in stored.items() if k.startswith("model.")}
        print(f"{folder.name}: still in training, {newest.name} is taken")
    known = model.state_dict()
    model.load_state_dict({key: value for key, value in state.items() if key in known})
    return model.eval(), calibration, test

"""Models: from a name and a few sizes to a network."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from topospike.errors import ConfigError
from topospike.models.networks.fast import fast_cnn
from topospike.models.networks.gpt import gpt
from topospike.models.networks.hugging_face import llama, vit
from topospike.models.networks.mobilenet import mobilenet_v2
from topospike.models.networks.plain import conv2fc2, conv6fc2, mlp, small_cnn, vgg16
from topospike.models.networks.resnet import resnet18
from topospike.recipe import ModelSettings
from topospike.registry import Registry

MODELS: Registry[Callable[..., nn.Module]] = Registry(
    "model",
    {
        "vgg16": vgg16,
        "resnet18": resnet18,
        "conv6fc2": conv6fc2,
        "conv2fc2": conv2fc2,
        "fast_cnn": fast_cnn,
        "gpt": gpt,
        "llama": llama,
        "mlp": mlp,
        "mobilenet-v2": mobilenet_v2,
        "small_cnn": small_cnn,
        "vit": vit,
    },
)
GIVEN_BY_DATA = ("classes", "channels", "image_size", "context")
OPTIONS = ("widths", "hidden", "blocks", "pool", "heads", "patch", "dropout")


def build_model(
    settings: ModelSettings,
    *,
    classes: int,
    channels: int,
    image_size: tuple[int, int],
    context: int = 0,
    seed: int | None = None,
) -> nn.Module:
    """Build the network a recipe names, for the images or the text at hand.

    Parameters
    ----------
    settings
        Name and sizes; ``None`` leaves a size at the network's default.
    classes, channels, image_size
        From the data: number of classes, channels, (height, width).
    context
        From the data, of text: tokens of a context, whose classes are the vocabulary. 0: images.
    seed
        Draw the initial weights from this seed and leave the global generator as it was;
        ``None`` draws from the global generator, as torch does.

    Returns
    -------
    nn.Module
        Ordinary layers on the CPU, in float32 and training mode.

    Raises
    ------
    ConfigError
        If the name is unknown (the nearest one is suggested), the network has no such option, or a
        size is impossible, or reads images where the data are text, or the other way round.

    Examples
    --------
    >>> settings = ModelSettings("mlp", hidden=(32,))
    >>> build_model(settings, classes=10, channels=1, image_size=(8, 8), seed=0)
    MLP(
      (layers): Sequential(
        (0): Linear(in_features=64, out_features=32, bias=True)
        (1): ReLU()
        (2): Linear(in_features=32, out_features=10, bias=True)
      )
    )
    """
    constructor = MODELS[settings.name]
    parameters = set(inspect.signature(constructor).parameters)
    takes = parameters - set(GIVEN_BY_DATA)
    given = {name: getattr(settings, name) for name in OPTIONS}
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        if name not in takes:
            raise ConfigError(
                f"model.{name} = {value!r}: {settings.name!r} has no such option; "
                f"it takes {', '.join(sorted(takes))}"
            )
    if ("context" in parameters) != (context > 0):
        reads, given_data = ("text", "images") if context == 0 else ("images", "text")
        raise ConfigError(
            f"model.name = {settings.name!r}: this network reads {reads}, and the data are "
            f"{given_data} (data.text.context is {context}); choose another network or other data."
        )
    sizes: dict[str, Any] = (
        {"context": context} if context else {"channels": channels, "image_size": image_size}
    )
    if seed is None:
        return constructor(classes, **sizes, **given)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return constructor(classes, **sizes, **given)

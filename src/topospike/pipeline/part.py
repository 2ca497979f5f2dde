"""Pipeline: a part of a network converted by itself, such as the linear layers of a CNN."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from topospike.errors import ConfigError
from topospike.modes import evaluating
from topospike.pipeline.networks import calibration_images
from topospike.pipeline.run import Network, Run
from topospike.pipeline.showing import shown_data
from topospike.pipeline.stages import converted, model_to_convert
from topospike.recipe import ConversionSettings
from topospike.registry import suggestion
from topospike.snn import SpikingNetwork


def converted_part(
    run: Run, network: Network, settings: ConversionSettings, name: str, images: Tensor
) -> tuple[SpikingNetwork, Tensor]:
    """Convert one module of a trained network; return it with what reaches it of some images.

    It is calibrated by what reaches it of the calibration images, in the ANN.
    """
    model = model_to_convert(run, network, settings)
    known = dict(model.named_modules())
    if not name or name not in known:
        raise ConfigError(
            f"the network {network.name!r} has no part {name!r}; it has "
            f"{', '.join(module for module in known if module)}.{suggestion(name, known)}"
        )
    seen = calibration_images(shown_data(run, settings), settings.calibration_images)
    calibration = [reaching(model, name, batch.to(run.device)) for batch in seen]
    snn, _ = converted(run, settings, known[name], calibration)
    return snn, reaching(model, name, images.to(run.device))


@torch.no_grad()
def reaching(model: nn.Module, name: str, images: Tensor) -> Tensor:
    """Return what a module is given when a network sees images.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1))
    >>> bool((reaching(model, "2", torch.randn(8, 1)) >= 0).all())
    True
    """
    given: list[Tensor] = []
    hook = model.get_submodule(name).register_forward_pre_hook(
        lambda _, inputs: given.extend(inputs)
    )
    try:
        with evaluating(model):
            model(images)
    finally:
        hook.remove()
    if len(given) != 1:
        raise ConfigError(
            f"the part {name!r} is given {len(given)} tensors for an image; one is required, such "
            "as a module that is called once with what the layer before it returns."
        )
    return given[0]

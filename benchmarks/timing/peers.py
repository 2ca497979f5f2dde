"""Other simulators of the same network, from a folder of their own.

They select other versions of torch when installed beside it, so they are looked for in one folder:

    pip install --target peers --no-deps spikingjelly==2.0.0 snntorch==1.0.0 sinabs==3.1.3 \
        nir==1.0.4 loguru h5py pbr

Each gets the network with its batch norms folded and its neuron in the place of every ReLU:
integrate-and-fire, threshold 1, reset by subtraction, the image at every step. That leaves out
whatever its converter would add. Only sequential networks are given to them.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Simulation = Callable[[Tensor, int], Tensor]


def folded(model: nn.Module) -> list[nn.Module]:
    """Return the layers of a VGG in order, batch norms folded into the convolutions."""
    layers: list[nn.Module] = []
    for layer in [*model.features, nn.Flatten(), *model.classifier]:  # pyright: ignore
        if isinstance(layer, nn.BatchNorm2d):
            layers[-1] = fuse_conv_bn_eval(layers[-1], layer)  # pyright: ignore
        else:
            layers.append(layer)
    return layers


def spikingjelly_single(layers: list[nn.Module]) -> Simulation:
    """SpikingJelly, step mode 's': one step of the whole network after the other."""
    base = "spikingjelly.activation_based"
    functional, neuron = (importlib.import_module(f"{base}.{n}") for n in ("functional", "neuron"))
    net = nn.Sequential(
        *(neuron.IFNode(v_reset=None) if isinstance(m, nn.ReLU) else m for m in layers)
    )

    def simulate(x: Tensor, timesteps: int) -> Tensor:
        functional.reset_net(net)
        total = net(x)
        for _ in range(timesteps - 1):
            total = total + net(x)
        return total / timesteps

    return simulate


def spikingjelly_multi(layers: list[nn.Module]) -> Simulation:
    """SpikingJelly, step mode 'm': all steps of one layer after the other."""
    base = "spikingjelly.activation_based"
    functional, neuron = (importlib.import_module(f"{base}.{n}") for n in ("functional", "neuron"))
    net = nn.Sequential(
        *(
            neuron.IFNode(v_reset=None, step_mode="m") if isinstance(m, nn.ReLU) else OverTime(m)
            for m in layers
        )
    )

    def simulate(x: Tensor, timesteps: int) -> Tensor:
        functional.reset_net(net)
        return net(x.expand(timesteps, *x.shape)).mean(0)

    return simulate


class OverTime(nn.Module):
    """A layer without state, applied to (time, batch, ...) at once."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Fold time into the batch and unfold it again."""
        return self.layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def snntorch(layers: list[nn.Module]) -> Simulation:
    """Build the loop that snnTorch's tutorials write, with Leaky(beta=1)."""
    library = importlib.import_module("snntorch")
    nodes = [
        library.Leaky(beta=1.0, reset_mechanism="subtract") if isinstance(m, nn.ReLU) else m
        for m in layers
    ]

    def simulate(x: Tensor, timesteps: int) -> Tensor:
        starts: dict[int, Any] = {
            i: n.init_leaky for i, n in enumerate(nodes) if hasattr(n, "init_leaky")
        }
        membranes = {i: start() for i, start in starts.items()}
        total = torch.zeros(())
        for _ in range(timesteps):
            value = x
            for i, node in enumerate(nodes):
                if i in membranes:
                    value, membranes[i] = node(value, membranes[i])
                else:
                    value = node(value)
            total = total + value
        return total / timesteps

    return simulate


def sinabs(layers: list[nn.Module]) -> Simulation:
    """Convert by sinabs.from_torch; time is folded into the batch."""
    convert = importlib.import_module("sinabs.from_torch").from_model
    built: dict[tuple[int, int], nn.Module] = {}

    def simulate(x: Tensor, timesteps: int) -> Tensor:
        key = len(x), timesteps
        if key not in built:
            built[key] = convert(
                nn.Sequential(*layers), batch_size=len(x), input_shape=tuple(x.shape[1:])
            ).spiking_model
        net = built[key]
        for module in net.modules():
            reset: Any = getattr(module, "reset_states", None)
            if reset is not None:
                reset()
        return net(x.repeat_interleave(timesteps, 0)).unflatten(0, key).mean(1)

    return simulate


PEERS = {
    "SpikingJelly 's'": spikingjelly_single,
    "SpikingJelly 'm'": spikingjelly_multi,
    "snnTorch": snntorch,
    "sinabs": sinabs,
}


def peers(model: nn.Module, folder: Path | None) -> dict[str, Simulation]:
    """Return the simulators that can be imported, and print which cannot."""
    if folder is None:
        print("other simulators: not asked for (--peers FOLDER)")
        return {}
    sys.path.append(str(folder))
    found = {}
    for name, build in PEERS.items():
        try:
            found[name] = build(folded(model))
        except ImportError as error:
            print(f"{name}: absent ({error})")
    return found

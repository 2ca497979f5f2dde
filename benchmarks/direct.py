"""What a training step through time costs, ours beside SpikingJelly's on the same network.

One step is T evaluations, the mean squared error of the output rates, the backward pass through
time and AdamW. The network is 6Conv2FC, narrowed; all its neurons are of one kind
(integrate-and-fire with threshold 1, or leaky with threshold 0.5 and tau 2), with a hard reset held
constant backward and the arctangent surrogate. All variants start from the same weights; they take
turns in one process, the median counts.

SpikingJelly's step mode 's' takes one step of the network after the other, as ours does, so the two
must give the same rates, which is checked. Mode 'm' takes all steps of one layer at once: its batch
norms see all steps together in training, so it trains another way; evaluated it is the same.

    python benchmarks/direct.py --quick
    python benchmarks/direct.py --peers FOLDER    the folder of timing/peers.py
"""

from __future__ import annotations

import copy
import importlib
import sys
from collections.abc import Callable
from functools import partial

import torch
from timing import alternate, options, peak_mib, seconds, table
from timing.peers import OverTime
from torch import Tensor, nn
from torch.nn import functional

from topospike.direct import spiking_model
from topospike.models import conv6fc2
from topospike.recipe import DirectSettings, NeuronSettings

Rates = Callable[[Tensor], Tensor]
TAU = 2.0
NEURONS = {
    "if": NeuronSettings("if", threshold=1.0, surrogate="arctan"),
    "lif": NeuronSettings("lif", threshold=0.5, tau=TAU, surrogate="arctan"),
}
WIDTHS = {"narrow": (8, 8, 16, 16, 32, 32), "quarter": (32, 32, 64, 64, 128, 128)}
HIDDEN = {"narrow": 64, "quarter": 128}


def ours(model: nn.Module, kind: str, timesteps: int) -> tuple[nn.Module, Rates]:
    """Return our spiking network, and how it answers."""
    settings = DirectSettings(timesteps=timesteps, conv=NEURONS[kind], linear=NEURONS[kind])
    spiking = spiking_model(model, settings)
    return spiking, spiking


def spikingjelly(
    model: nn.Module, kind: str, timesteps: int, *, mode: str
) -> tuple[nn.Module, Rates]:
    """Return SpikingJelly's network in one of its step modes, and how it answers."""
    base = "spikingjelly.activation_based"
    library, neuron, surrogate = (
        importlib.import_module(f"{base}.{name}") for name in ("functional", "neuron", "surrogate")
    )

    def population() -> nn.Module:
        shared = {
            "v_threshold": NEURONS[kind].threshold,
            "v_reset": 0.0,
            "surrogate_function": surrogate.ATan(alpha=2.0),
            "detach_reset": True,
            "step_mode": mode,
        }
        return neuron.IFNode(**shared) if kind == "if" else neuron.LIFNode(tau=TAU, **shared)

    layers = [*model.features, nn.Flatten(), *model.classifier]  # pyright: ignore
    placed = [population() if isinstance(layer, nn.ReLU) else layer for layer in layers]
    placed.append(population())
    if mode == "m":
        placed = [m if hasattr(m, "step_mode") else OverTime(m) for m in placed]
    net = nn.Sequential(*placed)

    def rates(x: Tensor) -> Tensor:
        library.reset_net(net)
        if mode == "m":
            return net(x.expand(timesteps, *x.shape)).mean(0)
        return torch.stack([net(x) for _ in range(timesteps)]).mean(0)

    return net, rates


def train_step(
    net: nn.Module, rates: Rates, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor
) -> None:
    """Take one optimizer step."""
    net.train()
    optimizer.zero_grad()
    functional.mse_loss(rates(x), y).backward()
    optimizer.step()


def builders(folder: str) -> dict[str, Callable[..., tuple[nn.Module, Rates]]]:
    """Return what is compared, and print what cannot be imported."""
    found: dict[str, Callable[..., tuple[nn.Module, Rates]]] = {"ours": ours}
    if not folder:
        print("SpikingJelly: not asked for (--peers FOLDER)\n")
        return found
    sys.path.append(folder)
    try:
        importlib.import_module("spikingjelly.activation_based.neuron")
    except ImportError as error:
        print(f"SpikingJelly: absent ({error})\n")
        return found
    for mode in ("s", "m"):
        found[f"SpikingJelly '{mode}'"] = partial(spikingjelly, mode=mode)
    return found


@torch.no_grad()
def settle(model: nn.Module, kind: str, timesteps: int, x: Tensor) -> None:
    """Give the batch norms statistics of spikes; without them nothing fires in evaluation."""
    spiking, rates = ours(model, kind, timesteps)
    for _ in range(5):
        spiking.train()
        rates(x)


@torch.no_grad()
def differing(networks: dict[str, tuple[nn.Module, Rates]], x: Tensor) -> dict[str, str]:
    """Return, for each network, on how many images its rates are not ours; norms as trained."""
    answers = {}
    for name, (net, rates) in networks.items():
        net.eval()
        answers[name] = rates(x)
    print(f"mean rate of the outputs: {float(answers['ours'].mean()):.3f}")
    return {
        name: f"{int(((found - answers['ours']).abs() > 1e-6).any(1).sum())} of {len(x)}"
        for name, found in answers.items()
    }


def main() -> None:
    """Print one table for each size of the network."""
    given = options(__doc__, values={"peers": "", "batch": 50, "steps": 8}, neurons=("if", "lif"))
    sizes = ("narrow",) if given.quick else ("narrow", "quarter")
    repetitions = 3 if given.quick else given.repetitions
    build = builders(given.peers)
    x = torch.randn(given.batch, 3, 32, 32)
    y = functional.one_hot(torch.arange(given.batch) % 10, 10).to(x.dtype)
    for size in sizes:
        model = conv6fc2(10, widths=WIDTHS[size], hidden=(HIDDEN[size],))
        with torch.no_grad():
            for layer in model.classifier.modules():
                if isinstance(layer, nn.Linear):
                    layer.weight.mul_(20)  # so that neurons behind linear layers fire too
        rows = []
        for kind in given.neurons:
            settle(model, kind, given.steps, x)
            networks = {n: b(copy.deepcopy(model), kind, given.steps) for n, b in build.items()}
            unlike = differing(networks, x)
            actions = {}
            for name, (net, rates) in networks.items():
                optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4)
                actions[name] = partial(train_step, net, rates, optimizer, x, y)
            times = alternate(actions, repetitions)
            for name, duration in times.items():
                rows.append(
                    (
                        f"{kind.upper()} {name}",
                        seconds(duration.cpu),
                        seconds(duration.wall),
                        f"{duration.cpu / times['ours'].cpu:.2f}",
                        f"{peak_mib(actions[name]):.0f}",
                        unlike[name],
                    )
                )
        print(f"6Conv2FC {WIDTHS[size]}, {HIDDEN[size]}; T = {given.steps}, batch {given.batch}")
        table(("training step", "cpu", "wall", "x ours, cpu", "MiB more", "rates unlike"), rows)


if __name__ == "__main__":
    main()

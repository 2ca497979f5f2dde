"""Do other simulators read our NIR files as we do? SpikingJelly and snnTorch, 12 steps.

Each reader is asked twice: with its import as it is, compared with NIR's own definition of the
neurons, and with what the file's metadata asks for set by hand (reset by subtraction, membrane of
one half), compared with our network. The readers and our locked packages want different versions of
others, so they live in a folder of their own:

    pip install --target readers --no-deps spikingjelly==2.0.0 snntorch==1.0.0 nirtorch==2.6 loguru
    python benchmarks/nir_readers.py --packages readers
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import topospike as ts
from topospike.export import simulate_nir
from topospike.topology import register_mask

STEPS = 12
Reading = Callable[[Path, Tensor, bool], Tensor]


def network() -> tuple[nn.Module, Tensor]:
    """Return a sparse convolutional network and four images."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(48, 20), nn.ReLU(), nn.Linear(20, 5),
    )  # fmt: skip
    for layer in (model[3], model[7]):
        register_mask(layer, torch.rand_like(layer.get_parameter("weight")) < 0.4)
    return model.eval(), torch.randn(4, 3, 8, 8)


def read_with_spikingjelly(path: Path, x: Tensor, follow: bool) -> Tensor:
    """Return the outputs (time, batch, classes) by SpikingJelly."""
    from spikingjelly.activation_based import functional, neuron  # pyright: ignore
    from spikingjelly.activation_based.nir_exchange import import_from_nir  # pyright: ignore

    imported: Any = import_from_nir(str(path), dt=1.0)
    net = imported[0] if isinstance(imported, tuple) else imported
    net.eval()
    functional.reset_net(net)
    for module in net.modules():
        if isinstance(module, neuron.IFNode) and follow:
            module.v_reset = None
            module.v = 0.5
    return run(net, x)


def read_with_snntorch(path: Path, x: Tensor, follow: bool) -> Tensor:
    """Return the outputs (time, batch, classes) by snnTorch, for a file with leaky neurons."""
    import nir
    import snntorch  # pyright: ignore
    from snntorch.import_nir import import_from_nir  # pyright: ignore

    net: Any = import_from_nir(nir.read(str(path)))
    net.eval()
    for module in net.modules():
        if isinstance(module, snntorch.Leaky) and follow:
            subtract_at_once(module)
            start_at_half(module)
    return run(net, x)


def subtract_at_once(module: Any) -> None:
    """Let a snnTorch neuron lose one threshold a spike, in the step of the spike.

    It would otherwise also subtract at the start of the next step where the membrane still lies
    above the threshold, and not fire for it.
    """
    module.reset_mechanism = "subtract"
    module.state_function = module._base_sub
    module.mem_reset = torch.zeros_like


def start_at_half(module: Any) -> None:
    """Let a snnTorch neuron begin with a membrane of one half; it keeps its membrane itself."""
    forward = module.forward
    begun = False

    def first(current: Tensor) -> Any:
        nonlocal begun
        if not begun:
            begun, module.mem = True, torch.full_like(current, 0.5)
        return forward(current)

    module.forward = first


@torch.no_grad()
def run(net: Any, x: Tensor) -> Tensor:
    """Step an imported network; some keep their state, some hand it back."""
    outputs, state = [], None
    for image in x:
        result = net(image) if state is None else net(image, state)
        if isinstance(result, tuple):
            result, state = result
        outputs.append(result.flatten(1))
    return torch.stack(outputs)


READERS: dict[str, tuple[str, Reading]] = {
    "spikingjelly": ("if", read_with_spikingjelly),
    "snntorch": ("lif", read_with_snntorch),
}


def main() -> None:
    """Print how often each reader agrees."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--packages", type=Path, help="a folder made by pip install --target")
    parser.add_argument("--quick", action="store_true", help="as without: it takes seconds")
    options = parser.parse_args()
    if options.packages is not None:
        sys.path.append(str(options.packages))
    model, x = network()
    snn = ts.convert(model, "cs-qcfs", [x])
    sequence = x.expand(STEPS, *x.shape)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        for name, (neuron, read) in READERS.items():
            if importlib.util.find_spec(name) is None:
                print(f"{name}: not installed; see the first lines of this file")
                continue
            path = Path(folder) / f"{neuron}.nir"
            ts.export_nir(snn, path, neuron=neuron)
            for follow in (False, True):
                ours = simulate_nir(path, sequence, follow_metadata=follow).output.flatten(2)
                meaning = "following the metadata" if follow else "NIR's own definition"
                try:
                    theirs = read(path, sequence, follow)
                except Exception as error:  # whatever a reader cannot do is the result here
                    print(f"{name}, {meaning}: {type(error).__name__}: {error}")
                    continue
                difference = float((ours - theirs).abs().max())
                logits = (theirs.mean(0) - snn(x, timesteps=STEPS)[-1]).abs().max()
                print(
                    f"{name}, {meaning}: outputs of {STEPS} steps differ by at most "
                    f"{difference:.2g} (largest {float(ours.abs().max()):.2g}); "
                    f"logits from ours by {float(logits):.2g}"
                )


if __name__ == "__main__":
    main()

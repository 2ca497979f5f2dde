"""Export: run a network on a simulated neuromorphic chip, and say what that costs part by part.

The chip is simulated by SANA-FE (Boyle et al., TCAD 2025; package ``sanafe``, GPL-3, extra
``chip``), whose model of Loihi prices what operation counts leave out: that neurons are updated
whether or not they fire, and that messages travel. It also counts synaptic events by itself, which
makes it a referee: spikes and events must equal those of the network here, but for ties that are
named (`topospike.export.referee`), or an error is raised.

On a chip a spike arrives one step after it was sent, so layer l is l steps behind the image. The
bias of a layer is switched on when its first spikes can arrive, and the layer off after T steps of
its own; the whole run takes T + L - 1 steps through L layers. Spikes of a shortcut wait in relays.
"""

from __future__ import annotations

import contextlib
import copy
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from topospike.errors import ConfigError, ConversionError, require
from topospike.export.referee import (
    Reference,
    Trains,
    compare,
    reference_run,
    require_same_count,
)
from topospike.export.trained import refuse_trained
from topospike.export.unfolding import UnfoldedNetwork, unfold
from topospike.files.reading import reason
from topospike.measure.chip import ChipRun
from topospike.snn.network import SpikingNetwork

GRAIN = 1 / 64
"""What the chip cuts the membrane off to at each step, towards 0."""

LARGEST_MEMBRANE = 2.0**25
"""The chip holds a membrane as a 32-bit whole number of grains; a larger one wraps around."""

FLOAT32 = 2.0**-23
"""Attributes of neurons and links are float32 on the chip; this relative step it always tells."""

NEVER = 1e17
"""Threshold of neurons that are not to fire."""

NEURONS_A_CORE = 1024
"""Of Loihi (Davies et al. 2018)."""


def simulate_chip(
    snn: SpikingNetwork,
    images: Tensor,
    timesteps: int = 16,
    *,
    architecture: str | Path = "loihi",
    neurons_per_core: int = NEURONS_A_CORE,
) -> ChipRun:
    """Run images on a simulated chip.

    Parameters
    ----------
    snn
        A network of integrate-and-fire neurons (method ``qcfs``), without max-pools; see
        `topospike.export.unfolding.unfold`.
    images
        A few images, (images, ...); each is a run of its own.
    timesteps
        T.
    architecture
        ``"loihi"``, or a YAML file that describes a chip to SANA-FE. Of such a file the first soma
        and synapse units are taken.
    neurons_per_core
        Neurons are put on cores in order, so many on each.

    Returns
    -------
    ChipRun

    Raises
    ------
    ConversionError
        If the network reads frames or was trained through time, if it cannot be put on the chip
        (the message has the sizes), or if spikes or synaptic
        events of the chip differ from ours by more than ties.
    ConfigError
        If there is no such architecture, or a number is below 1.
    MissingDependencyError
        If the package ``sanafe`` is not installed (extra ``chip``).

    Notes
    -----
    The image is a constant input current of the first layer, as it is in the network here: what its
    multiplications cost is not on the chip. The chip holds membranes as 32-bit whole numbers, so
    each neuron has a unit of its own: the finest in which the membranes it takes here, over these
    images, fit. Weights reach it in float32. A membrane nearer to its threshold than that resolves
    (10^-6 to 10^-5 of it, more in neurons that pile up many) may fall on the other side; such a tie
    is named in the record.

    Examples
    --------
    >>> import torch, topospike as ts
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> x = torch.rand(32, 4, generator=torch.Generator().manual_seed(0))
    >>> run = ts.simulate_chip(ts.convert(model, "qcfs", [x]), x[:2], 4)
    >>> run.chip_steps, run.cores, run.neurons, run.links
    (5, 1, 11, 24)
    """
    require("sanafe", purpose="a simulated chip")
    refuse_trained(snn, "a simulated chip")
    if snn.report.input != "image":
        raise ConversionError(
            f"the network was converted with input={snn.report.input!r}, and the simulated chip is "
            "given an image, as a constant current. Convert with input='image' and pass the mean "
            "of the frames (running_means of topospike.snn.frames)."
        )
    for name, value in (("timesteps", timesteps), ("neurons_per_core", neurons_per_core)):
        if value < 1:
            raise ConfigError(f"{name} is {value}; at least 1 is required.")
    if len(images) == 0:
        raise ConfigError("there are no images to simulate; at least one is required.")
    exact = copy.deepcopy(snn).double().cpu()
    x = exact.inputs.leaves(images.detach().cpu().double())[0]
    network = unfold(exact)
    drives = network.drives(x)
    runs = [
        reference_run(
            exact, network, {name: row[i] for name, row in drives.items()}, one, timesteps
        )
        for i, one in enumerate(x.split(1))
    ]
    chip = Chip(network, units_of(runs), architecture, neurons_per_core)
    totals: Counter[str] = Counter()
    ties: list[str] = []
    for i, ours in enumerate(runs):
        counts, spikes = chip.run(ours.drive, timesteps)
        ties += compare(i, network, ours, spikes, chip.resolution(timesteps))
        beside = network.events_beside_layers(spikes)
        require_same_count(i, ours.events(spikes) + beside, counts["events"])
        totals.update(counts, beside=beside)
    mean = {name: value / len(x) for name, value in totals.items()}
    return ChipRun(
        architecture=str(architecture),
        timesteps=timesteps,
        chip_steps=timesteps + chip.delay,
        images=len(x),
        cores=chip.cores,
        neurons=sum(network.sizes.values()),
        links=network.links,
        energy_joule={
            name.removeprefix("energy "): value
            for name, value in mean.items()
            if name.startswith("energy ")
        },
        seconds=mean["seconds"],
        spikes=mean["spikes"],
        synaptic_events=mean["events"],
        events_beside_layers=mean["beside"],
        neuron_updates=mean["updates"],
        ties=tuple(ties),
    )


def units_of(runs: Sequence[Reference]) -> dict[str, Tensor]:
    """Return the size of a threshold on the chip for each neuron, so that no membrane wraps."""
    found = {}
    for name in runs[0].membranes:
        largest = torch.stack([run.membranes[name].abs().amax(0) for run in runs]).amax(0)
        found[name] = torch.exp2(torch.floor(torch.log2(LARGEST_MEMBRANE / (largest + 1))))
    return found


class Chip:
    """A network on a chip, ready for images."""

    def __init__(
        self,
        network: UnfoldedNetwork,
        units: Mapping[str, Tensor],
        architecture: str | Path,
        per_core: int,
    ) -> None:
        self.network, self.units = network, units
        self.delay = max(network.depths.values())
        described, soma, synapse = load_architecture(architecture)
        neurons = sum(network.sizes.values())
        cores = list(described.cores())
        self.cores = -(-neurons // per_core)
        if self.cores > len(cores):
            raise ConversionError(
                f"the network has {neurons:,} neurons, which is {self.cores:,} cores of "
                f"{per_core:,}; {architecture} has {len(cores):,}."
            )
        sanafe: Any = import_module("sanafe")
        net = sanafe.Network()
        attributes = {
            "reset_mode": "soft", "reset": 0.0, "leak_decay": 1.0, "force_update": True,
            "reverse_threshold": -1e18, "threshold": NEVER, "potential": 0.0, "bias": 0.0,
        }  # fmt: skip
        groups, placed = {}, 0
        for number, (name, size) in enumerate(network.sizes.items()):
            group = net.create_neuron_group(
                f"g{number}",
                size,
                model_attributes=attributes,
                soma_hw_name=soma,
                default_synapse_hw_name=synapse,
                log_spikes=True,
            )
            for neuron in group.neurons:
                neuron.map_to_core(cores[placed // per_core])
                placed += 1
            groups[name] = group
        for links in network.projections:
            pairs = list(zip(links.source.tolist(), links.target.tolist(), strict=True))
            weight = links.weight * units[links.after][links.target]
            weights = {"w": weight.tolist()}
            if pairs:
                groups[links.before].connect_neurons_sparse(groups[links.after], weights, pairs)
        self.names = {f"g{number}": name for number, name in enumerate(network.sizes)}
        self.chip = sanafe.SpikingChip(described)
        self.chip.load(net)

    def run(self, drive: Mapping[str, Tensor], timesteps: int) -> tuple[dict[str, Any], Trains]:
        """Show one image; return what the chip counts, and its spikes by the layers' own time."""
        counts: Counter[str] = Counter()
        depths, sizes = self.network.depths, self.network.sizes
        spikes = {
            name: torch.zeros(timesteps, sizes[name], dtype=torch.bool)
            for name in self.network.starts
        }
        turns = {depths[name] for name in drive} | {depths[name] + timesteps for name in drive}
        self.prepare(timesteps)
        last = timesteps + self.delay
        moments = sorted(moment for moment in turns if moment < last)
        for begin, end in zip(moments, [*moments[1:], last], strict=True):
            for name, values in drive.items():
                if depths[name] == begin:
                    self.switch_on(name, values)
                elif depths[name] + timesteps == begin:
                    self.switch_off(name)
            with contextlib.redirect_stdout(io.StringIO()):
                found = self.chip.sim(end - begin, spike_trace=True)
            counts.update(
                events=found["spikes"],
                spikes=found["neurons_fired"],
                updates=found["neurons_updated"],
                seconds=found["sim_time"],
                **{f"energy {part}": joule for part, joule in found["energy"].items()},
            )
            for step, fired in enumerate(found["spike_trace"], start=begin + 1):
                for neuron in fired:
                    name = self.names[neuron.group_name]
                    spikes[name][step - depths[name] - 1, neuron.neuron_offset] = True
        return counts, spikes

    def prepare(self, timesteps: int) -> None:
        """Bring every neuron to its start, silent.

        The chip fires strictly above a threshold and cuts positive membranes short. The start makes
        up for the cuts of T steps, and lies above by the least that float32 tells there.
        """
        self.chip.reset()
        for name, unit in self.units.items():
            ahead = (timesteps + 1) * GRAIN + unit * FLOAT32
            starts = self.network.starts.get(name, 0.0) * unit + ahead
            for neuron, start in zip(self.neurons(name), starts.tolist(), strict=True):
                attributes = {"potential": start, "bias": 0.0, "threshold": NEVER}
                neuron.set_attributes(model_attributes=attributes)

    def resolution(self, timesteps: int) -> dict[str, Tensor]:
        """Return what is told from 0 after so many steps, in thresholds, for each neuron.

        Each step cuts off a grain and adds numbers that are rounded to float32, none of them larger
        than the largest membrane.
        """
        step = 2 * GRAIN + LARGEST_MEMBRANE * FLOAT32
        return {name: timesteps * step / unit + FLOAT32 for name, unit in self.units.items()}

    def switch_on(self, name: str, drive: Tensor) -> None:
        """Give a population its constant input, and a threshold if it has one."""
        fires = name in self.network.starts
        unit = self.units[name]
        values = zip(self.neurons(name), (drive * unit).tolist(), unit.tolist(), strict=True)
        for neuron, bias, threshold in values:
            attributes = {"bias": bias, "threshold": threshold if fires else NEVER}
            neuron.set_attributes(model_attributes=attributes)

    def switch_off(self, name: str) -> None:
        """Silence a population."""
        for neuron in self.neurons(name):
            neuron.set_attributes(model_attributes={"bias": 0.0, "threshold": NEVER})

    def neurons(self, name: str) -> Any:
        """Return the neurons of a population on the chip."""
        group = next(key for key, known in self.names.items() if known == name)
        return self.chip.mapped_neuron_groups[group]


def load_architecture(architecture: str | Path) -> tuple[Any, str, str]:
    """Return a chip, and the names of the units that hold neurons and synapses."""
    sanafe: Any = import_module("sanafe")
    if architecture == "loihi":
        return sanafe.load_loihi(), "loihi_lif", "loihi_sparse_synapse"
    if architecture == "truenorth":
        raise ConfigError(
            "architecture 'truenorth' of SANA-FE prices nothing: all its energies and times are 0. "
            "Use 'loihi', or a YAML file of your own."
        )
    path = Path(architecture)
    if not path.is_file():
        raise ConfigError(
            f"there is no architecture {str(architecture)!r}; 'loihi', or a YAML file that "
            "describes a chip to SANA-FE, is required."
        )
    try:
        return sanafe.load_arch(str(path)), "", ""
    except (RuntimeError, ValueError, TypeError, LookupError) as error:
        raise ConfigError(
            f"SANA-FE cannot read the architecture {str(path)!r} ({reason(error)})."
        ) from error

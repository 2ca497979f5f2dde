"""What operations leave out: neuron updates, memory, and the same network as an 8-bit ANN.

Counting accumulates alone flatters a spiking network: its neurons are updated at every step whether
or not they fire, its membranes are read and written, and the network it is compared with need not
be one of 32-bit floating point. These figures are shown beside the operations and never added to
them, so that a reader can.

The 8-bit ANN has weights and activations of 8 bits on the same links, adds in 32 bits, and leaves
out activations that are 0: the ones that the spiking network has decoded as 0 at its last step. Its
multiply-accumulate costs 0.2 + 0.1 pJ (45 nm, Horowitz, ISSCC 2014). Where a layer is fed by the
image, by real numbers or through a max-pool, all its links count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, fx

from topospike.contracts import Evaluation
from topospike.costs import WiderCost
from topospike.measure.counting.firing import in_memory_order, weighted_sum
from topospike.measure.energy import EnergyModel, memory_energy
from topospike.snn.network import SpikingNetwork
from topospike.snn.records import first_answer, steps_a_layer
from topospike.wiring.graph import is_site
from topospike.wiring.layers import Feed

INT8_MAC_JOULE = 0.3e-12
"""An 8-bit multiplication and a 32-bit addition, 45 nm, 0.9 V (Horowitz, ISSCC 2014)."""


def wider_cost(
    snn: SpikingNetwork, run: Evaluation, model: EnergyModel, active: Mapping[str, Tensor]
) -> WiderCost:
    """Return what the operations of an evaluation leave out.

    Parameters
    ----------
    snn, run
        A network and its evaluation.
    model
        What prices an update.
    active
        Site -> for how many of the images each neuron has decoded something at the last step.

    Notes
    -----
    With a the share of the spike-fed links that active neurons feed, events at a rate r per link
    and step cost ``r t E_AC`` a link up to t, in the ANN it is ``a E_int8``; they are equal at
    ``r = a E_int8 / (t E_AC)``.
    """
    memory = memory_energy(snn, run)
    fed = {layer.name: used_links(layer.feeds, active, run.images) for layer in snn.wiring}
    spiking = {layer.name for layer in snn.wiring if layer.feeds}
    links = sum(layer.macs for layer in run.layers if layer.name in spiking)
    sops = [
        sum(layer.sops[t] for layer in run.layers if layer.name in spiking)
        for t in range(len(run.timesteps))
    ]
    used = sum(fed[name] for name in spiking)
    other = sum(layer.macs for layer in run.layers if layer.name not in spiking)
    share = used / links if links else 0.0
    late = depth(snn.ann) * steps_a_layer(snn)
    return WiderCost(
        **priced(run, share, model),
        memory_joule=memory.snn_joule,
        ann_memory_joule=memory.ann_joule,
        int8_ann_joule=(used + other) * INT8_MAC_JOULE,
        active_share=share,
        event_rate=tuple(
            s / (links * t) if links else 0.0 for s, t in zip(sops, run.timesteps, strict=True)
        ),
        chip_steps=tuple(t + late for t in run.timesteps),
        first_answer=first_answer(snn),
    )


def priced(run: Evaluation, share: float, model: EnergyModel) -> dict[str, tuple[float, ...]]:
    """Return what depends on an energy model: updates of neurons, and the break-even rate."""
    each, accumulate = model.update_joule, model.ac_joule
    neurons = sum(site.neurons for site in run.sites)
    return {
        "update_joule": () if each is None else tuple(neurons * t * each for t in run.timesteps),
        "break_even_rate": tuple(
            share * INT8_MAC_JOULE / (t * accumulate) if accumulate else 0.0 for t in run.timesteps
        ),
    }


def used_links(feeds: Sequence[Feed], active: Mapping[str, Tensor], images: int) -> float:
    """Return the links of a layer that active neurons feed, per image."""
    counts = [(feed, active[feed.site]) for feed in feeds]
    return (
        sum(weighted_sum(in_memory_order(n[None]), feed.laid_out(n)) for feed, n in counts) / images
    )


def depth(network: fx.GraphModule) -> int:
    """Return how many sites lie behind one another on the longest way through a network.

    Examples
    --------
    >>> import torch, topospike as ts
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU())
    >>> depth(ts.convert(model, calibration=[torch.rand(9, 4)]).ann)
    2
    """
    behind: dict[fx.Node, int] = {}
    for node in network.graph.nodes:
        before = max((behind[parent] for parent in node.all_input_nodes), default=0)
        behind[node] = before + is_site(node)
    return max(behind.values())


def wider_text(runs: Mapping[str, Evaluation], timestep: int) -> str:
    """Return a table of what the operations leave out: one row a run."""
    header = (
        f"{'network':<20} {'operations':>10} {'+ updates':>10} {'+ memory':>10} {'int8 ANN':>10} "
        f"{'its memory':>10} | {'events':>8} {'break-even':>10} {'chip steps':>10}"
    )
    lines = [
        f"beside the operations, uJ per image up to t = {timestep}; events per link and step",
        header,
    ]
    for name, run in runs.items():
        wider = run.wider
        if wider is None:
            continue
        at = timestep - 1
        updates = f"{wider.update_joule[at] * 1e6:.4g}" if wider.update_joule else "-"
        lines.append(
            f"{name:<20} {run.energy_joule[at] * 1e6:>10.4g} {updates:>10} "
            f"{wider.memory_joule[at] * 1e6:>10.4g} {wider.int8_ann_joule * 1e6:>10.4g} "
            f"{wider.ann_memory_joule * 1e6:>10.4g} | {wider.event_rate[at]:>8.2%} "
            f"{wider.break_even_rate[at]:>10.2%} {wider.chip_steps[at]:>10}"
        )
    lines += [
        f"{name:<20} {run.energy_per_token_joule[timestep - 1] * 1e6:>10.4g} for each of "
        f"{run.tokens:.4g} real tokens"
        for name, run in runs.items()
        if run.tokens and run.wider is not None
    ]
    return "\n".join(lines) if len(lines) > 2 else ""

"""Stage analyse: how many ways lead through a layered graph, and how many of them through hubs.

A credit-assigned path is a chain of links from an input to an output, one neuron a layer: what an
input can reach, and along what errors come back (Zhang et al. 2024). With as many links, hubs that
feed hubs open many times more paths than random links do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from topospike.analysis.graph import LayeredGraph
from topospike.analysis.null import NullComparison, compare_with_null, random_null
from topospike.errors import ConfigError

HUBS = 0.08
"""Share of the neurons of a layer that count as hubs: 80 of 1000, as published."""


@dataclass(frozen=True, slots=True)
class CreditPaths:
    """Paths from the first to the last layer, beside random graphs of the same layers and links.

    Attributes
    ----------
    total
        Number of paths.
    through_hubs
        Share of them that pass a hub in every layer between; None without a path or such a layer.
    """

    total: NullComparison
    through_hubs: NullComparison | None


def credit_paths(
    graph: LayeredGraph, *, hubs: float = HUBS, nulls: int = 20, seed: int = 0
) -> CreditPaths:
    """Count the paths from the first layer to the last, and the share that runs through hubs.

    Parameters
    ----------
    graph
        A layered graph whose links go from lower to higher layers.
    hubs
        Share of the neurons of a layer that are its hubs, those of highest degree; at least one.
    nulls, seed
        Random graphs with the same layers and links per block, and their seed.

    Raises
    ------
    ConfigError
        ``hubs`` is not in (0, 1].

    Notes
    -----
    Zhang et al. (2024), Epitopological learning and Cannistraci-Hebb network shape intelligence
    brain-inspired theory for ultra-sparse advantage in deep learning (ICLR 2024). For random links
    the share expected is ``hubs`` to the power of the layers between: 0.0064 for 80 of 1000 in two.

    Examples
    --------
    >>> from topospike.analysis import layered_graph
    >>> first, second = np.eye(3, dtype=bool), np.array([[True, True, False]] * 2)
    >>> paths = credit_paths(layered_graph([first, second]), nulls=0)
    >>> paths.total.value, paths.through_hubs.value  # two inputs reach two outputs each
    (4.0, 0.5)
    """
    if not 0.0 < hubs <= 1.0:
        raise ConfigError(f"hubs is {hubs}; a share above 0 and at most 1 is required.")
    rng = np.random.default_rng(seed)
    drawn = [measured(random_null(graph, rng), hubs) for _ in range(nulls)]
    total, share = measured(graph, hubs)
    shares = [other for _, other in drawn if other is not None]
    return CreditPaths(
        total=compare_with_null(total, [count for count, _ in drawn]),
        through_hubs=None if share is None else compare_with_null(share, shares),
    )


def measured(graph: LayeredGraph, hubs: float) -> tuple[float, float | None]:
    """Return the number of paths, and the share of those through hubs."""
    everywhere = np.ones(graph.n_nodes, dtype=bool)
    total = count_paths(graph, everywhere)
    if total == 0 or len(graph.sizes) < 3:
        return total, None
    return total, count_paths(graph, hub_nodes(graph, hubs)) / total


def hub_nodes(graph: LayeredGraph, share: float) -> Bool[np.ndarray, " node"]:
    """Mark all nodes of the outer layers and the hubs of those between; of ties, the first."""
    chosen = np.zeros(graph.n_nodes, dtype=bool)
    for layer, size in enumerate(graph.sizes):
        nodes = np.flatnonzero(graph.layers == layer)
        if layer in (0, len(graph.sizes) - 1):
            chosen[nodes] = True
            continue
        order = np.argsort(-graph.degrees[nodes], kind="stable")
        chosen[nodes[order[: max(1, round(share * size))]]] = True
    return chosen


def count_paths(graph: LayeredGraph, allowed: Bool[np.ndarray, " node"]) -> float:
    """Count the paths from layer 0 to the last layer that pass allowed nodes only."""
    reached: Float[np.ndarray, " node"] = np.where(graph.layers == 0, 1.0, 0.0) * allowed
    for low, high in sorted(graph.blocks, key=lambda block: (block[1], block[0])):
        ends: Int[np.ndarray, "link 2"] = graph.edges[graph.blocks[low, high]]
        backwards = graph.layers[ends[:, 0]] > graph.layers[ends[:, 1]]
        sources = np.where(backwards, ends[:, 1], ends[:, 0])
        targets = np.where(backwards, ends[:, 0], ends[:, 1])
        arriving = np.bincount(targets, weights=reached[sources], minlength=graph.n_nodes)
        reached = reached + arriving * allowed
    return float(reached[graph.layers == len(graph.sizes) - 1].sum())

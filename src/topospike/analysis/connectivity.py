"""Stage analyse: which neurons of a chain are alive and in how many pieces its graph falls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from topospike.analysis.graph import LayeredGraph


@dataclass(frozen=True, slots=True)
class Connectivity:
    """Size and coherence of a layered graph.

    ``components`` counts pieces among the active nodes; ``largest_share`` is the largest piece's
    share of them (0 without links).
    """

    sizes: tuple[int, ...]
    active: tuple[int, ...]
    nodes: int
    active_nodes: int
    links: int
    density: float
    components: int
    largest_nodes: int
    largest_share: float


def connectivity(graph: LayeredGraph) -> Connectivity:
    """Count nodes, links and connected components; density is over the blocks that have links.

    Examples
    --------
    >>> import numpy as np
    >>> from topospike.analysis import layered_graph
    >>> row = connectivity(layered_graph([np.eye(3, dtype=bool)]))
    >>> row.components, row.largest_share, round(row.density, 3)
    (3, 0.3333333333333333, 0.333)
    """
    active = np.bincount(graph.layers[graph.active], minlength=len(graph.sizes))
    n_active = int(active.sum())
    largest = len(graph.largest_component()) if n_active else 0
    return Connectivity(
        sizes=graph.sizes,
        active=tuple(active.tolist()),
        nodes=graph.n_nodes,
        active_nodes=n_active,
        links=graph.n_links,
        density=block_density(graph),
        components=len(np.unique(graph.component_labels[graph.active])),
        largest_nodes=largest,
        largest_share=largest / n_active if n_active else 0.0,
    )


def block_density(graph: LayeredGraph) -> float:
    """Links / possible links, counting only pairs of layers that have any link."""
    possible = sum(
        graph.sizes[a] * graph.sizes[b] if a != b else graph.sizes[a] * (graph.sizes[a] - 1) // 2
        for a, b in graph.blocks
    )
    return graph.n_links / possible if possible else 0.0


def active_neurons(masks: Sequence[Bool[np.ndarray, "_ _"]]) -> tuple[float, float | None]:
    """Share of active neurons (ANP) of a chain of masks, in two forms.

    Parameters
    ----------
    masks
        Two-dimensional masks, input side first, each n_in equal to the n_out before it.

    Returns
    -------
    anp : float
        As the reference counts: columns with a link in every mask plus rows with a link in the
        last, over all of them. A hidden neuron with outputs but no inputs counts as active.
    anp_hidden : float or None
        Share of hidden neurons with links on both sides; None for a single mask.

    Examples
    --------
    >>> import numpy as np
    >>> first, second = np.zeros((2, 2), dtype=bool), np.ones((1, 2), dtype=bool)
    >>> first[0, 0] = True
    >>> active_neurons([first, second])
    (0.8, 0.5)
    """
    blocks = [(k, k + 1, mask) for k, mask in enumerate(masks)]
    return active_share((masks[0].shape[1], *(mask.shape[0] for mask in masks)), blocks)


def active_share(
    sizes: Sequence[int], blocks: Sequence[tuple[int, int, Bool[np.ndarray, "_ _"]]]
) -> tuple[float, float | None]:
    """Share of active neurons of node sets in any wiring, in the two forms of `active_neurons`.

    A node set that some mask reads counts the neurons with an outgoing link, any other set those
    with an incoming one; hidden sets are those that are both read and written.
    """
    sends = [np.zeros(n, dtype=bool) for n in sizes]
    receives = [np.zeros(n, dtype=bool) for n in sizes]
    for source, target, mask in blocks:
        sends[source] |= mask.any(axis=0)
        receives[target] |= mask.any(axis=1)
    read, written = {source for source, _, _ in blocks}, {target for _, target, _ in blocks}
    counted = [sends[k] if k in read else receives[k] for k in range(len(sizes))]
    anp = sum(int(c.sum()) for c in counted) / sum(sizes)
    hidden = [np.logical_and(sends[k], receives[k]) for k in sorted(read & written)]
    total = sum(h.size for h in hidden)
    return anp, sum(int(h.sum()) for h in hidden) / total if total else None

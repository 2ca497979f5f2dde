"""Stage analyse: random graphs to compare a topology with.

Two nulls, neither of which ever links within a layer or across two: links drawn uniformly with the
same number in every block, and links swapped so that every node also keeps its degree in every
block. Nulls that ignore layers (Maslov-Sneppen on the whole graph) create triangles and say
nothing about a layered network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from topospike.analysis.graphs.graph import LayeredGraph
from topospike.errors import ConfigError

SWAPS_PER_LINK = 10
ATTEMPTS_PER_SWAP = 10
TRADED_LINKS = 50_000
TRADED_DENSITY = 0.1
"""Blocks with at least so many links and this density are shuffled by trades of rows."""
EXTRA_ROUNDS = 4
"""Rounds after the last wanted swap: stopping on it would fix the parity of tiny blocks."""


@dataclass(frozen=True, slots=True)
class NullComparison:
    """An observed value beside its distribution over random graphs.

    ``z`` = (value - mean) / std is None where it has no meaning: no null drawn, or the nulls do
    not vary while the value differs from them.
    """

    value: float
    mean: float | None
    std: float | None
    z: float | None
    draws: int


def compare_with_null(value: float, draws: Sequence[float]) -> NullComparison:
    """Put a value beside the mean and standard deviation (n - 1) of its null draws.

    Examples
    --------
    >>> compare_with_null(3.0, [0.0, 2.0]).z
    1.414213562373095
    """
    if len(draws) == 0:
        return NullComparison(value, None, None, None, 0)
    sample = np.asarray(draws, dtype=np.float64)
    mean = float(sample.mean())
    std = float(sample.std(ddof=1)) if len(sample) > 1 else 0.0
    scale = max(abs(mean), abs(value), 1e-300)
    if std > 1e-12 * scale:
        z: float | None = (value - mean) / std
    else:
        z = 0.0 if abs(value - mean) <= 1e-12 * scale else None
    return NullComparison(value, mean, std, z, len(sample))


def require_layers(graph: LayeredGraph) -> None:
    """Refuse graphs with links inside one layer: the nulls here are layer-preserving."""
    inside = [a for a, b in graph.blocks if a == b]
    if inside:
        raise ConfigError(
            f"layer {inside[0]} has links among its own nodes; the layer-preserving nulls need a "
            "graph whose links join different layers, as layered_graph builds from masks."
        )


def random_null(graph: LayeredGraph, generator: np.random.Generator) -> LayeredGraph:
    """Draw a graph with the same layer sizes and links per block, links uniform.

    Parameters
    ----------
    graph
        A layered graph; its isolated nodes belong to the layers and may get links.
    generator
        Source of randomness.

    Examples
    --------
    >>> import numpy as np
    >>> from topospike.analysis import layered_graph
    >>> graph = layered_graph([np.eye(4, dtype=bool)])
    >>> random_null(graph, np.random.default_rng(0)).n_links
    4
    """
    require_layers(graph)
    members = [np.flatnonzero(graph.layers == layer) for layer in range(len(graph.sizes))]
    edges = []
    for (low, high), links in graph.blocks.items():
        width = len(members[high])
        drawn = generator.choice(
            len(members[low]) * width, size=len(links), replace=False, shuffle=False
        )
        edges.append(np.stack([members[low][drawn // width], members[high][drawn % width]], 1))
    return rewired(graph, edges)


def degree_preserving_null(
    graph: LayeredGraph, generator: np.random.Generator, *, swaps_per_link: int = SWAPS_PER_LINK
) -> LayeredGraph:
    """Swap links inside each block (a-b, c-d -> a-d, c-b) until the block is shuffled.

    Parameters
    ----------
    graph
        A layered graph.
    generator
        Source of randomness.
    swaps_per_link
        Successful swaps per link of each block; attempts stop at ten times as many, so a block
        that admits no swap (a complete one) comes back unchanged.

    Notes
    -----
    Each round pairs all links of the block at random and swaps every pair with probability 1/2
    unless an end is shared, a new link exists, or a new link touches another pair's links. As the
    four links that decide this are the same before and after a swap, rounds are reversible and
    the chain is uniform over all graphs with these degrees that swaps can reach. Large dense
    blocks, where most swaps would meet a present link, are shuffled by trades (`trade_round`), as
    many rounds as swaps are asked for per link; the limit is the same.

    References
    ----------
    .. [1] C. J. Carstens, A. Berger, G. Strona, "A unifying framework for fast randomization of
       ecological networks with fixed (node) degrees", MethodsX 5 (2018).

    Examples
    --------
    >>> import numpy as np
    >>> from topospike.analysis import layered_graph
    >>> graph = layered_graph([np.random.default_rng(1).random((9, 9)) < 0.3])
    >>> null = degree_preserving_null(graph, np.random.default_rng(0))
    >>> bool((null.degrees == graph.degrees).all())
    True
    """
    require_layers(graph)
    position = np.zeros(graph.n_nodes, dtype=np.int64)
    members = [np.flatnonzero(graph.layers == layer) for layer in range(len(graph.sizes))]
    for nodes in members:
        position[nodes] = np.arange(len(nodes))
    edges = []
    for (low, high), links in graph.blocks.items():
        pair = graph.edges[links]
        flip = graph.layers[pair[:, 0]] > graph.layers[pair[:, 1]]
        pair = np.where(flip[:, None], pair[:, ::-1], pair)
        rows, columns = position[pair[:, 0]], position[pair[:, 1]].copy()
        shape = (len(members[low]), len(members[high]))
        shuffle_block(rows, columns, shape, generator, swaps_per_link)
        edges.append(np.stack([members[low][rows], members[high][columns]], axis=1))
    return rewired(graph, edges)


def shuffle_block(
    rows: Int[np.ndarray, " link"],
    columns: Int[np.ndarray, " link"],
    shape: tuple[int, int],
    generator: np.random.Generator,
    swaps_per_link: int,
) -> None:
    """Shuffle the links of one block in place; the degrees of rows and columns stay."""
    n_links = len(rows)
    if n_links < 2:
        return
    if n_links >= TRADED_LINKS and n_links >= TRADED_DENSITY * shape[0] * shape[1]:
        matrix = np.zeros(shape, dtype=bool)
        matrix[rows, columns] = True
        for _ in range(swaps_per_link):
            trade_round(matrix, generator)
        rows[:], columns[:] = np.nonzero(matrix)
        return
    owner = np.full(shape[0] * shape[1], -1, dtype=np.int32)
    goal = swaps_per_link * n_links
    attempts_left = ATTEMPTS_PER_SWAP * goal
    done, more = 0, EXTRA_ROUNDS
    while more > 0 and attempts_left > 0:
        order = generator.permutation(n_links)[: n_links // 2 * 2].reshape(2, -1)
        done += swap_round(rows, columns, order, shape[1], owner, generator)
        attempts_left -= order.shape[1]
        more -= done >= goal


def trade_round(matrix: Bool[np.ndarray, "row column"], generator: np.random.Generator) -> None:
    """Pair the rows at random and deal out anew, in place, the columns only one of a pair has.

    Every row keeps its number of links and every column too. A deal is as likely as its reverse, so
    repeated rounds are uniform over all matrices with these degrees.
    """
    one, two = generator.permutation(len(matrix))[: len(matrix) // 2 * 2].reshape(2, -1)
    a, b = matrix[one], matrix[two]
    differs = a ^ b
    key = generator.random(differs.shape, dtype=np.float32)
    key[~differs] = 2.0
    rank = np.empty(differs.shape, dtype=np.int32)
    places = np.arange(differs.shape[1], dtype=np.int32)[None]
    np.put_along_axis(rank, np.argsort(key, axis=1), places, axis=1)
    dealt = rank < (a & differs).sum(axis=1, keepdims=True)
    matrix[one] = (a & b) | dealt
    matrix[two] = (a & b) | (differs & ~dealt)


def swap_round(
    rows: np.ndarray,
    columns: np.ndarray,
    order: np.ndarray,
    width: int,
    owner: np.ndarray,
    generator: np.random.Generator,
) -> int:
    """One round of simultaneous swaps; ``owner`` is scratch space, -1 everywhere on entry."""
    one, two = order
    pairs = np.arange(len(one), dtype=np.int32)
    present = rows * width + columns
    new = np.stack([rows[one] * width + columns[two], rows[two] * width + columns[one]])
    proposed = (rows[one] != rows[two]) & (columns[one] != columns[two])

    owner[present] = len(pairs)
    owner[present[one]] = owner[present[two]] = pairs
    blocked = np.zeros(len(pairs) + 1, dtype=bool)
    holder = owner[new[:, proposed]]
    blocked[holder[holder >= 0]] = True
    blocked[:-1][proposed] |= (holder >= 0).any(axis=0)
    owner[present] = -1

    # Two pairs that propose the same link: whoever is overwritten sees a foreign owner.
    for half in new:
        owner[half[proposed]] = pairs[proposed]
    for half in new:
        winner = owner[half[proposed]]
        clash = winner != pairs[proposed]
        blocked[:-1][proposed] |= clash
        blocked[winner[clash]] = True
    owner[new[:, proposed]] = -1

    accept = proposed & ~blocked[:-1] & (generator.random(len(pairs)) < 0.5)
    first, second = one[accept], two[accept]
    columns[first], columns[second] = columns[second], columns[first]
    return int(accept.sum())


def rewired(graph: LayeredGraph, edges: list[np.ndarray]) -> LayeredGraph:
    """Return the same nodes and layers with other links."""
    joined = np.concatenate(edges) if edges else np.zeros((0, 2), dtype=np.int64)
    code = np.sort(joined.min(axis=1) * graph.n_nodes + joined.max(axis=1))
    ordered = np.stack(np.divmod(code, graph.n_nodes), axis=1)
    return LayeredGraph(graph.sizes, ordered, graph.layers)

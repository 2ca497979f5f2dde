"""Export: a topology for network scientists: an edge list, GraphML, or arrays.

``edges.csv`` lists every link of every layer, one a row, by neuron (or channel and kernel tap)
within the layer. GraphML and ``.npz`` hold one graph: layers that follow one another, joined as
`topospike.analysis` joins them, convolutions between channels with the number of taps as weight.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from topospike.analysis.graphs.chains import main_chain
from topospike.analysis.graphs.graph import LayeredGraph
from topospike.contracts import write_atomically
from topospike.errors import ConfigError, require
from topospike.topology import Topology

FORMATS = ("csv", "graphml", "npz")


def export_graph(
    topology: Topology, path: str | Path, *, layers: Sequence[str] | None = None
) -> Path:
    """Write a topology as a graph file; the suffix of ``path`` names the format.

    Parameters
    ----------
    topology
        A frozen topology.
    path
        ``*.csv``: every link of every layer. ``*.graphml`` or ``*.npz``: one layered graph.
    layers
        Which layers form the graph, input side first; default: the longest run that follows one
        another (`topospike.analysis`). A CSV file holds these layers, by default all.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ConfigError
        If the suffix is none of these, or a layer is unknown.
    ShapeError
        If the layers do not follow one another (GraphML and npz).

    Notes
    -----
    CSV columns: ``layer, source, target, row, column``; ``source`` and ``target`` are the input and
    the output of the link within its layer, ``row, column`` the kernel tap (0 in linear layers).
    GraphML nodes have ``layer`` and ``index`` (within the layer), links ``taps``. The npz file has
    ``sizes`` (nodes of each layer), ``edges`` (link, 2), ``layers`` (node) and ``taps`` (link).

    Examples
    --------
    >>> import tempfile, torch
    >>> topology = Topology.from_masks({"fc.weight": torch.eye(2, dtype=torch.bool)})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     print(export_graph(topology, f"{folder}/edges.csv").read_text())
    layer,source,target,row,column
    fc.weight,0,0,0,0
    fc.weight,1,1,0,0
    <BLANKLINE>
    """
    path = Path(path)
    suffix = path.suffix.removeprefix(".")
    if suffix not in FORMATS:
        raise ConfigError(
            f"{path.name} ends in {path.suffix!r}; one of .{', .'.join(FORMATS)} is required."
        )
    if suffix == "csv":
        write_atomically(
            path, "\n".join(["layer,source,target,row,column", *rows(topology, layers), ""])
        )
        return path
    graph = main_chain(topology.masks, layers).graph()
    if suffix == "npz":
        write_atomically(path, arrays(graph))
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_graphml(graph, path)
    return path


def rows(topology: Topology, layers: Sequence[str] | None) -> Iterator[str]:
    """Yield one line a link."""
    masks = topology.masks
    chosen = list(masks) if layers is None else [full_name(name, masks) for name in layers]
    for name in chosen:
        for place in masks[name].nonzero().tolist():
            target, source, *taps = place
            row, column = [*([0] * (2 - len(taps))), *taps][:2]
            yield f"{name},{source},{target},{row},{column}"


def full_name(name: str, masks: dict[str, object] | object) -> str:
    """Return the parameter name of a layer given with or without its ending."""
    known = list(masks)  # pyright: ignore[reportArgumentType]
    for candidate in (name, f"{name}.weight"):
        if candidate in known:
            return candidate
    raise ConfigError(f"layer {name!r} is not in the topology. Known: {', '.join(known)}.")


def arrays(graph: LayeredGraph) -> bytes:
    """Return a layered graph as an ``.npz`` file."""
    packed = io.BytesIO()
    taps = np.ones(graph.n_links, np.int64) if graph.taps is None else graph.taps
    np.savez_compressed(
        packed, sizes=np.array(graph.sizes), edges=graph.edges, layers=graph.layers, taps=taps
    )
    return packed.getvalue()


def write_graphml(graph: LayeredGraph, path: Path) -> None:
    """Write a layered graph with igraph."""
    require("igraph", purpose="the GraphML file")
    import igraph

    starts = np.concatenate([[0], np.cumsum(graph.sizes)])
    content = igraph.Graph(n=graph.n_nodes, edges=graph.edges.tolist())
    content.vs["layer"] = graph.layers.tolist()
    content.vs["index"] = (np.arange(graph.n_nodes) - starts[graph.layers]).tolist()
    taps = np.ones(graph.n_links, np.int64) if graph.taps is None else graph.taps
    content.es["taps"] = taps.tolist()
    content.write_graphml(str(path))

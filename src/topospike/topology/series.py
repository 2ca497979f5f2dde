"""Stage topology: the topologies that training passes through, saved as files.

``topologies/update-0012.npz`` in the folder of a network is its topology after 12 updates, in the
format of `Topology.save`; update 0 is the one it starts from. The records of the updates count
links; what became of the degrees needs the links themselves. Nothing is changed or measured here.
"""

from __future__ import annotations

import re
from pathlib import Path

from torch import nn

from topospike.contracts import TopologyUpdate
from topospike.errors import ConfigError, TopologyViolation
from topospike.topology.frozen import Topology
from topospike.topology.layers import masks_of

FOLDER = "topologies"
NAME = re.compile(r"update-(\d+)\.npz")


def series_path(folder: str | Path, update: int) -> Path:
    """Return the file of the topology after ``update`` updates.

    Examples
    --------
    >>> series_path("runs/a", 12).as_posix()
    'runs/a/topologies/update-0012.npz'
    """
    return Path(folder) / FOLDER / f"update-{update:04d}.npz"


def saved_series(folder: str | Path) -> dict[int, Path]:
    """Return number of updates -> file, in order; empty where none were saved.

    Examples
    --------
    >>> saved_series("no such folder")
    {}
    """
    found = {path: NAME.fullmatch(path.name) for path in (Path(folder) / FOLDER).glob("*.npz")}
    numbered = {int(match[1]): path for path, match in found.items() if match}
    return dict(sorted(numbered.items()))


class TopologySeries:
    """Saves the topology a model starts from, and that after every few updates.

    Parameters
    ----------
    model
        Network with masks, before its training.
    folder
        Gets ``topologies/update-0000.npz``, ``update-0005.npz``, ...
    every
        Updates from one saved topology to the next.
    writes
        Of several processes that train one network, all hold a series (masks may be spread over
        them) and one writes.

    Raises
    ------
    ConfigError
        If ``every`` is less than 1.
    TopologyViolation
        If no parameter has a mask.

    Notes
    -----
    Files are written whole or not at all, and equal topologies give equal bytes: a run that goes on
    from a checkpoint writes those after it again and ends with the files of a run in one go.

    Examples
    --------
    Give it to `topospike.train.fit` as ``after_update``, or call it with each record:

    >>> import tempfile
    >>> from topospike.evolve import sparsify
    >>> model = nn.Sequential(nn.Linear(30, 30), nn.ReLU(), nn.Linear(30, 10))
    >>> sparsifier = sparsify(model, "set", sparsity=0.8, epochs=8, percolation=False)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     series = TopologySeries(model, folder, every=2)
    ...     for epoch in range(5):
    ...         series(sparsifier.update_topology(epoch))
    ...     list(saved_series(folder))
    [0, 2, 4]
    """

    def __init__(
        self, model: nn.Module, folder: str | Path, *, every: int, writes: bool = True
    ) -> None:
        if every < 1:
            raise ConfigError(f"every={every} was given; 1 or more updates are required.")
        if not masks_of(model):
            raise TopologyViolation(
                f"no parameter of {type(model).__name__} has a mask, so there is no topology to "
                "save; sparsify it first."
            )
        self.model = model
        self.folder = Path(folder)
        self.every = every
        self.writes = writes
        self.save(0, epoch=None)

    def __call__(self, update: TopologyUpdate) -> None:
        """Save the topology that an update has left, if it is due."""
        if update.update_index % self.every == 0:
            self.save(update.update_index, epoch=update.epoch)

    def save(self, update: int, *, epoch: int | None) -> None:
        """Save the topology as it is now."""
        masks = masks_of(self.model)
        if self.writes:
            topology = Topology.from_masks(masks, provenance={"update": update, "epoch": epoch})
            topology.save(series_path(self.folder, update))

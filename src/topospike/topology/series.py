"""Stage topology: where the topologies that training passes through are saved.

``topologies/update-0012.npz`` in the folder of a network is its topology after 12 updates, in the
format of `Topology.save`; update 0 is the one it starts from.
"""

from __future__ import annotations

import re
from pathlib import Path

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

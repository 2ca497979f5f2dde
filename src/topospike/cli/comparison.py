"""Command line: topologies analysed one after the other, and put side by side.

Each report is written beside its topology, as for one alone; what compares them goes to a folder
of its own: ``comparison.json``, and the disks and degree distributions as figures.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from topospike.analysis import TopologyReport, compare
from topospike.analysis.comparison import compared_degrees, compared_disks
from topospike.contracts import to_json, write_atomically
from topospike.errors import ConfigError
from topospike.files.seal import stages_naming
from topospike.pipeline.analysing import AnalysisSettings, measured
from topospike.pipeline.folder.ledger import Ledger
from topospike.pipeline.folder.lock import locked
from topospike.pipeline.folder.record import recorded_recipe
from topospike.pipeline.run import Run
from topospike.pipeline.stages import analyse_network
from topospike.topology import Topology

RANDOM = "random"
SEED = 0


def analyse_all(paths: Sequence[Path], settings: AnalysisSettings) -> dict[str, Path]:
    """Analyse what each path holds; return the reports, named by the ends of their paths."""
    names = short_names([named_after(path) for path in paths])
    return {name: analyse_one(path, settings) for name, path in zip(names, paths, strict=True)}


def named_after(path: Path) -> Path:
    """Return what a topology is named after: its run folder, or a file of another name.

    Examples
    --------
    >>> named_after(Path("runs/a/topology.npz")).name, named_after(Path("set-40.npz")).name
    ('a', 'set-40')
    """
    if not is_file(path):
        return path
    return path.absolute().parent if path.stem == "topology" else path.with_suffix("")


def analyse_one(path: Path, settings: AnalysisSettings) -> Path:
    """Analyse the topology of a run folder, or a saved one; return the report beside it."""
    if is_file(path):
        target = path.with_name(f"{path.stem}_report.json")
        report = measured(Topology.load(path), settings, seed=SEED)
        with taking_over(target, f"analyse {path.name}"):
            report.save(target)
        return target
    recipe = recorded_recipe(path)
    with locked(path):
        at_work = Run(recipe, path)
        with at_work.recorded():
            return analyse_network(at_work, settings)


@contextmanager
def taking_over(target: Path, name: str) -> Iterator[None]:
    """Let a run folder know that its report was written anew, by another command than its stage."""
    origin = stages_naming(target)
    if origin is None:
        yield
        return
    folder, stage, _ = origin
    with locked(folder):
        yield
        ledger = Ledger(folder)
        ledger.reopen(stage)
        ledger.begin(name, {})
        ledger.end(name, outputs=[str(target.absolute().relative_to(folder))], seconds=0.0)


def topology_file(path: Path) -> Path:
    """Return the saved topology of a run folder, or the file itself."""
    return path if is_file(path) else path / "topology.npz"


def figure_folder(path: Path) -> Path:
    """Return where the figures of a run folder, or of a saved topology, go."""
    return path.with_name(f"{path.stem}_figures") if is_file(path) else path / "figures"


def is_file(path: Path) -> bool:
    """Tell a saved topology from a run folder, by its name."""
    return path.suffix == ".npz"


def short_names(paths: Sequence[Path]) -> list[str]:
    """Return the last parts of each path, as many as tell them apart.

    Raises
    ------
    ConfigError
        If a path is given twice.

    Examples
    --------
    >>> short_names([Path("runs/a/topology"), Path("runs/b/topology")])
    ['a/topology', 'b/topology']
    """
    full = [path.absolute().parts for path in paths]
    twice = next((path for path in paths if full.count(path.absolute().parts) > 1), None)
    if twice is not None:
        raise ConfigError(f"{twice} is given twice; name every topology once.")
    longest = max(map(len, full))
    ends = (["/".join(path[-n:]) for path in full] for n in range(1, longest + 1))
    return next(names for names in ends if len(set(names)) == len(names))


def random_reports(paths: Sequence[Path], settings: AnalysisSettings) -> dict[str, TopologyReport]:
    """Analyse random topologies with the layers and link counts of each distinct one given."""
    reports: dict[str, TopologyReport] = {}
    seen: set[tuple[tuple[str, int], ...]] = set()
    for path in paths:
        topology = Topology.load(topology_file(path))
        links = tuple((name, int(mask.sum())) for name, mask in topology.masks.items())
        if links not in seen:
            seen.add(links)
            name = RANDOM if len(seen) == 1 else f"{RANDOM} {len(seen)}"
            reports[name] = measured(shuffled(topology, seed=SEED), settings, seed=SEED)
    return reports


def differing_layers(reports: Mapping[str, TopologyReport]) -> str | None:
    """Say which layers to choose where the topologies' graphs are not of the same ones.

    Structured pruning masks the classifier too, for example, which evolving links leaves dense.
    """
    chains = {name: report.chain for name, report in reports.items()}
    first = next(iter(chains.values()))
    if all(chain == first for chain in chains.values()):
        return None
    shared = [name for name in first if all(name in chain for chain in chains.values())]
    which = "; ".join(f"{name}: {', '.join(chain)}" for name, chain in chains.items())
    choice = (
        f"Compare the layers they share by --chain {' '.join(shared)}."
        if shared
        else "They share no layer: choose comparable ones by --chain, one command a topology."
    )
    return f"the graphs are of different layers ({which}). {choice}"


def shuffled(topology: Topology, *, seed: int) -> Topology:
    """Return a topology with the same number of links in every layer, placed at random."""
    generator = torch.Generator().manual_seed(seed)
    masks = {
        name: mask.flatten()[torch.randperm(mask.numel(), generator=generator)].view_as(mask)
        for name, mask in topology.masks.items()
    }
    return Topology.from_masks(masks, provenance={"rule": RANDOM, "seed": seed})


def write_comparison(reports: Mapping[str, TopologyReport], folder: Path) -> Path:
    """Write the rows and the figures of several reports; return the path of the rows."""
    path = folder / "comparison.json"
    figures = folder / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    if any(report.disk is not None for report in reports.values()):
        compared_disks(reports).savefig(figures / "disks.svg")
    if any(report.degrees.degree for report in reports.values()):
        compared_degrees(reports).savefig(figures / "degrees.svg")
    rows = [to_json(row) for row in compare(reports)]
    write_atomically(path, json.dumps(rows, indent=1) + "\n")
    return path

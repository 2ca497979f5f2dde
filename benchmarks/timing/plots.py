"""Pictures of benchmarks (SVG): one file a picture, and those of the simulation benchmark."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from timing.figures import Figure, Figures

ORDER = ("decoded", "bf16", "event", "SpikingJelly 's'", "SpikingJelly 'm'", "snnTorch", "sinabs")
WIDTH, HEIGHT = 6.4, 4.0


def draw(figures: Figures, folder: Path) -> list[Path]:
    """Draw what there are figures for; return the files."""
    pictures: dict[str, Callable[[Any], bool]] = {
        "engines": lambda ax: engines(figures, ax, single=False),
        "engines-one-image": lambda ax: engines(figures, ax, single=True),
        "cost-over-time": lambda ax: cost_over_time(figures, ax),
        "memory-over-time": lambda ax: memory_over_time(figures, ax),
        "cost-over-firing": lambda ax: sweep(figures, ax, "firing", "share of neurons that fire"),
        "cost-over-links": lambda ax: sweep(figures, ax, "density", "share of links that exist"),
    }
    drawn = (picture(folder / f"{name}.svg", fill) for name, fill in pictures.items())
    return [path for path in drawn if path is not None]


def picture(path: Path, fill: Callable[[Any], bool]) -> Path | None:
    """Draw one picture, or nothing if it would be empty; the same figures give the same file."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = path.stem
    canvas, axes = plt.subplots(figsize=(WIDTH, HEIGHT), layout="constrained")
    try:
        if not fill(axes):
            return None
        axes.spines[["top", "right"]].set_visible(False)
        canvas.savefig(path, metadata={"Date": None})
        return path
    finally:
        plt.close(canvas)


def engines(figures: Figures, axes: Any, *, single: bool) -> bool:
    """Draw a step of each engine in plain forwards of the batch, one group of bars a network."""
    found = [f for f in figures.of("engine", neuron="rate IF") if (f["batch"] == 1) == single]
    steps = {label(f): most_common_steps(found, label(f)) for f in found}
    groups = list(steps)
    present = [name for name in ORDER if any(f["engine"] == name for f in found)]
    width = 0.8 / max(len(present), 1)
    for place, engine in enumerate(present):
        heights = [one_step(found, group, engine, steps[group]) for group in groups]
        places = [i + (place - (len(present) - 1) / 2) * width for i in range(len(groups))]
        axes.bar(places, heights, width, label=engine)
    axes.axhline(1.0, color="0.6", linewidth=0.8)
    axes.set_xticks(range(len(groups)), groups, fontsize=7)
    axes.set_ylabel("a time step, in plain forwards")
    if found:
        axes.legend(fontsize=7, frameon=False)
    return bool(found)


def label(figure: Figure) -> str:
    """Return what a group of bars is called."""
    weights = "" if figure["weights"] == "random" else f"\n{figure['weights']}"
    name = figure["network"].replace("-", "-\n", 1) if weights else figure["network"]
    return f"{name}\n{figure['links']}{weights}"


def most_common_steps(found: Iterable[Figure], group: str) -> int:
    """Return the number of steps at which most engines were timed; 8, if it is among those."""
    counts = [f["timesteps"] for f in found if label(f) == group]
    return max(sorted(set(counts)), key=lambda steps: (counts.count(steps), steps == 8))


def one_step(found: Iterable[Figure], group: str, engine: str, timesteps: int) -> float:
    """Return the plain forwards of a step, 0 where there is no figure."""
    for f in found:
        if (label(f), f["engine"], f["timesteps"]) == (group, engine, timesteps):
            return f["forwards"] / timesteps
    return 0.0


def cost_over_time(figures: Figures, axes: Any) -> bool:
    """Draw plain forwards against T on the small network."""
    drawn = over_time(figures, axes, "forwards")
    axes.set_ylabel("plain forwards")
    return drawn


def memory_over_time(figures: Figures, axes: Any) -> bool:
    """Draw the peak memory that a simulation adds against T."""
    drawn = over_time(figures, axes, "mib")
    axes.set_ylabel("peak memory added, MiB")
    return drawn


def over_time(figures: Figures, axes: Any, value: str) -> bool:
    """Draw one value of every engine against T: small dense network, largest batch."""
    found = figures.of("engine", network="small", links="dense", neuron="rate IF")
    largest = max((f["batch"] for f in found), default=0)
    found = [f for f in found if f["batch"] == largest]
    for engine in ORDER:
        line = sorted((f["timesteps"], f[value]) for f in found if f["engine"] == engine)
        if line:
            axes.plot(*zip(*line, strict=True), marker="o", markersize=3, label=engine)
    if not found:
        return False
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    steps = sorted({f["timesteps"] for f in found})
    axes.set_xticks(steps, [str(t) for t in steps])
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(f"time steps T (small VGG, batch {largest}, integrate-and-fire)")
    axes.legend(fontsize=7, frameon=False)
    return True


def sweep(figures: Figures, axes: Any, part: str, xlabel: str) -> bool:
    """Draw the cost over that of the dense form against a share."""
    found = figures.of(part)
    for name in dict.fromkeys(f["network"] for f in found):
        line = sorted((f["at"], f["ratio"]) for f in found if f["network"] == name)
        axes.plot(*zip(*line, strict=True), marker="o", markersize=3, label=name)
    if not found:
        return False
    axes.set_xscale("log")
    axes.set_yscale("log", base=2)
    axes.minorticks_off()
    places = sorted({f["at"] for f in found})
    axes.set_xticks(places, [f"{place:.2g}" for place in places])
    axes.yaxis.set_major_formatter("{x:g}")
    axes.axhline(1.0, color="0.6", linewidth=0.8)
    axes.set_xlabel(xlabel)
    axes.set_ylabel("cost over the dense form")
    axes.legend(fontsize=7, frameon=False)
    return True

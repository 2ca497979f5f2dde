"""How long T time steps take, in plain forwards of the same network, for every way to take them.

One process, alternating repetitions, medians of processor time (the same run holds the plain
forward, so a busy machine changes the ratios little); 3 x 32 x 32 images, noise or, for trained
networks, test images. Neurons are integrate-and-fire in rate coding (``rate IF``) or
multi-threshold in differential coding (``DCGS``). Beside our figures stands what the cost model
expects: dense MACs, event MACs and memory read and written by the sites.

    python benchmarks/simulation.py --quick
    python benchmarks/simulation.py --peers peers --runs runs/NAME
    python benchmarks/simulation.py --select full --nets vgg16 --parts networks
    python benchmarks/simulation.py --parts
    python benchmarks/simulation.py --quick --against COMMIT

The default selection has at least one case of everything and takes twenty minutes, trained networks
apart. Figures are kept in ``OUT/figures.json`` as they are measured: an interrupted run loses
nothing, a later one replaces what it measures again. ``OUT/tables.md`` and the pictures are made
from that file, also without measuring (``--parts`` alone). ``--against`` times the selection with
the package of an earlier commit beside this one, and nothing else.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
from timing import table
from timing.against import COLUMNS, METHODS, Row, compare_versions
from timing.engines import WITHOUT_RELU, Subject, compare
from timing.figures import Figures, markdown
from timing.peers import peers
from timing.plots import draw
from timing.selections import ENGINES, NETWORKS, SELECTIONS, Case, chosen
from timing.spiking import trained, untrained
from timing.sweeps import against_density, against_firing

from topospike.pipeline.folder.record import hardware

PARTS = ("networks", "trained", "firing", "density")
OUT = Path("runs/benchmark-simulation")
PEERS = Path("peers")
RUNS = (Path("runs/vgg-cifar"), Path("runs/vgg-cifar-sparse"))
"""Where other simulators and trained networks are looked for if nothing is said."""


def random_networks(given: argparse.Namespace, figures: Figures) -> None:
    """Time the selected cases; other simulators on the networks they can be given."""
    for case in chosen(given.select, given.nets, given.batches, given.steps):
        torch.manual_seed(1)
        x = torch.randn(case.batch, 3, 32, 32)
        model = untrained(case.network, sparse=case.sparse)
        links = "few links" if case.sparse else "dense"
        subject = Subject(case.network, "random", links, model, calibration_images(case), x)
        compare(
            subject,
            figures,
            horizons=case.horizons,
            engines=given.engines,
            others=peers(model, given.peers) if case.others else {},
            others_horizons=case.others,
            repetitions=given.repetitions,
        )


def calibration_images(case: Case) -> torch.Tensor:
    """Return noise to calibrate on: at least 16 images, whatever the batch."""
    return torch.randn(max(16, min(case.batch, 32)), 3, 32, 32)


def trained_networks(given: argparse.Namespace, figures: Figures) -> None:
    """Time the networks of run folders on test images."""
    for folder in given.runs:
        for batch in given.batches or (64, 1):
            model, calibration, x = trained(folder, batch)
            compare(
                Subject(folder.name, "trained", links_of(model), model, calibration, x),
                figures,
                horizons=tuple(given.steps or (4, 8, 16, 32)),
                engines=given.engines,
                others={},
                others_horizons=(),
                repetitions=given.repetitions,
            )
    if not given.runs:
        print("no trained network: --runs FOLDER\n")


def version_rows(given: argparse.Namespace) -> list[Row]:
    """Return the selected simulations one by one, those of a network together.

    Those of whole weights are left out: a version need not have them.
    """
    return [
        Row(case.network, case.sparse, case.batch, neuron, engine, timesteps)
        for case in chosen(given.select, given.nets, given.batches, given.steps)
        for neuron in METHODS
        if neuron == "DCGS" or case.network not in WITHOUT_RELU
        for engine in given.engines
        if engine != "integer"
        for timesteps in case.horizons
    ]


def links_of(model: torch.nn.Module) -> str:
    """Tell a network with few links from a dense one."""
    weights = [p for p in model.parameters() if p.ndim > 1]
    links = sum(int(w.count_nonzero()) for w in weights)
    return "few links" if links < 0.7 * sum(w.numel() for w in weights) else "dense"


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="about a minute")
    parser.add_argument("--select", choices=sorted(SELECTIONS), default="standard")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--nets", nargs="+", choices=NETWORKS, help="of the selection, only these")
    parser.add_argument("--batches", type=int, nargs="+", help="of the selection, only these")
    parser.add_argument("--steps", type=int, nargs="+", help="T, in place of the selection's")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=2)
    parser.add_argument("--peers", type=Path, help=f"other simulators (default: {PEERS}, if there)")
    parser.add_argument("--runs", type=Path, nargs="*", help="run folders of trained networks")
    parser.add_argument("--against", metavar="COMMIT", help="compare with the package of a commit")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for figures and pictures")
    given = parser.parse_args()
    if given.peers is None and PEERS.is_dir():
        given.peers = PEERS
    if given.runs is None:
        finished = [run for run in RUNS if (run / "model.safetensors").is_file()]
        given.runs = [] if given.quick else finished
    if given.quick:
        given.select, given.repetitions = "quick", 15 if given.against else 1
    return given


def main() -> None:
    """Measure what is asked for, then write the tables and draw the pictures."""
    given = arguments()
    torch.set_num_threads(given.threads)
    print("; ".join(f"{key} {value}" for key, value in hardware().items()))
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"torch {torch.__version__}, {given.threads} thread(s), load average {load}\n")
    if given.against:
        rows = version_rows(given)
        options = {"repetitions": max(given.repetitions, 2), "threads": given.threads}
        table(COLUMNS, compare_versions(given.against, rows, **options))
        return
    figures = Figures(given.out)
    batch = 8 if given.quick else 32
    measurements = {
        "networks": lambda: random_networks(given, figures),
        "trained": lambda: trained_networks(given, figures),
        "firing": lambda: against_firing(figures, batch, given.repetitions),
        "density": lambda: against_density(figures, batch // 2, given.repetitions),
    }
    try:
        for part in given.parts:
            measurements[part]()
    finally:  # also of what there is when a run is interrupted
        (given.out / "tables.md").write_text(markdown(figures) + "\n")
        pictures = [path.name for path in draw(figures, given.out)]
        print(f"{given.out}: figures.json, tables.md, {', '.join(pictures) or 'no pictures'}")


if __name__ == "__main__":
    main()

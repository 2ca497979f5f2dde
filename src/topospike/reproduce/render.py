"""Reproduce: a comparison as Markdown, CSV, SVG figures and one self-contained HTML page.

Markdown and HTML round for reading; the CSV file has every digit, joules and per cent. All three
have a line for every row of the target, run or not. Figures are drawn from the outcomes of its
rows: accuracy over energy, one for each dataset, network and conversion, as in figures 4, 5 and A1;
hyperbolic disks, one for each topology, as in figure 3. Rows that were not run are left out.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from topospike.contracts import write_atomically
from topospike.errors import require
from topospike.report.charts.network import layer_names
from topospike.report.charts.svg import draw_disk, draw_pareto, save, style
from topospike.report.labels import display_name
from topospike.report.simulation import Trajectory
from topospike.report.units import NO_VALUE, energy
from topospike.reproduce.comparison import Cell, Line
from topospike.reproduce.published import slug
from topospike.reproduce.targets import Target

TITLES: Mapping[str, str] = {
    "network_sparsity": "network sparsity (%)",
    "ann_accuracy": "ANN accuracy (%)",
    "mean_epoch_accuracy": "mean over the epochs (%)",
    "snn_accuracy": "SNN accuracy (%)",
    "ann_perplexity": "ANN perplexity",
    "snn_perplexity": "SNN perplexity",
    "snn_accuracy_delta": "SNN accuracy against dense (points)",
    "energy_joule": "energy per image",
    "energy_reduction_percent": "energy saved against dense (%)",
    "saturation_time": "T0",
    "gamma": "gamma",
}
METHOD_NAMES: Mapping[str, str] = {
    "depgraph": "DepGraph",
    "sparsegpt": "SparseGPT",
    "ria": "RIA",
    "ria-rec": "RIA rec",
    "wanda": "Wanda",
    "wanda-rec": "Wanda rec",
    "ri": "RI",
    "dpap": "DPAP",
    "sd-snn": "SD-SNN",
}
# Levels depend on the size of the network; these can be compared at any scale.
RELATIVE = frozenset(
    {
        "network_sparsity",
        "snn_accuracy_delta",
        "energy_reduction_percent",
        "saturation_time",
        "gamma",
    }
)
CIRCUMSTANCES = ("data", "training images", "test images", "epochs", "hardware", "seconds")
TRAILING = ("seeds", "state", *CIRCUMSTANCES)


def shown_label(label: str) -> str:
    """Return a label as the literature writes it."""
    return METHOD_NAMES.get(label, display_name(label))


def number(quantity: str, value: float | None) -> str:
    """Write one value with the digits a table shows.

    Examples
    --------
    >>> number("ann_accuracy", 94.449), number("saturation_time", 7.0), number("gamma", None)
    ('94.45', '7', '–')
    """
    if value is None:
        return NO_VALUE
    if quantity == "energy_joule":
        return energy(value)
    return f"{value:.3g}" if quantity == "saturation_time" else f"{value:.2f}"


def measured(quantity: str, cell: Cell) -> str:
    """Write a measured value, with its standard deviation over seeds."""
    text = number(quantity, cell.measured)
    return text if cell.spread is None else f"{text} ± {number(quantity, cell.spread)}"


def difference(quantity: str, cell: Cell, *, scale: str) -> str:
    """Write measured less published, with its sign; energies as a ratio.

    Below full scale only what does not depend on the size of the network is compared.
    """
    if cell.difference is None or cell.published is None or cell.measured is None:
        return NO_VALUE
    if scale != "full" and quantity not in RELATIVE:
        return NO_VALUE
    if quantity == "energy_joule":
        return f"× {cell.measured / cell.published:.3g}"  # noqa: RUF001 - a ratio
    digits = 0 if quantity == "saturation_time" else 2
    return f"{cell.difference:+.{digits}f}"


def leading(target: Target, lines: Sequence[Line]) -> list[str]:
    """Return the headings of the columns before the quantities."""
    timed = any(line.row.timesteps for line in lines)
    return [*target.table.labels, *(["t"] if timed else [])]


def columns(target: Target, lines: Sequence[Line]) -> list[str]:
    """Return the headings of the table."""
    headings = leading(target, lines)
    for quantity in target.quantities:
        headings += [f"{TITLES[quantity]}: published", "ours", "difference"]
    return [*headings, *TRAILING]


def cells(target: Target, line: Line, *, with_time: bool, scale: str) -> list[str]:
    """Return one line of the table."""
    texts = [shown_label(line.row.labels[name]) for name in target.table.labels]
    texts += [str(line.row.timesteps or NO_VALUE)] if with_time else []
    for quantity in target.quantities:
        cell = line.cells[quantity]
        texts += [
            number(quantity, cell.published),
            measured(quantity, cell),
            difference(quantity, cell, scale=scale),
        ]
    return [*texts, seeds(line), line.state, *circumstances(line)]


def seeds(line: Line) -> str:
    """List the seeds that were run."""
    return ", ".join(str(o.circumstances.get("seed")) for o in line.done) or NO_VALUE


def circumstances(line: Line) -> list[str]:
    """Return data, length and machine of a row's runs; differing ones are listed."""
    texts = []
    for name in CIRCUMSTANCES:
        found: list[Any] = [o.circumstances.get(name) for o in line.done]
        if name == "seconds":
            found = [round(sum(found))] if found else []
        texts.append(", ".join(str(value) for value in dict.fromkeys(found)) or NO_VALUE)
    return texts


def table_of(
    target: Target, lines: Sequence[Line], *, scale: str
) -> tuple[list[str], list[list[str]]]:
    """Return headings and lines as text."""
    timed = any(line.row.timesteps for line in lines)
    rows = [cells(target, line, with_time=timed, scale=scale) for line in lines]
    return columns(target, lines), rows


def introduction(target: Target, lines: Sequence[Line], *, scale: str) -> str:
    """Say what the numbers are, how many rows there are, and at which scale."""
    done = sum(bool(line.done) for line in lines)
    meaning = {
        "full": "the published setting",
        "cpu": "reduced networks and epochs, so levels differ and only what does not depend on "
        "the size of a network is compared",
        "smoke": "tiny networks on embedded data, which shows only that it runs",
    }
    return (
        f"{done} of {len(lines)} rows were run, at scale {scale}: {meaning[scale]}. Published: "
        f"{target.table.source}. Energies are per image (or context of a text) of the test split; "
        "differences are ours less published, ratios for energies."
    )


def markdown(target: Target, lines: Sequence[Line], *, scale: str) -> str:
    """Return the comparison as a Markdown table with its introduction."""
    headings, rows = table_of(target, lines, scale=scale)
    text = [
        f"# {target.name}: {target.table.title}",
        "",
        introduction(target, lines, scale=scale),
        "",
    ]
    text.append("| " + " | ".join(headings) + " |")
    text.append("|" + "---|" * len(headings))
    text += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(text) + "\n"


def comma_separated(target: Target, lines: Sequence[Line], *, scale: str) -> str:
    """Return the comparison as CSV with all digits."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = [
        f"{q} {kind}" for q in target.quantities for kind in ("published", "measured", "spread")
    ]
    head = ["row", *target.table.labels, "timesteps", *names, "scale", "seeds", "state"]
    writer.writerow([*head, *CIRCUMSTANCES])
    for line in lines:
        values: list[Any] = []
        for quantity in target.quantities:
            cell = line.cells[quantity]
            values += [cell.published, cell.measured, cell.spread]
        own = [line.row.key, *line.row.labels.values(), line.row.timesteps, *values]
        writer.writerow([*own, scale, seeds(line), line.state, *circumstances(line)])
    return stream.getvalue()


def page(target: Target, lines: Sequence[Line], *, scale: str, drawings: Sequence[Path]) -> str:
    """Return the comparison as one HTML page with its figures inside."""
    require("jinja2", purpose="the page of a comparison")
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("topospike.reproduce", package_path=""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    headings, rows = table_of(target, lines, scale=scale)
    figures = [(path.stem, Markup(svg_of(path))) for path in drawings]
    return environment.get_template("table.html.j2").render(
        name=target.name,
        title=target.table.title,
        introduction=introduction(target, lines, scale=scale),
        leading=leading(target, lines),
        groups=[TITLES[quantity] for quantity in target.quantities],
        trailing=TRAILING,
        columns=headings,
        labels=len(target.table.labels),
        rows=[
            (line.state.split(" ")[0].rstrip(":"), row)
            for line, row in zip(lines, rows, strict=True)
        ],
        figures=figures,
    )


def svg_of(path: Path) -> str:
    """Return the drawing of an SVG file without its XML header."""
    text = path.read_text()
    return text[text.index("<svg") :]


def write_comparison(
    target: Target,
    lines: Sequence[Line],
    folder: Path,
    *,
    scale: str,
    drawings: Sequence[Path] = (),
) -> list[Path]:
    """Write ``NAME.md``, ``NAME.csv`` and ``NAME.html``; return their paths."""
    contents = {
        "md": markdown(target, lines, scale=scale),
        "csv": comma_separated(target, lines, scale=scale),
        "html": page(target, lines, scale=scale, drawings=drawings),
    }
    paths = [folder / f"{target.name}.{ending}" for ending in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        write_atomically(path, content)
    return paths


def draw(target: Target, lines: Sequence[Line], folder: Path) -> list[Path]:
    """Draw what the target plots and return the files."""
    drawn: list[Path] = []
    with style():
        if target.has_curves:
            for name, group in groups(lines).items():
                path = folder / f"{target.name}-{name}.svg"
                save(draw_pareto(tuple(group)), path)
                drawn.append(path)
        if target.has_disks:
            drawn += draw_disks(target, lines, folder)
    return drawn


def groups(lines: Sequence[Line]) -> Mapping[str, list[Trajectory]]:
    """Collect the curves that belong into one figure."""
    together: dict[str, list[Trajectory]] = {}
    for line in lines:
        labels = line.row.labels
        evaluation = line.done[0].evaluation if line.done else None
        if evaluation is None:
            continue
        name = "-".join(slug(labels[part]) for part in ("dataset", "network", "conversion"))
        curve = Trajectory(
            network=shown_label(labels["method"]),
            method=labels["conversion"],
            timesteps=evaluation.timesteps,
            values=evaluation.accuracy,
            energy_joule=evaluation.energy_joule,
            ann_value=evaluation.ann_accuracy,
            ann_energy_joule=evaluation.ann_energy_joule,
            marked=line.row.timesteps or evaluation.timesteps[-1],
            saturation_time=evaluation.saturation_time,
        )
        together.setdefault(name, []).append(curve)
    return together


def draw_disks(target: Target, lines: Sequence[Line], folder: Path) -> list[Path]:
    """Draw one hyperbolic disk a topology."""
    drawn = []
    for line in lines:
        topology = line.done[0].topology if line.done else None
        if topology is None or topology.disk is None:
            continue
        path = folder / f"{target.name}-{slug(line.row.labels['method'])}.svg"
        save(draw_disk(topology.disk, names=layer_names(topology)), path)
        drawn.append(path)
    return drawn

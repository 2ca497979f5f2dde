"""Write the page: the template filled in, plotly.js inlined once, nothing fetched from anywhere."""

from __future__ import annotations

import json
import math
from importlib import resources
from pathlib import Path
from typing import Any

from topospike.contracts import write_atomically
from topospike.errors import require
from topospike.report.charts.svg import write_svg_figures
from topospike.report.folder import read_run
from topospike.report.page import Page, build_page

PACKAGE = "topospike.report"


def write_report(run_folder: str | Path) -> Path:
    """Write ``report.html`` and ``figures/*.svg`` into a run folder.

    Parameters
    ----------
    run_folder
        A folder written by ``topospike run``. Only its files are read; parts that are missing are
        left out of the page, which says so.

    Returns
    -------
    Path
        The page: one file that needs no network, for screen (light and dark), phone and print.

    Raises
    ------
    MissingDataError
        If the folder does not exist or holds nothing to report.
    CheckpointError
        If a file of the run is damaged; the message names it.

    Examples
    --------
    >>> import json, pathlib, tempfile
    >>> from topospike.report import write_report
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     record = pathlib.Path(folder) / "record.json"
    ...     _ = record.write_text(json.dumps({"recipe": {"name": "tiny"}}))
    ...     write_report(folder).name
    'report.html'
    """
    run = read_run(run_folder)
    write_svg_figures(run)
    target = run.folder / "report.html"
    write_atomically(target, render_page(build_page(run)))
    return target


def render_page(page: Page) -> str:
    """Fill the template; a page without figures carries no script library."""
    require("jinja2", "plotly", purpose="the report page")
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(PACKAGE, package_path=""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    plots = {
        panel.key: {"data": panel.traces, "layout": panel.layout}
        for figure in page.figures
        for panel in figure.panels
    }
    return environment.get_template("page.html.j2").render(
        page=page,
        style=asset("page.css"),
        collector=asset("collector.js"),
        script=asset("page.js"),
        plotly=plotly_source() if plots else "",
        plots=script_json(plots) if plots else "",
    )


def asset(name: str) -> str:
    """Return a text file of this package."""
    return resources.files(PACKAGE).joinpath(name).read_text()


def plotly_source() -> str:
    """Return plotly.js, made safe to stand inside a script element."""
    from plotly.offline import get_plotlyjs

    return get_plotlyjs().replace("</script", "<\\/script")


def script_json(content: Any) -> str:
    r"""Write JSON that can stand inside a script element: no ``<``, no NaN.

    Examples
    --------
    >>> script_json({"name": "</script>", "y": [1.0, float("nan")]})
    '{"name":"\\u003c/script>","y":[1.0,null]}'
    """
    text = json.dumps(finite(content), separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def finite(content: Any) -> Any:
    """Replace every number that JSON cannot hold by ``None``, which plotly draws as a gap."""
    if isinstance(content, dict):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content

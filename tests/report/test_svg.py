"""The SVG figures: which are written, that they are drawings, and that they repeat exactly."""

import json
import xml.etree.ElementTree as ET

import pytest

from topospike.report.charts.svg import write_svg_figures
from topospike.report.folder import read_run

NAMES = {"pareto", "accuracy", "sops", "degrees", "disk", "evolution"}


def drawn_elements(path):
    """Count the drawing elements of an SVG file."""
    tags = [element.tag.split("}")[1] for element in ET.parse(path).getroot().iter()]
    return sum(tag in ("path", "use") for tag in tags)


def test_a_complete_run_gives_all_figures(complete_page):
    folder = complete_page.parent / "figures"
    assert {path.stem for path in folder.iterdir()} == NAMES
    assert all(drawn_elements(path) > 20 for path in folder.iterdir())


def test_the_same_run_gives_the_same_files(complete_page):
    folder = complete_page.parent
    first = {path.name: path.read_bytes() for path in (folder / "figures").iterdir()}
    second = {path.name: path.read_bytes() for path in write_svg_figures(read_run(folder))}
    assert first == second


@pytest.mark.parametrize(
    ("parts", "names"),
    [
        ({"topology": False}, {"pareto", "accuracy", "sops"}),
        ({"methods": ()}, {"degrees", "disk", "evolution"}),
        ({"methods": ("qcfs",), "dense": False}, NAMES),
    ],
)
def test_only_what_there_is_gets_drawn(run_writer, parts, names):
    written = write_svg_figures(read_run(run_writer(**parts)))
    assert {path.stem for path in written} == names


def test_one_layer_with_a_very_long_name_can_be_drawn(run_writer):
    folder = run_writer(methods=("dcgs",), dense=False, topology=False)
    path = folder / "conversions" / "dcgs" / "evaluation.json"
    content = json.loads(path.read_text())
    content["layers"] = [{**content["layers"][1], "name": "_encoder$" * 30}]
    path.write_text(json.dumps(content))
    assert len(write_svg_figures(read_run(folder))) == 3

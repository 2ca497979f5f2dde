"""The page as HTML: what it says, what it leaves out, and that it fetches nothing."""

import json
import re
import shutil
from html.parser import HTMLParser
from importlib import resources
from itertools import pairwise

import pytest

from topospike.report import write_report
from topospike.report.folder import read_run
from topospike.report.page import build_page
from topospike.report.units import energy, percent, plain
from topospike.report.words import headline

CHAPTERS = [
    "result",
    "energy",
    "activity",
    "training",
    "topology",
    "conversion",
    "conventions",
    "record",
]
TOPOLOGY = ["degrees", "disk", "evolution"]
FIGURES = ["pareto", "accuracy", "sops", "rates", "learning", "updates", *TOPOLOGY]
VOID = {"meta", "link", "br", "img", "input", "hr", "path", "rect", "line", "circle"}
SILENT = {"script", "style"}
EVIL = "<img src=x onerror=alert(1)> $a_b$ & 'quoted' %{x} </script>"


class Document(HTMLParser):
    """Elements with their attributes, and the visible text with where it stands."""

    def __init__(self, html):
        super().__init__()
        self.elements = []
        self.text = []
        self.cells = []
        self.headings = []
        self.open = []
        self.data = {}
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append((tag, dict(attributes)))
        if tag in ("td", "th"):
            self.cells.append("")
        if re.fullmatch("h[1-6]", tag):
            self.headings.append((int(tag[1]), ""))

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        while self.open and self.open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        tags = [tag for tag, _ in self.open]
        if "script" in tags:
            kind = self.open[-1][1].get("type")
            if kind == "application/json":
                self.data = json.loads(data)
        elif not SILENT & set(tags):
            self.text.append(data)
            if {"td", "th"} & set(tags):
                self.cells[-1] += data
            if self.headings and re.fullmatch("h[1-6]", tags[-1] if tags else ""):
                level, said = self.headings[-1]
                self.headings[-1] = (level, said + data)

    @property
    def said(self):
        return " ".join("".join(self.text).split())

    def ids(self):
        return [attributes["id"] for _, attributes in self.elements if attributes.get("id")]


@pytest.fixture(scope="module")
def document(complete_page):
    return Document(complete_page.read_text())


def spaced(text):
    return " ".join(text.split())


def test_chapters_and_figures_stand_in_reading_order(document):
    order = [key for key in document.ids() if key in CHAPTERS + FIGURES]
    assert order == [
        "result", "energy", "pareto", "accuracy", "activity", "sops", "rates", "training",
        "learning", "updates", "topology", *TOPOLOGY, "conversion", "conventions", "record",
    ]  # fmt: skip


def test_ids_are_unique_and_every_link_arrives(document):
    ids = document.ids()
    assert len(ids) == len(set(ids))
    links = [a["href"] for tag, a in document.elements if tag == "a"]
    assert len(links) == len(CHAPTERS) + 1
    assert all(link[1:] in ids for link in links)


def test_headings_never_skip_a_level(document):
    levels = [level for level, _ in document.headings]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_the_result_is_said_in_one_sentence(document):
    assert spaced(
        "At time step 8 the CHTs network, 99.0 % sparse and converted by DCGS, classifies "
        "97.22 % of the test images correctly, 0.28 points below its ANN, for 558 nJ per image: "
        "50.7 % of the energy of its dense twin."
    ) in document.said.replace("\u202f", " ")


def test_the_summary_table_equals_the_file(document, complete_page):
    rows = json.loads((complete_page.parent / "summary.json").read_text())["rows"]
    start = document.cells.index("sparsity") + 1
    for place, row in enumerate(rows):
        assert document.cells[start + 7 * place + 1 : start + 7 * place + 7] == [
            percent(row["ann_accuracy"]),
            percent(row["snn_accuracy"]),
            energy(row["energy_joule"]),
            plain(row["energy_ratio"]),
            str(row["saturation_time"]),
            percent(row["sparsity"]),
        ]


def test_every_accuracy_and_energy_of_every_step_is_in_a_table(document, evaluation_of):
    for network in (False, True):
        for method in ("dcgs", "qcfs"):
            result = evaluation_of(sparse=network, method=method)
            for accuracy, joules in zip(result.accuracy, result.energy_joule, strict=True):
                place = document.cells.index(energy(joules))
                assert place > 0
                assert percent(accuracy) in document.cells


def test_the_numbers_behind_the_plots_are_in_the_page_unrounded(document, evaluation_of):
    result = evaluation_of(sparse=True, method="dcgs")
    pareto = document.data["pareto"]["data"]
    assert any(trace["x"] == list(result.energy_joule) for trace in pareto)


def test_every_plot_has_a_place_and_a_description(document):
    plots = {
        attributes["id"]: attributes
        for _, attributes in document.elements
        if attributes.get("class") == "plot"
    }
    assert set(plots) == {f"plot-{key}" for key in document.data}
    assert all(a["role"] == "img" and a["aria-label"] for a in plots.values())


def test_table_headings_have_a_scope_and_regions_a_name(document):
    headings = [attributes for tag, attributes in document.elements if tag == "th"]
    assert headings
    assert {attributes.get("scope") for attributes in headings} == {"row", "col"}
    for _, attributes in document.elements:
        if attributes.get("role") == "region":
            assert attributes["aria-label"]
            assert attributes["tabindex"] == "0"


def test_conversion_health_names_sites_sources_and_macs(document):
    said = document.said.replace("\u202f", " ")
    assert "features.0 stays MAC (depends on the image alone)." in said
    assert "Advice: Site classifier.1: 61 % of the channels never fired" in said
    assert "▲\xa061.0\u202f%" in document.cells
    for cell in ("features.4", "1.21", "2.73", "5.02"):
        assert cell in document.cells


def test_conversion_health_shows_where_the_error_jumps(document):
    said = document.said.replace("\u202f", " ")
    assert "Advice: classifier.1: the relative error jumps from 0.5% to 41.2% at t = 8" in said
    assert "▲\xa0classifier.1" in document.cells
    for cell in ("41.2\u202f%", "▇▂", "█▇"):
        assert cell in document.cells


def test_conventions_are_said_in_words_and_as_a_formula(document):
    said = document.said
    assert "E(t)=NMAC(t)·4.6pJ+NSOP(t)·0.9pJ" in said.replace(" ", "")
    assert "once an image" in said
    assert "Horowitz" in said


def test_the_record_is_complete(document):
    record = ("small_cnn", "0a1b2c3", "2.13.0", "2 cores", "16, 32, 32", "sparsity.rule")
    assert all(entry in document.cells for entry in record)


def test_the_page_fetches_nothing(complete_page, document):
    for tag, attributes in document.elements:
        for name in ("src", "href", "srcset", "poster", "data", "action", "xlink:href"):
            address = attributes.get(name) or ""
            assert not re.match(r"\s*(https?:)?//", address), (tag, name, address)
        assert tag not in ("iframe", "object", "embed", "base")
        assert tag != "link"
    own_styles = re.findall(r"<style>(.*?)</style>", complete_page.read_text(), re.S)
    assert len(own_styles) == 1
    assert not re.search(r"@import|url\(", own_styles[0])
    policy = [a["content"] for _, a in document.elements if a.get("http-equiv")]
    assert policy[0].startswith("default-src 'none';")


def test_plotly_is_inlined_once_and_the_page_stays_small(complete_page):
    html = complete_page.read_text()
    assert len(re.findall(r"plotly\.js v\d", html)) == 1
    assert complete_page.stat().st_size < 6e6


def test_strings_of_the_run_are_escaped(run_writer):
    folder = run_writer(methods=("dcgs",))
    record = json.loads((folder / "record.json").read_text())
    record["recipe"]["model"]["name"] = record["recipe"]["name"] = EVIL
    record["recipe"]["sparsity"]["rule"] = EVIL
    record["data"]["name"] = EVIL
    record["warnings"] = [EVIL]
    (folder / "record.json").write_text(json.dumps(record))
    for name in (
        "summary.json",
        "conversions/dcgs/evaluation.json",
        "conversions/dcgs/conversion.json",
    ):
        content = json.loads((folder / name).read_text())
        for site in content.get("sites", []):
            site["name"] = EVIL
        for layer in content.get("layers", []):
            layer["name"] = EVIL
        for row in content.get("rows", []):
            row["network"] = EVIL if row["network"] == "chts" else row["network"]
        if "advice" in content:
            content["advice"] = [EVIL]
        (folder / name).write_text(json.dumps(content))
    html = write_report(folder).read_text()
    document = Document(html)
    assert not [tag for tag, _ in document.elements if tag == "img"]
    assert "<img src=x" not in html
    assert spaced(EVIL) in document.said
    plot = document.data["sops-0"]
    shown = [trace[name] for trace in plot["data"] for name in ("text", "y")]
    shown = json.dumps([shown, plot["layout"]["yaxis"]])
    assert "&lt;img src=x" in shown
    assert "<img" not in shown


@pytest.mark.parametrize(
    ("parts", "sentence", "missing"),
    [
        ({"dense": False}, "no dense twin", []),
        ({"topology": False}, "topology of this run was not analysed", TOPOLOGY),
        ({"methods": ("qcfs",)}, "One conversion method was run: QCFS.", []),
        (
            {"methods": ()},
            "No spiking network was evaluated",
            ["pareto", "accuracy", "sops", "rates"],
        ),
    ],
)
def test_what_a_run_lacks_is_said_and_left_out(run_writer, parts, sentence, missing):
    page = build_page(read_run(run_writer(**parts)))
    said = " ".join(text for group in page.groups for text in group.absent)
    assert sentence in said
    assert {figure.key for figure in page.figures} == set(FIGURES) - set(missing)
    assert all(panel.traces for figure in page.figures for panel in figure.panels)


def test_without_a_twin_no_ratio_is_claimed(run_writer):
    run = read_run(run_writer(dense=False))
    assert "dense twin" not in headline(run)
    assert headline(run).endswith("per image.")


@pytest.mark.parametrize(
    "name", ["record.json", "summary.json", "metrics.jsonl", "conversions", "topology_report.json"]
)
def test_any_one_part_may_be_missing(run_writer, name):
    folder = run_writer(methods=("dcgs",), dense=False)
    target = folder / name
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    (folder / "evaluation.json").unlink()
    (folder / "conversion.json").unlink()
    page = build_page(read_run(folder))
    assert [group.key for group in page.groups] == CHAPTERS
    assert page.headline.endswith(".")


def test_a_run_in_its_first_stage_gives_a_page_without_script(tmp_path):
    (tmp_path / "record.json").write_text(json.dumps({"recipe": {"name": "early"}, "data": None}))
    html = write_report(tmp_path).read_text()
    assert "This run holds no trained network yet." in html
    assert len(html) < 40_000
    assert not (tmp_path / "figures").exists()


def test_a_run_of_the_dense_twin_alone_speaks_of_it(run_writer):
    folder = run_writer(methods=("qcfs",))
    page = build_page(
        read_run(shutil.copytree(folder / "dense", folder / "alone" / "dense").parent)
    )
    assert "The run has no sparse network." in page.groups[0].absent
    summary = json.loads((folder / "summary.json").read_text())
    summary["rows"] = [row for row in summary["rows"] if row["network"] == "dense"]
    (folder / "alone" / "summary.json").write_text(json.dumps(summary))
    said = headline(read_run(folder / "alone"))
    assert said.startswith("At time step 8 the dense network, converted by QCFS, classifies 74.72")
    assert "twin" not in said


def test_steps_that_differ_between_methods_are_named_in_the_rows(run_writer):
    folder = run_writer()
    summary = json.loads((folder / "summary.json").read_text())
    for row in summary["rows"]:
        row["timesteps"] = 16 if row["method"] == "qcfs" else 8
    (folder / "summary.json").write_text(json.dumps(summary))
    table = build_page(read_run(folder)).groups[0].tables[0]
    assert [row[0] for row in table.rows] == [
        "dense · DCGS, t = 8",
        "CHTs · DCGS, t = 8",
        "dense · QCFS, t = 16",
        "CHTs · QCFS, t = 16",
    ]


def test_an_unknown_saturation_time_is_a_dash(run_writer):
    folder = run_writer(methods=("dcgs",))
    for path in (folder / "summary.json", folder / "conversions/dcgs/evaluation.json"):
        path.write_text(
            re.sub(r'"saturation_time": \d+', '"saturation_time": null', path.read_text())
        )
    page = build_page(read_run(folder))
    assert [row[5] for row in page.groups[0].tables[0].rows] == ["–", "–"]  # noqa: RUF001


def luminance(colour):
    channels = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    bright, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_has_contrast_in_both_schemes(scheme):
    style = resources.files("topospike.report").joinpath("page.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", style, re.S)[:2]
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", blocks[scheme]))
    for text in ("ink", "muted", "link", "accent"):
        for ground in ("paper", "note"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for series in ("#5f7d9c", "#d1432f", "#80858c"):
        assert contrast(series, colours["paper"]) >= 3

"""The page in a real browser: no error, every figure drawn, nothing fetched."""

import json
import re
import shutil
import subprocess

import pytest

CHROMIUM = next(
    (
        path
        for name in ("chromium", "chromium-browser", "google-chrome", "chrome")
        if (path := shutil.which(name))
    ),
    None,
)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--enable-logging=stderr",
    "--v=0",
    "--virtual-time-budget=20000",
)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium on PATH: `apt-get install chromium` runs this test"
    ),
]


def open_page(page, folder, *more):
    """Open a page headless; return the document after its scripts ran, and the browser's log."""
    done = subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={folder}", *more, "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, console


@pytest.fixture(scope="module")
def opened(complete_page, tmp_path_factory):
    return open_page(complete_page, tmp_path_factory.mktemp("browser"))


def root_of(document):
    return re.search(r"<html[^>]*>", document)[0]


def test_there_is_no_error(opened):
    document, console = opened
    assert "data-errors" not in root_of(document)
    assert console == []


def test_every_figure_is_drawn(opened):
    document, _ = opened
    block = re.search(r'<script type="application/json" id="plots">(.*?)</script>', document, re.S)
    plots = json.loads(block[1])
    assert f'data-drawn="{len(plots)}"' in root_of(document)
    for key, plot in plots.items():
        start = document.index(f'id="plot-{key}"')
        end = document.find('<figure class="panel"', start)
        drawing = document[start : end if end > 0 else block.start()]
        assert drawing.count("main-svg") >= 1
        traces = len(re.findall(r'<g class="trace[ "]', drawing))
        assert traces == len(plot["data"]), key
        assert len(re.findall(r"<path|<text", drawing)) > 5


def test_drawings_can_shrink_to_paper(opened):
    document, _ = opened
    drawings = re.findall(r'<svg class="main-svg"[^>]*>', document)
    assert drawings
    assert all("viewBox" in drawing for drawing in drawings)


@pytest.mark.slow
def test_nothing_is_wider_than_a_phone(complete_page, tmp_path):
    frame = tmp_path / "phone.html"
    probe = """
    frame.onload = () => setTimeout(() => {
      const page = frame.contentDocument.documentElement;
      document.body.dataset.widths = page.scrollWidth + " " + page.clientWidth;
    }, 4000);
    """
    shutil.copy(complete_page, tmp_path / "report.html")
    frame.write_text(
        '<body><iframe id="frame" src="report.html" style="width:360px;height:800px;border:0">'
        f"</iframe><script>const frame = document.getElementById('frame');{probe}</script>"
    )
    document, _ = open_page(frame, tmp_path / "browser", "--allow-file-access-from-files")
    scroll, client = re.search(r'data-widths="(\d+) (\d+)"', document).groups()
    assert int(scroll) <= int(client) <= 360


@pytest.mark.slow
def test_the_error_collector_notices_errors(complete_page, tmp_path):
    broken = tmp_path / "broken.html"
    html = complete_page.read_text()
    broken.write_text(html.replace("</main>", '<img src="https://example.invalid/a.png"></main>'))
    document, _ = open_page(broken, tmp_path / "browser")
    assert "blocked img-src" in root_of(document)

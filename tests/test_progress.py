import io
import sys

from topospike.progress import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def terminal(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    return stream


def test_silent_off_a_terminal(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress("sparse", total=4) as advance:
        advance()
    assert stream.getvalue() == ""


def test_counts_steps_on_a_terminal(monkeypatch):
    stream = terminal(monkeypatch)
    with progress("sparse", total=4, done=1, unit="steps") as advance:
        advance()
    assert "sparse" in stream.getvalue()
    assert "2/4 steps" in stream.getvalue()


def test_counts_without_a_known_end(monkeypatch):
    stream = terminal(monkeypatch)
    with progress("calibration", unit="images") as advance:
        advance(32)
    assert "32 images" in stream.getvalue()


def test_silent_unless_shown_and_without_rich(monkeypatch):
    stream = terminal(monkeypatch)
    with progress("sparse", total=4, shown=False) as advance:
        advance()
    monkeypatch.setitem(sys.modules, "rich", None)
    with progress("sparse", total=4) as advance:
        advance()
    assert stream.getvalue() == ""

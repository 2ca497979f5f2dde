import io
import sys

from topospike.train.display import progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_silent_off_a_terminal(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar("sparse", total_steps=4, done_steps=0) as advance:
        advance()
    assert stream.getvalue() == ""


def test_counts_steps_on_a_terminal(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar("sparse", total_steps=4, done_steps=1) as advance:
        advance()
    assert "sparse" in stream.getvalue()
    assert "2/4" in stream.getvalue()

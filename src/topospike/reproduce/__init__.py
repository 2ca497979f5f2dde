"""Reproduce: the published numbers, a recipe for each row, and ours beside them.

This stage knows what is to be run and reads what was; the command ``topospike reproduce`` runs it.
"""

from topospike.reproduce.comparison import Cell as Cell
from topospike.reproduce.comparison import Line as Line
from topospike.reproduce.comparison import compare as compare
from topospike.reproduce.controls import controls as controls
from topospike.reproduce.controls_text import control_lines as control_lines
from topospike.reproduce.controls_text import write_controls as write_controls
from topospike.reproduce.experiments import Experiment as Experiment
from topospike.reproduce.experiments import experiment as experiment
from topospike.reproduce.methods import COMPARED as COMPARED
from topospike.reproduce.methods import MethodRow as MethodRow
from topospike.reproduce.methods import compare_methods as compare_methods
from topospike.reproduce.methods import example_run as example_run
from topospike.reproduce.methods import methods_text as methods_text
from topospike.reproduce.methods import write_methods as write_methods
from topospike.reproduce.outcomes import Outcome as Outcome
from topospike.reproduce.outcomes import read_outcome as read_outcome
from topospike.reproduce.published import PublishedRow as PublishedRow
from topospike.reproduce.published import PublishedTable as PublishedTable
from topospike.reproduce.published import published as published
from topospike.reproduce.render import draw as draw
from topospike.reproduce.render import write_comparison as write_comparison
from topospike.reproduce.scales import SCALES as SCALES
from topospike.reproduce.targets import TARGETS as TARGETS
from topospike.reproduce.targets import Target as Target
from topospike.reproduce.targets import chosen_rows as chosen_rows

__all__ = [
    "COMPARED",
    "SCALES",
    "TARGETS",
    "Cell",
    "Experiment",
    "Line",
    "MethodRow",
    "Outcome",
    "PublishedRow",
    "PublishedTable",
    "Target",
    "chosen_rows",
    "compare",
    "compare_methods",
    "control_lines",
    "controls",
    "draw",
    "example_run",
    "experiment",
    "methods_text",
    "published",
    "read_outcome",
    "write_comparison",
    "write_controls",
    "write_methods",
]

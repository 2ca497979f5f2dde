"""Grow sparse, brain-like networks, turn them into spiking networks, and say what they cost.

The public names are loaded when they are first used, so that ``import topospike`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import Any

__version__ = version("topospike")

"""Simulate: executors, which evaluate a spiking network step by step in forms that cost less."""

from topospike.snn.executors.program import EXECUTORS as EXECUTORS
from topospike.snn.executors.program import Executor as Executor
from topospike.snn.executors.program import Program as Program
from topospike.snn.executors.program import State as State

__all__ = ["EXECUTORS", "Executor", "Program", "State"]

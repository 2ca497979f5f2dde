"""A recipe at work: every stage in its order, in a folder that can be continued."""

from topospike.pipeline.api import RunResult as RunResult
from topospike.pipeline.api import run_recipe as run_recipe

__all__ = ["RunResult", "run_recipe"]

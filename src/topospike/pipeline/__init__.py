"""A recipe at work: every stage in its order, in a folder that can be continued."""

from topospike.pipeline.api import RunResult as RunResult
from topospike.pipeline.api import run_recipe as run_recipe
from topospike.pipeline.folder.verify import Verification as Verification
from topospike.pipeline.folder.verify import verify_run as verify_run

__all__ = ["RunResult", "Verification", "run_recipe", "verify_run"]

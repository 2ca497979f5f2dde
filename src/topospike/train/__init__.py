"""Stage train: one readable loop, and checkpoints that resume it bit for bit."""

from topospike.train.checkpoint import CheckpointWarning as CheckpointWarning
from topospike.train.checkpoint import list_checkpoints as list_checkpoints
from topospike.train.checkpoint import load_checkpoint as load_checkpoint
from topospike.train.checkpoint import load_latest as load_latest
from topospike.train.checkpoint import save_checkpoint as save_checkpoint
from topospike.train.compact import CompactLayers as CompactLayers
from topospike.train.compact import on_links as on_links
from topospike.train.distributed import LostProcessError as LostProcessError
from topospike.train.distributed import Processes as Processes
from topospike.train.distributed import connect as connect
from topospike.train.distributed import current_processes as current_processes
from topospike.train.distributed import process_group as process_group
from topospike.train.distributed import wrap as wrap
from topospike.train.epoch import evaluate_accuracy as evaluate_accuracy
from topospike.train.finite import check_weights as check_weights
from topospike.train.loop import fit as fit
from topospike.train.optim import CLASSIFICATION as CLASSIFICATION
from topospike.train.optim import NEXT_TOKEN as NEXT_TOKEN
from topospike.train.optim import TrainingMethod as TrainingMethod
from topospike.train.optim import build_optimizer as build_optimizer
from topospike.train.optim import learning_rate_at as learning_rate_at
from topospike.train.optim import optimizer_steps as optimizer_steps
from topospike.train.protocols import ImageBatches as ImageBatches
from topospike.train.protocols import SharedController as SharedController
from topospike.train.protocols import TopologyController as TopologyController
from topospike.train.protocols import TrainingData as TrainingData
from topospike.train.resume import FitResult as FitResult
from topospike.train.resume import MetricsLog as MetricsLog

__all__ = [
    "CLASSIFICATION",
    "NEXT_TOKEN",
    "CheckpointWarning",
    "CompactLayers",
    "FitResult",
    "ImageBatches",
    "LostProcessError",
    "MetricsLog",
    "Processes",
    "SharedController",
    "TopologyController",
    "TrainingData",
    "TrainingMethod",
    "build_optimizer",
    "check_weights",
    "connect",
    "current_processes",
    "evaluate_accuracy",
    "fit",
    "learning_rate_at",
    "list_checkpoints",
    "load_checkpoint",
    "load_latest",
    "on_links",
    "optimizer_steps",
    "process_group",
    "save_checkpoint",
    "wrap",
]

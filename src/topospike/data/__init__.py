"""Stage 0: where images, events and text come from; `load_data` turns settings into batches."""

from topospike.data.augment import AUGMENTATIONS as AUGMENTATIONS
from topospike.data.augment import Augmenter as Augmenter
from topospike.data.bundle import DataBundle as DataBundle
from topospike.data.digits import digits as digits
from topospike.data.events.recordings import Recordings as Recordings
from topospike.data.hub import find_source as find_source
from topospike.data.load import load_data as load_data
from topospike.data.loader import Batches as Batches
from topospike.data.loader import SplitBatches as SplitBatches
from topospike.data.normalisation import Normalisation as Normalisation
from topospike.data.normalisation import known_normalisation as known_normalisation
from topospike.data.normalisation import measure_normalisation as measure_normalisation
from topospike.data.ondemand import TensorImages as TensorImages
from topospike.data.splits import stratified_choice as stratified_choice
from topospike.data.splits import train_validation_rows as train_validation_rows
from topospike.data.text import ContextBatches as ContextBatches
from topospike.data.text import Contexts as Contexts

__all__ = [
    "AUGMENTATIONS",
    "Augmenter",
    "Batches",
    "ContextBatches",
    "Contexts",
    "DataBundle",
    "Normalisation",
    "Recordings",
    "SplitBatches",
    "TensorImages",
    "digits",
    "find_source",
    "known_normalisation",
    "load_data",
    "measure_normalisation",
    "stratified_choice",
    "train_validation_rows",
]

"""Reproduce: the three sizes an experiment can be run at, as changes to its recipe.

``full`` is the paper's setting and changes nothing. ``cpu`` keeps the form of every network and
cuts its width and the epochs, to about a quarter of an hour a row on one core; ViT is trained on
CIFAR-10 there, since ImageNet in any useful number of epochs is out of a processor's reach.
``smoke`` runs everything on embedded data with tiny networks in seconds: it shows that every row
can be run, and its numbers mean nothing. Every table says which scale its rows come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from topospike.registry import Registry

Changes = Mapping[str, Any]
# Methods whose spiking networks are trained as such, not converted.
THROUGH_TIME = ("dpap", "sd-snn")

CPU_DATA: Changes = {"batch_size": 128, "limit_test": 2000}
# bf16 in channels-last order trains convolutions two to three times faster on current processors.
FAST: Changes = {"bf16": True, "channels_last": True}
CPU: dict[str, Changes] = {
    "VGG-16": {
        "data": CPU_DATA,
        "model": {"widths": [32, 64, 128, 256, 512], "blocks": [1, 1, 1, 1, 2]},
        "train": {"epochs": 10, "learning_rate": 0.05, "warmup_epochs": 1, **FAST},
    },
    "ResNet-18": {
        "data": CPU_DATA,
        "model": {"widths": [16, 32, 64], "blocks": [3, 3, 3]},
        "train": {"epochs": 12, "learning_rate": 0.1, "milestones": [4, 7, 10], **FAST},
    },
    "6Conv2FC": {
        "data": CPU_DATA,
        "model": {"widths": [32, 32, 64, 64, 128, 128], "hidden": [128]},
        "train": {"epochs": 4, "learning_rate": 0.05, "warmup_epochs": 1, **FAST},
    },
    "ViT-B": {
        "data": {
            "source": "uoft-cs/cifar10",
            "test_split": "test",
            "image_size": None,
            "channels": None,
            "augment": ["crop", "flip"],
            "mix": [],
            "batch_size": 128,
            "validation_fraction": 0.1,
            "limit_test": 1000,
            "workers": 0,
        },
        "model": {"widths": [64], "blocks": [4], "hidden": [256], "heads": 4, "patch": 4},
        "train": {"epochs": 10, "learning_rate": 1e-3, "warmup_epochs": 1, "bf16": False},
        "sparsity": {"update_interval": 1, "start_fraction": 0.05},
    },
}

SMOKE_DATA: Changes = {
    "source": "digits",
    "label_column": None,
    "augment": [],
    "batch_size": 64,
    "limit_train": 160,
    "limit_test": 48,
    "validation_fraction": 0.1,
}
SMOKE: dict[str, Changes] = {
    "VGG-16": {
        "data": SMOKE_DATA,
        "model": {"widths": [8, 16], "blocks": [1, 1], "hidden": [64, 64]},
        "train": {"epochs": 3, "learning_rate": 0.05, "warmup_epochs": 0.5},
        "sparsity": {"linear": 0.9},
    },
    "ResNet-18": {
        "data": SMOKE_DATA,
        "model": {"widths": [8, 16], "blocks": [1, 1]},
        "train": {
            "epochs": 3,
            "learning_rate": 0.05,
            "schedule": "cosine",
            "milestones": [],
        },
    },
    "6Conv2FC": {
        "data": SMOKE_DATA,
        "model": {"widths": [8, 8, 8, 8, 16, 16], "hidden": [32]},
        "train": {"epochs": 3, "learning_rate": 0.05, "warmup_epochs": 0.5},
    },
    "ViT-B": {
        "data": {
            **SMOKE_DATA,
            "test_split": "test",
            "image_size": None,
            "channels": None,
            "workers": 0,
        },
        "model": {"widths": [16], "blocks": [1], "hidden": [32], "heads": 2, "patch": 4},
        "train": {"epochs": 3, "learning_rate": 1e-3, "warmup_epochs": 0.5, "bf16": False},
        "sparsity": {"update_interval": 1, "start_fraction": 0.0},
    },
}
TOPICS: Changes = {
    "source": "pydoc-topics",
    "text": {"context": 128, "tokenizer": None, "test_fraction": 0.1},
    "validation_fraction": 0.1,
    "limit_train": None,
    "limit_test": None,
    "augment": ["shift"],
    "batch_size": 32,
    "eval_batch_size": 64,
}
BY_EPOCH: Changes = {"update_unit": "epoch", "update_interval": 1}
CPU["LLaMA-60M"] = {
    "data": TOPICS,
    "model": {"widths": [128], "blocks": [5], "hidden": [344], "heads": 4},
    "train": {
        "epochs": 10,
        "learning_rate": 2e-3,
        "weight_decay": 0.1,
        "warmup_epochs": 1,
        "restart_every_epochs": 0.0,
        "restart_warmup_epochs": 0.0,
        "gradient_clip": 1.0,
        "bf16": False,
    },
    "sparsity": BY_EPOCH,
    "measure": {"images": 128},
}
SMOKE["LLaMA-60M"] = {
    "data": {
        **TOPICS,
        "text": {**TOPICS["text"], "context": 16},
        "limit_train": 64,
        "limit_test": 16,
    },
    "model": {"widths": [16], "blocks": [1], "hidden": [24], "heads": 2},
    "train": {
        "epochs": 3,
        "learning_rate": 1e-3,
        "warmup_epochs": 0.5,
        "restart_every_epochs": 0.0,
        "restart_warmup_epochs": 0.0,
        "bf16": False,
    },
    "sparsity": BY_EPOCH,
}
# Trained through time: eight steps forward and back cost about ten times what an ANN does.
DIRECT: Mapping[str, Changes] = {
    "cpu": {
        "data": {"limit_train": 10_000, "limit_test": 1000},
        "model": CPU["6Conv2FC"]["model"],
        "train": {"epochs": 5},
        "direct": {"scale_epochs": True},
    },
    "smoke": {
        "data": SMOKE_DATA,
        "model": SMOKE["6Conv2FC"]["model"],
        "train": {"epochs": 2},
        "direct": {"scale_epochs": True},
        "threads": 1,
    },
}
# How far whole channels may leave a sparsity; narrow networks have few to choose from.
TOLERANCES: Mapping[str, float] = {"cpu": 0.03, "smoke": 0.1}
SMOKE_RUN: Changes = {
    "threads": 1,
    "measure": {"timesteps": 16},
}
# The length of a run in epochs is the experiment's at full scale and the scale's below it.
SCALES: Registry[Mapping[str, Changes]] = Registry(
    "scale", {"full": {}, "cpu": CPU, "smoke": SMOKE}
)


# Epochs of the two stages in which CS-QCFS trains its thresholds. From the published start of 8,
# far above what most sites see, four levels take hundreds of epochs: in three, VGG fell from 77.6
# to 48.5 %. So short trainings start at a quantile, with a smaller step.
QUANTISED: Mapping[str, Changes] = {
    "cpu": {"epochs": 3, "channel_epochs": 1, "percentile": 0.999, "learning_rate": 0.01},
    "smoke": {"epochs": 1, "channel_epochs": 1, "levels": 4},
}


def changes_of(scale: str, network: str, *, method: str) -> Changes:
    """Return what a scale changes in the recipe of one network trained by one method.

    Examples
    --------
    >>> changes_of("full", "VGG-16", method="cht")
    {}
    >>> changes_of("cpu", "VGG-16", method="cht")["train"]["epochs"]
    10
    """
    own = SCALES[scale]
    if method in THROUGH_TIME:
        return DIRECT.get(scale, {})
    changes = dict(own.get(network, {}))
    if scale in QUANTISED and network not in ("ViT-B", "LLaMA-60M"):
        changes["quantise"] = QUANTISED[scale]
    if scale in TOLERANCES and method == "depgraph":
        changes["prune"] = {"tolerance": TOLERANCES[scale]}
    return {**changes, **SMOKE_RUN} if scale == "smoke" else changes

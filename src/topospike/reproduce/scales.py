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
        "train": {"epochs": 10, "learning_rate": 0.1, "milestones": [3, 6, 8], **FAST},
    },
    "6Conv2FC": {
        "data": CPU_DATA,
        "model": {"widths": [32, 32, 64, 64, 128, 128], "hidden": [128]},
        "train": {"epochs": 10, "learning_rate": 0.05, "warmup_epochs": 1, **FAST},
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
    "limit_train": 256,
    "limit_test": 64,
    "validation_fraction": 0.1,
}
SMOKE: dict[str, Changes] = {
    "VGG-16": {
        "data": SMOKE_DATA,
        "model": {"widths": [8, 16], "blocks": [1, 1], "hidden": [64, 64]},
        "train": {"epochs": 4, "learning_rate": 0.05, "warmup_epochs": 0.5},
        "sparsity": {"linear": 0.9},
    },
    "ResNet-18": {
        "data": SMOKE_DATA,
        "model": {"widths": [8, 16], "blocks": [1, 1]},
        "train": {"epochs": 4, "learning_rate": 0.05, "milestones": [2, 3]},
    },
    "6Conv2FC": {
        "data": SMOKE_DATA,
        "model": {"widths": [8, 8, 8, 8, 16, 16], "hidden": [32]},
        "train": {"epochs": 4, "learning_rate": 0.05, "warmup_epochs": 0.5},
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
        "train": {"epochs": 4, "learning_rate": 1e-3, "warmup_epochs": 0.5, "bf16": False},
        "sparsity": {"update_interval": 1, "start_fraction": 0.0},
    },
}
SMOKE_RUN: Changes = {
    "threads": 1,
    "measure": {"timesteps": 16},
}
# The length of a run in epochs is the experiment's at full scale and the scale's below it.
SCALES: Registry[Mapping[str, Changes]] = Registry(
    "scale", {"full": {}, "cpu": CPU, "smoke": SMOKE}
)


# Epochs of the two stages in which CS-QCFS trains its thresholds.
QUANTISED: Mapping[str, Changes] = {
    "cpu": {"epochs": 3, "channel_epochs": 1},
    "smoke": {"epochs": 1, "channel_epochs": 1},
}


def changes_of(scale: str, network: str) -> Changes:
    """Return what a scale changes in the recipe of one network.

    Examples
    --------
    >>> changes_of("full", "VGG-16"), changes_of("cpu", "VGG-16")["train"]["epochs"]
    ({}, 10)
    """
    changes = dict(SCALES[scale].get(network, {}))
    if scale in QUANTISED and network != "ViT-B":
        changes["quantise"] = QUANTISED[scale]
    return {**changes, **SMOKE_RUN} if scale == "smoke" else changes

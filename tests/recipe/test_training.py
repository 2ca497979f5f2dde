"""Ranges of data and training settings, checked when they are made."""

import math

import pytest

from topospike.errors import ConfigError
from topospike.recipe import DataSettings, TrainSettings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, r"data\.batch_size is 0; 1 or more is required"),
        ({"eval_batch_size": -1}, r"data\.eval_batch_size is -1"),
        ({"workers": -1}, r"data\.workers is -1; 0 or more"),
        ({"memory_gib": math.nan}, r"data\.memory_gib is nan"),
        ({"validation_fraction": 1.0}, r"data\.validation_fraction is 1\.0; at least 0 and below"),
        ({"validation_fraction": math.nan}, r"data\.validation_fraction is nan"),
        ({"limit_train": 0}, r"data\.limit_train is 0; 1 or more, or null"),
        ({"limit_test": 0}, r"data\.limit_test is 0"),
        ({"channels": 2}, r"data\.channels is 2; 1, 3 or null"),
        ({"image_size": (0, 8)}, r"data\.image_size is \(0, 8\)"),
        ({"std": (0.5, 0.0)}, r"data\.std is \(0\.5, 0\.0\); above 0 everywhere"),
        ({"test_split": "train"}, r"data\.test_split is 'train'; another split than train_split"),
    ],
)
def test_data_settings_out_of_range_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        DataSettings(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, r"train\.epochs is 0; 1 or more is required"),
        ({"learning_rate": 0.0}, r"train\.learning_rate is 0\.0; above 0"),
        ({"learning_rate": math.nan}, r"train\.learning_rate is nan"),
        ({"momentum": 1.0}, r"train\.momentum is 1\.0"),
        ({"weight_decay": -1e-4}, r"train\.weight_decay is -0\.0001"),
        ({"label_smoothing": 1.0}, r"train\.label_smoothing is 1\.0"),
        ({"gradient_clip": 0.0}, r"train\.gradient_clip is 0\.0; above 0, or null"),
        ({"checkpoint_every": 0}, r"train\.checkpoint_every is 0"),
        ({"accumulate": 0}, r"train\.accumulate is 0; 1 or more"),
        ({"ema_decay": 1.0}, r"train\.ema_decay is 1\.0; at least 0 \(off\) and below 1"),
        ({"epochs": 4, "warmup_epochs": 4}, r"warmup_epochs is 4; .* below epochs=4"),
        ({"milestones": (2.0,)}, r"milestones is \(2\.0,\); nothing, unless schedule='step'"),
        ({"schedule": "step", "milestones": (3.0, 2.0)}, r"a rising list of epochs"),
        ({"schedule": "step", "milestones": (300.0,)}, r"above 0 and below epochs=200"),
        ({"milestone_factor": 0.0}, r"milestone_factor is 0\.0"),
        ({"restart_every_epochs": -1.0}, r"restart_every_epochs is -1\.0"),
        ({"restart_warmup_epochs": 1.0}, r"at most restart_every_epochs=0\.0"),
        ({"final_learning_rate_fraction": 1.5}, r"between 0 and 1"),
        ({"schedule": "linear"}, r"above 0 with schedule='linear'.*try 0\.01"),
        ({"schedule": "step", "final_learning_rate_fraction": 0.1}, r"which does not use it"),
    ],
)
def test_train_settings_out_of_range_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        TrainSettings(**options)

import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from topospike.errors import ConfigError
from topospike.recipe import TrainSettings
from topospike.train.optim import (
    SCHEDULES,
    build_optimizer,
    learning_rate_at,
    set_learning_rate,
)


def learning_rate_factor(
    step,
    total,
    *,
    schedule="cosine",
    warmup_steps=0,
    final_fraction=0.0,
    restart_every=0,
    restart_warmup_steps=0,
):
    """The rate of a run of one step an epoch whose full rate is 1."""
    chosen = TrainSettings(
        epochs=total,
        learning_rate=1.0,
        schedule=schedule,
        warmup_epochs=warmup_steps,
        final_learning_rate_fraction=final_fraction,
        restart_every_epochs=restart_every,
        restart_warmup_epochs=restart_warmup_steps,
    )
    return learning_rate_at(chosen, step, steps_per_epoch=1)


ORACLE = Path(__file__).parents[1] / "oracles" / "cht" / "lr_restart.json"


@pytest.mark.parametrize("case", json.loads(ORACLE.read_text()))
def test_iterative_warm_up_equals_the_reference_to_1e12(case):
    factors = [
        learning_rate_factor(
            step,
            case["num_training_steps"],
            schedule="constant" if case["no_decay"] else "cosine",
            warmup_steps=case["first_warmup_steps"],
            final_fraction=0.0 if case["no_decay"] else case["min_lr_ratio"],
            restart_every=case["restart_every"],
            restart_warmup_steps=case["restart_warmup_steps"],
        )
        for step in range(len(case["factor"]))
    ]
    assert factors == pytest.approx(case["factor"], abs=1e-12)


@pytest.mark.parametrize(
    ("schedule", "final", "expected"),
    [
        ("constant", 0.0, {0: 1, 50: 1, 99: 1}),
        (
            "cosine",
            0.0,
            {0: 1, 25: (1 + math.sqrt(0.5)) / 2, 50: 0.5, 75: (1 - math.sqrt(0.5)) / 2},
        ),
        ("cosine", 0.2, {0: 1, 50: 0.6, 100: 0.2}),
        ("linear", 0.01, {0: 1, 45: 0.505, 90: 0.01, 95: 0.01, 99: 0.01}),
        ("step", 0.0, {0: 1, 49: 1, 50: 0.1, 74: 0.1, 75: 0.01, 99: 0.01}),
    ],
)
def test_schedules_by_hand(schedule, final, expected):
    for step, factor in expected.items():
        got = learning_rate_factor(step, 100, schedule=schedule, final_fraction=final)
        assert got == pytest.approx(factor, abs=1e-12), step


def test_the_schedule_proper_starts_after_the_warm_up():
    ramp = [learning_rate_factor(t, 20, warmup_steps=10) for t in range(11)]
    assert ramp == pytest.approx([t / 10 for t in range(11)])
    assert learning_rate_factor(15, 20, warmup_steps=10) == pytest.approx(0.5)


def test_published_mlp_setting():
    published = TrainSettings(
        epochs=100, learning_rate=0.025, schedule="linear", final_learning_rate_fraction=0.01
    )
    rates = [learning_rate_at(published, 10 * e, steps_per_epoch=10) for e in (0, 45, 90, 99)]
    assert rates == pytest.approx([0.025, (0.025 + 2.5e-4) / 2, 2.5e-4, 2.5e-4])


def test_restarts_are_given_in_epochs():
    recipe = TrainSettings(
        epochs=4, schedule="constant", restart_every_epochs=2, restart_warmup_epochs=0.5
    )
    rates = [learning_rate_at(recipe, t, steps_per_epoch=4) for t in range(16)]
    assert rates == pytest.approx(2 * [0, 0.05, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])


@settings(deadline=None, derandomize=True, max_examples=25)
@given(
    schedule=st.sampled_from(sorted(SCHEDULES)),
    total=st.integers(2, 400),
    warmup=st.floats(0, 0.9),
    final=st.floats(0.001, 1),
)
def test_factor_stays_in_the_unit_interval_and_falls_after_the_warm_up(
    schedule, total, warmup, final
):
    steps = int(warmup * total)
    final = 0.0 if schedule in ("step", "constant") else final
    factors = [
        learning_rate_factor(t, total, schedule=schedule, warmup_steps=steps, final_fraction=final)
        for t in range(total)
    ]
    assert all(0 <= factor <= 1 for factor in factors)
    after = factors[steps:]
    assert after[0] == pytest.approx(1)
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(after))


def test_optimizer_takes_the_settings_and_only_trainable_parameters():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    optimizer = build_optimizer(model, TrainSettings(learning_rate=0.3, weight_decay=0.01))
    (group,) = optimizer.param_groups
    assert [p.shape for p in group["params"]] == [(2, 2), (2,)]
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.3, 0.9, 0.01)
    set_learning_rate(optimizer, 0.7)
    assert group["lr"] == 0.7


def test_sgd_step_by_hand():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 2.0)
    optimizer = build_optimizer(
        model, TrainSettings(learning_rate=0.1, momentum=0.5, weight_decay=0.25)
    )
    for _ in range(2):
        model.weight.grad = torch.ones(1, 1)
        optimizer.step()
    # 1st: v = 1 + .25*2 = 1.5, w = 1.85; 2nd: v = .75 + 1 + .25*1.85 = 2.2125, w = 1.62875
    assert model.weight.item() == pytest.approx(1.62875)


def test_nesterovs_step_by_hand():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 2.0)
    settings = TrainSettings(learning_rate=0.1, momentum=0.5, weight_decay=0.25, nesterov=True)
    optimizer = build_optimizer(model, settings)
    model.weight.grad = torch.ones(1, 1)
    optimizer.step()
    # g = 1 + .25*2 = 1.5, v = g, step 0.1 (g + 0.5 v)
    assert model.weight.item() == pytest.approx(2 - 0.225)


@pytest.mark.parametrize("other", [{"momentum": 0.0}, {"optimizer": "adamw"}])
def test_nesterov_needs_momentum_of_sgd(other):
    with pytest.raises(ConfigError, match=r"train\.nesterov is True"):
        TrainSettings(nesterov=True, **other)


def test_adamw_decays_weights_only():
    model = nn.Linear(1, 1)
    nn.init.constant_(model.weight, 2.0)
    nn.init.constant_(model.bias, 2.0)
    settings = TrainSettings(optimizer="adamw", learning_rate=0.1, weight_decay=0.5)
    optimizer = build_optimizer(model, settings)
    assert [(len(g["params"]), g["weight_decay"]) for g in optimizer.param_groups] == [
        (1, 0.5),
        (1, 0.0),
    ]
    model.weight.grad, model.bias.grad = torch.ones(1, 1), torch.ones(1)
    optimizer.step()
    # the first step of Adam is one rate long; decay takes another 0.1 * 0.5 of the weight
    assert model.weight.item() == pytest.approx(2 - 0.1 - 0.1)
    assert model.bias.item() == pytest.approx(2 - 0.1)


def test_unknown_optimizer_is_an_error():
    with pytest.raises(ConfigError, match=r"unknown optimizer 'adam'.*'adamw'"):
        build_optimizer(nn.Linear(2, 2), TrainSettings(optimizer="adam"))


def test_nothing_to_train_is_an_error():
    with pytest.raises(ConfigError, match=r"Linear has no parameter with requires_grad"):
        build_optimizer(nn.Linear(2, 2).requires_grad_(False), TrainSettings())


def test_milestones_are_the_published_ones_of_resnet() -> None:
    published = TrainSettings(
        epochs=200, schedule="step", milestones=(60, 120, 160), milestone_factor=0.2
    )
    rates = [learning_rate_at(published, 10 * e, steps_per_epoch=10) for e in (59, 60, 120, 160)]
    assert rates == pytest.approx([0.1, 0.02, 0.004, 0.0008])

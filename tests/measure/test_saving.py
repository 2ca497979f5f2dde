"""Splitting a saving, repricing, fronts, memory: by hand and by law."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from topospike.contracts import Evaluation, LayerOperations, SiteActivity
from topospike.conversion import convert
from topospike.errors import ConfigError
from topospike.measure import (
    ENERGY_MODELS,
    EVERY_CONVENTION,
    Conventions,
    EnergyModel,
    area_under_front,
    evaluate,
    evaluate_conventions,
    event_rates,
    iso_accuracy_energy,
    memory_energy,
    pareto_front,
    reprice,
    saving_text,
    split_saving,
)
from topospike.measure.energy import access_joule
from topospike.topology import register_mask


def run_of(
    accuracy: list[float], sops: list[float], *, links: float = 50.0, macs: float = 10.0
) -> Evaluation:
    """Two layers: a first one of 10 links, a sparse one of ``links`` out of 100."""
    steps = len(sops)
    model = ENERGY_MODELS["45nm"]
    return Evaluation(
        timesteps=tuple(range(1, steps + 1)),
        accuracy=tuple(accuracy),
        energy_joule=tuple(model.joule(macs=macs, sops=s) for s in sops),
        sops=tuple(sops),
        macs_per_step=(macs,) * steps,
        ann_accuracy=1.0,
        ann_energy_joule=model.joule(macs=10 + links, sops=0),
        ann_dense_energy_joule=model.joule(macs=110, sops=0),
        macs=macs,
        images=1,
        saturation_time=None,
        conventions={
            "energy_model": "45nm", "mac_joule": model.mac_joule, "ac_joule": model.ac_joule
        },
        layers=(
            LayerOperations("a", "linear", "image", 10, 10, 1.0, (0.0,) * steps, (macs,) * steps),
            LayerOperations(
                "b", "linear", "spikes", links, 100, links / 100, tuple(sops), (0.0,) * steps
            ),
        ),
        sites=(SiteActivity("s", 5, (0.5,) * steps),),
    )  # fmt: skip


def test_a_saving_split_by_hand():
    run = run_of([0.5, 0.9], [20.0, 40.0])
    saving = split_saving(run, 2)
    # 60 of 110 links; 50 operations on them; 10 of them MACs of 4.6 and 40 of 0.9
    assert saving.structural == pytest.approx(60 / 110)
    assert saving.temporal == pytest.approx(50 / 60)
    assert saving.arithmetic == pytest.approx((10 * 4.6 + 40 * 0.9) / 50 / 4.6)
    assert saving.ratio == pytest.approx((10 * 4.6 + 40 * 0.9) / (110 * 4.6))
    product = saving.structural * saving.temporal * saving.arithmetic
    assert product == pytest.approx(saving.ratio)
    assert sum(saving.shares().values()) == pytest.approx(1.0)


def test_against_a_dense_twin_the_links_that_stay_may_work_more():
    dense = run_of([0.9], [100.0], links=100.0)
    sparse = run_of([0.9], [40.0], links=20.0)
    saving = split_saving(sparse, 1, reference=dense)
    assert saving.structural == pytest.approx(30 / 110)
    assert saving.temporal == pytest.approx((50 / 30) / (110 / 110))
    assert saving.temporal > 1
    assert saving.shares()["temporal"] < 0
    text = saving_text({"dense": dense, "sparse": sparse}, 1)
    assert text.count("\n") == 3
    assert "energy_model 45nm" in text
    assert f"{saving.ratio:.3f}" in text


def test_nothing_to_split_is_said():
    silent = run_of([0.1], [0.0], macs=0.0)
    assert split_saving(silent, 1).ratio == 0
    assert all(math.isnan(share) for share in split_saving(silent, 1).shares().values())
    with pytest.raises(ConfigError, match="timestep is 3; the run was simulated for 1 to 1"):
        split_saving(silent, 3)
    with pytest.raises(ConfigError, match=r"ac_joule is .*reprice"):
        split_saving(silent, 1, reference=reprice(silent, "45nm-int8"))


def test_event_rates_are_of_single_steps():
    rates = event_rates(run_of([0.5, 0.9], [20.0, 45.0]))
    assert rates == {"a": (0.0, 0.0), "b": (0.4, 0.5)}


def test_repricing_equals_evaluating_again():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    x, y = torch.rand(16, 4), torch.arange(16) % 3
    snn = convert(model, calibration=[x])
    run = evaluate(snn, [(x, y)], 3)
    for name in ENERGY_MODELS:
        assert reprice(run, name) == evaluate(snn, [(x, y)], 3, energy_model=name)


def test_named_energy_models_are_what_their_sources_say():
    table = {name: (m.mac_joule * 1e12, m.ac_joule * 1e12) for name, m in ENERGY_MODELS.items()}
    assert table["45nm"] == pytest.approx((4.6, 0.9))
    assert table["45nm-int8"] == pytest.approx((0.23, 0.03))
    assert table["45nm-fp16"] == pytest.approx((1.5, 0.4))
    assert table["loihi"][1] == pytest.approx(23.6)
    assert table["truenorth"][1] == pytest.approx(26)
    assert table["anp-i"][1] == pytest.approx(1.5)
    assert all(len(m.source) > 20 for m in ENERGY_MODELS.values())
    with pytest.raises(ConfigError, match=r"'mine': ac_joule is -1\.0; a finite number"):
        EnergyModel("mine", 1.0, -1.0, "nowhere")


def test_every_convention_at_once_equals_each_alone():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 5)
    )
    register_mask(model[4], torch.rand(5, 16) < 0.5)
    x, y = torch.randn(6, 2, 4, 4), torch.arange(6) % 5
    snn = convert(model, calibration=[x])
    together = evaluate_conventions(snn, [(x[:4], y[:4]), (x[4:], y[4:])], 3)
    assert len(together) == len(EVERY_CONVENTION) == 11
    for chosen, run in zip(EVERY_CONVENTION, together, strict=True):
        alone = evaluate(snn, [(x, y)], 3, conventions=chosen)
        assert run.energy_joule == pytest.approx(alone.energy_joule)
        assert run.conventions == alone.conventions
        assert run.accuracy == alone.accuracy
    with pytest.raises(ConfigError, match="no convention"):
        evaluate_conventions(snn, [(x, y)], 3, conventions=())


def test_a_front_by_hand():
    cheap, good = run_of([0.5, 0.6], [0.0, 10.0]), run_of([0.4, 0.9], [5.0, 50.0])
    front = pareto_front({"cheap": cheap, "good": good})
    assert [(p.run, p.timestep) for p in front] == [("cheap", 1), ("cheap", 2), ("good", 2)]
    low, high = cheap.energy_joule[0], good.energy_joule[1] * 2
    edges = [p.energy_joule for p in front] + [high]
    widths = [math.log(b / a) for a, b in itertools.pairwise(edges)]
    expected = sum(w * p.value for w, p in zip(widths, front, strict=True)) / sum(widths)
    assert area_under_front(front, low_joule=low, high_joule=high) == pytest.approx(expected)
    reached = iso_accuracy_energy(good, 0.85)
    assert reached is not None
    assert (reached.timestep, reached.energy_joule) == (2, good.energy_joule[1])
    assert iso_accuracy_energy(cheap, 0.85) is None


points = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 100)), min_size=1, max_size=8)


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.lists(points, min_size=1, max_size=3))
def test_a_front_holds_exactly_the_points_nothing_beats(runs):
    named = {}
    for k, run in enumerate(runs):
        sops = sorted(s for _, s in run)
        named[str(k)] = run_of([a for a, _ in run], sops)
    front = pareto_front(named)
    every = [
        (energy, accuracy)
        for run in named.values()
        for energy, accuracy in zip(run.energy_joule, run.accuracy, strict=True)
    ]
    kept = {(p.energy_joule, p.value) for p in front}
    for energy, accuracy in every:
        beaten = any(
            e <= energy and a >= accuracy and (e, a) != (energy, accuracy) for e, a in every
        )
        assert ((energy, accuracy) in kept) == (not beaten)
    assert [p.value for p in front] == sorted({p.value for p in front})


def test_what_cannot_be_compared_is_refused():
    run = run_of([0.5], [1.0])
    with pytest.raises(ConfigError, match="no run to compare"):
        pareto_front({})
    with pytest.raises(ConfigError, match=r"'b' was counted with energy_model='loihi', 'a' with"):
        pareto_front({"a": run, "b": reprice(run, "loihi")})
    with pytest.raises(ConfigError, match="0 < low < high"):
        area_under_front(pareto_front({"a": run}), low_joule=2.0, high_joule=1.0)
    with pytest.raises(ConfigError, match="accuracy is 85"):
        iso_accuracy_energy(run, 85)


def test_memory_accesses_by_hand():
    model = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 4, bias=False))
    register_mask(model[2], torch.tensor([[True, False, True]] * 4))
    x = torch.rand(8, 2)
    snn = convert(model, "qcfs", [x], thresholds={"1": 0.1})
    run = evaluate(snn, [(x, torch.zeros(8, dtype=torch.long))], 2)
    memory = memory_energy(snn, run)
    two, three, four, six, eight = (access_joule(n) for n in (2, 3, 4, 6, 8))
    ann = 6 * (two + six) + 2 * 3 * three + 8 * (three + eight) + 2 * 4 * four
    assert memory.ann_joule == pytest.approx(ann)
    events = sum(run.sites[0].firing_rate) * 3
    snn_joule = 6 * (two + six) + 2 * 3 * 3 * three
    snn_joule += run.sops[1] * (eight + 2 * four) + 2 * 4 * 3 * four + events * 2 * three
    assert memory.snn_joule[1] == pytest.approx(snn_joule)
    other = replace(run, layers=run.layers[:1])
    with pytest.raises(ConfigError, match="other layers than the network"):
        memory_energy(snn, other)


def test_a_larger_memory_costs_more_and_width_scales():
    sizes = [1, 100, 2048, 8192, 10**5, 10**6]
    costs = [access_joule(n) for n in sizes]
    assert costs == sorted(costs)
    assert access_joule(8192, bits=32) == pytest.approx(10e-12)  # 32 KiB, half of 64 bits
    assert access_joule(4 * 8192, bits=8) == pytest.approx(2.5e-12)


def test_conventions_listed_are_the_known_ones():
    assert Conventions() == EVERY_CONVENTION[0]
    assert len(set(EVERY_CONVENTION)) == len(EVERY_CONVENTION)

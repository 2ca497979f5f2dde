"""What operations leave out, by hand on a network of three neurons, and under other models."""

import dataclasses

import pytest
import torch
from torch import nn

import topospike as ts
from topospike.contracts import Evaluation
from topospike.costs import WiderCost
from topospike.measure import reprice, wider_text
from topospike.measure.energy import ENERGY_MODELS
from topospike.topology import register_mask


def measured(*, energy_model: str = "45nm") -> tuple[Evaluation, WiderCost]:
    """Neurons are given 0.6, 0.2 and -1 thresholds; the first has two links, the others one."""
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(3))
        model[0].bias.zero_()
    register_mask(model[2], torch.tensor([[True, True, False], [True, False, True]]))
    snn = ts.convert(model, "qcfs", [torch.rand(8, 3)], thresholds={"1": 1.0})
    x = torch.tensor([[0.6, 0.2, -1.0]])
    run = ts.evaluate(snn, [(x, torch.tensor([0]))], 3, energy_model=energy_model)
    assert run.wider is not None
    return run, run.wider


def test_by_hand() -> None:
    """From 1/2: the first fires at 1 and 3, the second at 3 (1.1), the third never."""
    run, wider = measured()
    assert run.sops == (2.0, 2.0, 5.0)
    # three neurons, two additions of 0.9 pJ an update
    assert wider.update_joule == pytest.approx([3 * t * 1.8e-12 for t in (1, 2, 3)])
    # 9 links read the image; 2 + 1 links are fed by neurons that decoded something
    assert wider.int8_ann_joule == pytest.approx((9 + 3) * 0.3e-12)
    assert wider.active_share == 3 / 4
    assert wider.event_rate == pytest.approx([2 / 4, 2 / 8, 5 / 12])
    assert wider.break_even_rate == pytest.approx([3 * 0.3 / (4 * t * 0.9) for t in (1, 2, 3)])
    assert wider.chip_steps == (2, 3, 4)
    assert len(wider.memory_joule) == 3
    assert wider.memory_joule[0] < wider.memory_joule[2]
    assert "break-even" in wider_text({"three": run}, 3)
    assert wider_text({"old": dataclasses.replace(run, wider=None)}, 3) == ""


@pytest.mark.slow
def test_it_is_kept_and_repriced(tmp_path) -> None:
    run, _ = measured()
    run.save(tmp_path / "evaluation.json")
    assert Evaluation.load(tmp_path / "evaluation.json") == run
    for name in ENERGY_MODELS:
        expected, found = measured(energy_model=name)[1], reprice(run, name).wider
        assert found is not None
        assert found.update_joule == pytest.approx(expected.update_joule)
        assert found.break_even_rate == pytest.approx(expected.break_even_rate)


def test_only_prices_with_a_source_are_there() -> None:
    assert {name for name, m in ENERGY_MODELS.items() if m.update_joule is None} == {
        "truenorth", "odin", "spinnaker2", "anp-i",
    }  # fmt: skip
    assert not any(name.startswith("7nm") for name in ENERGY_MODELS)

"""What the conversion report says of sites and layers, by hand."""

import pytest
import torch
from torch import nn

from topospike.conversion import conversion_text, convert
from topospike.conversion.health import SaturationObserver
from topospike.snn.coding import Differential
from topospike.snn.neurons import MultiThreshold
from topospike.snn.site import Site


def share_above(gated: bool, threshold: float, r_in: torch.Tensor) -> float:
    neuron = MultiThreshold(4, gated=gated)
    site = Site("a", gated=gated, neuron=neuron, coding=Differential())
    site.threshold = torch.tensor(threshold)
    seen = SaturationObserver(site)
    seen(r_in)
    return seen.share


def test_share_above_the_threshold_of_a_relu_site() -> None:
    # one of four neurons is above the threshold in one of two images
    r_in = torch.tensor([[-3.0, 0.5, 2.0, 0.1], [-0.1, 0.2, 0.3, 1.0]])
    assert share_above(True, 1.0, r_in) == 1 / 8


def test_share_above_the_threshold_of_an_operand_site_looks_at_both_signs() -> None:
    assert share_above(False, 1.0, torch.tensor([[-3.0, 0.0, 0.5, 1.0]])) == 0.25


def test_a_neuron_driven_in_any_batch_is_not_dead() -> None:
    # neuron k is driven by the images of batch k alone; neuron 3 by none
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(4, 3))
        model[0].bias.copy_(torch.tensor([0.0, 0.0, 0.0, -1.0]))
    batches = [torch.eye(3)[[k, k]] for k in range(3)]
    for count, share in ((1, 0.75), (2, 0.5), (3, 0.25)):
        (site,) = convert(model, calibration=batches[:count]).report.sites
        assert site.dead_share == share


def dead_and_clipped() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 3))
    with torch.no_grad():
        model[0].bias[:7] = -1000.0
    return model


def test_advice_names_dead_and_saturated_sites() -> None:
    x = torch.randn(64, 4)
    snn = convert(dead_and_clipped(), calibration=[x], thresholds={"1": 0.05})
    (site,) = snn.report.sites
    assert site.dead_share == pytest.approx(0.7)
    assert site.saturated_share > 0.02
    saturated, dead = snn.report.advice
    assert saturated.startswith("1: ")
    assert "exceed the threshold" in saturated
    assert "70% of its neurons are driven by no calibration image" in dead
    text = conversion_text(snn.report)
    assert saturated in text
    assert "70.0%" in text


def test_a_healthy_network_gets_no_advice() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 3))
    assert convert(model, calibration=[torch.randn(256, 4)], solver="max").report.advice == ()


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.c(torch.relu(self.a(x) + self.b(x))))


def test_sources_are_the_layers_before_a_site_and_none_behind_another_site() -> None:
    snn = convert(Branches(), calibration=[torch.randn(16, 4)])
    assert [site.sources for site in snn.report.sites] == [("a", "b"), ("c",)]


def test_layers_fed_graded_numbers_are_named_with_the_operation_between() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Sigmoid(), nn.Linear(8, 3))
    snn = convert(model, calibration=[torch.randn(16, 4)], scheme="relu")
    (line,) = [line for line in snn.report.advice if "MAC" in line]
    assert line.startswith("3 is counted as MAC at every step")
    assert "aten.sigmoid" in line

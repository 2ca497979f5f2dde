"""Networks trained with QCFS activations: their thresholds are theirs, not calibrated."""

import pytest
import torch
from torch import nn

from topospike.conversion import convert
from topospike.errors import ConversionError
from topospike.models.qcfs import QCFS


def trained_net(**options) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), QCFS(4, theta_init=1.5, **options),
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(64, 12), QCFS(4, theta_init=0.7),
        nn.Linear(12, 3),
    )  # fmt: skip
    return net.double().eval()


def images() -> torch.Tensor:
    return torch.randn(16, 1, 8, 8, dtype=torch.float64)


@pytest.mark.parametrize("positive_map", ["softplus", "sqrt", "none"])
def test_learnt_thresholds_become_the_sites(positive_map: str) -> None:
    model, x = trained_net(positive_map=positive_map), images()
    snn = convert(model, "qcfs", [x])
    assert [site.name for site in snn.report.sites] == ["2", "6"]
    torch.testing.assert_close(snn.sites["2"].threshold, model[2].theta.detach())
    torch.testing.assert_close(snn.sites["6"].threshold, model[6].theta.detach())
    assert snn.report.solver == "trained"
    assert isinstance(model[2], QCFS)


def test_the_analog_network_is_the_quantised_ann() -> None:
    model, x = trained_net(), images()
    snn = convert(model, "qcfs", [x])
    torch.testing.assert_close(snn.analog(x), model(x), rtol=0, atol=1e-12)


def test_channel_wise_thresholds_keep_their_channels() -> None:
    model, x = trained_net(), images()
    model[2] = model[2].per_channel(4)
    with torch.no_grad():
        model[2].beta.copy_(torch.tensor([0.1, 0.5, 1.0, 2.0]))
    snn = convert(model, "cs-qcfs", [x])
    assert snn.sites["2"].threshold.shape == (1, 4, 1, 1)
    torch.testing.assert_close(snn.sites["2"].threshold.flatten(), model[2].theta.detach())


def test_one_step_equals_the_network_trained_with_one_level() -> None:
    model, x = trained_net(), images()
    for name in ("2", "6"):
        model.get_submodule(name).steps = 1
    snn = convert(model, "qcfs", [x])
    torch.testing.assert_close(snn(x, 1)[0], model(x).detach(), rtol=0, atol=1e-9)


def test_a_negative_threshold_is_refused_by_name() -> None:
    model = trained_net(positive_map="none")
    with torch.no_grad():
        model[2].beta.fill_(-1.0)
    with pytest.raises(ConversionError, match=r"2: 1 of 1 thresholds are unusable, e\.g\. -1"):
        convert(model, "qcfs", [images()])


def test_dcgs_of_a_quantised_network_is_refused() -> None:
    with pytest.raises(ConversionError, match=r"trained with QCFS.*method='qcfs'"):
        convert(trained_net(), "dcgs", [images()])

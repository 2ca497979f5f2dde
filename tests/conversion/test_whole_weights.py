"""Weights of few bits: by hand, with every reason a layer has to stay with real numbers."""

import itertools

import nir
import numpy as np
import pytest
import torch
from torch import nn

import topospike as ts
from topospike.conversion import convert
from topospike.conversion.whole_weights import COMPUTED
from topospike.errors import ConfigError
from topospike.export import export_csr, read_csr
from topospike.topology import register_mask


def two_layers() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        model[2].weight.copy_(torch.tensor([[0.5, -1.0, 0.3], [0.1, 0.0, 0.2]]))
    return model


def test_by_hand() -> None:
    """Quanta 1, 2, 4 (theta over 2 of two levels): rows 0.5, -2, 1.2 and 0.1, 0, 0.8; 3 bits."""
    x = torch.rand(9, 2)
    thresholds = {"1": torch.tensor([2.0, 4.0, 8.0])}
    snn = convert(two_layers(), calibration=[x], levels=2, thresholds=thresholds)
    quantised, report = ts.quantise_weights(snn, 3)
    # steps 2 / 3 and 0.8 / 3: whole weights 1, -3, 2 and 0, 0, 3
    expected = torch.tensor([[2 / 3, -1.0, 1 / 3], [0.0, 0.0, 0.2]])
    torch.testing.assert_close(quantised.ann.get_parameter("2.weight"), expected)
    assert not torch.equal(snn.ann.get_parameter("2.weight"), expected)  # the original is kept
    first, second = report.layers
    quanta = torch.tensor([1.0, 2.0, 4.0])
    exact = snn.ann.get_parameter("2.weight") * quanta  # what a spike adds
    error = (expected * quanta - exact).norm() / exact.norm()
    assert second.weight_error == pytest.approx(float(error), rel=1e-5)
    assert (first.bits, first.integer, first.reason) == (3, False, "fed by the image")
    assert (second.integer, second.output_error) == (True, None)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_absent_links_stay_absent_and_a_second_time_changes_nothing(bits: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 40), nn.ReLU(), nn.Linear(40, 9), nn.ReLU(), nn.Linear(9, 3))
    mask = torch.rand(9, 40) < 0.3
    mask[4] = False  # a row without links
    register_mask(model[2], mask)
    x = torch.randn(30, 5)
    snn, report = ts.quantise_weights(convert(model, calibration=[x]), bits, images=x)
    weight = snn.ann.get_parameter("2.weight")
    assert not weight[~mask].any()
    again, _ = ts.quantise_weights(snn, bits)
    torch.testing.assert_close(again.ann.get_parameter("2.weight"), weight)
    assert all(row.output_error is not None and row.output_error > 0 for row in report.layers)


@pytest.mark.parametrize("bits", [4, 8])
def test_the_error_of_weights_is_that_of_what_spikes_add(bits: int) -> None:
    """A channel of tiny spikes loses its weights, and that is no error anyone could see."""
    model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0], [1e-6]]))
        model[0].bias.zero_()  # pyright: ignore[reportOptionalMemberAccess]
        model[2].weight.copy_(torch.tensor([[1.0, 5.0], [-0.5, 5.0]]))
    x = torch.linspace(0, 1, 50)[:, None]
    quantised, report = ts.quantise_weights(convert(model, calibration=[x]), bits, images=x)
    weight = quantised.ann.get_parameter("2.weight")
    torch.testing.assert_close(weight, torch.tensor([[1.0, 0.0], [-0.5, 0.0]]))
    error, output = report.layers[1].weight_error, report.layers[1].output_error
    assert error == pytest.approx(5e-6 * 2**0.5 / 1.25**0.5, rel=1e-3)
    assert output is not None
    assert output < 1e-4


def test_more_bits_err_less() -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 9)
    model = nn.Sequential(nn.Linear(9, 60), nn.ReLU(), nn.Linear(60, 5))
    snn = convert(model, calibration=[x])
    reports = [ts.quantise_weights(snn, bits, images=x)[1] for bits in (4, 6, 8)]
    for first, second in itertools.pairwise(reports):
        assert all(
            a.weight_error > b.weight_error and a.output_error > b.output_error  # pyright: ignore[reportOptionalOperand]
            for a, b in zip(first.layers, second.layers, strict=True)
        )


class Sum(nn.Module):
    """Its layers are fed by a max-pool of held values, a sum of sites, and a shared weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 6)
        self.third, self.shared = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one = torch.relu(self.first(x))
        two = torch.relu(self.second(one)) + one
        three = torch.relu(self.third(two))
        return self.shared(torch.relu(self.shared(three)))


def test_why_a_layer_is_not_run_on_whole_numbers() -> None:
    torch.manual_seed(0)
    x = torch.randn(40, 4)
    _, report = ts.quantise_weights(convert(Sum(), calibration=[x]), keep=["second"])
    reasons = {row.name: (row.bits, row.reason) for row in report.layers}
    assert reasons == {
        "first": (8, "fed by the image"),
        "second": (None, "its weights were kept"),
        "third": (8, "fed by a sum of neurons of different quanta"),
        "shared": (None, COMPUTED),
        "shared#2": (None, COMPUTED),
    }
    assert "third" in report.text()
    assert "different quanta" in report.text()


def test_bad_settings_are_refused() -> None:
    snn = convert(two_layers(), calibration=[torch.rand(9, 2)])
    with pytest.raises(ConfigError, match="bits is 9"):
        ts.quantise_weights(snn, 9)
    with pytest.raises(ConfigError, match="no layer '1' to keep"):
        ts.quantise_weights(snn, keep=["1"])


@pytest.mark.parametrize("bits", [4, 8])
def test_whole_weights_are_handed_over_with_their_steps(bits: int, tmp_path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(4, 6, 2), nn.ReLU(),
        nn.Flatten(), nn.Linear(24, 5),
    )  # fmt: skip
    x = torch.rand(9, 2, 8, 8)
    plain = convert(model, "qcfs", [x])
    snn, _ = ts.quantise_weights(plain, bits)
    written = read_csr(export_csr(snn, tmp_path))
    with np.load(tmp_path / "weights.npz") as arrays:
        for layer in written.description["layers"]:
            whole, step, quantum = (
                torch.tensor(arrays[f"{layer['name']}/{part}"])
                for part in ("whole", "step", "quantum")
            )
            assert layer["bits"] == bits
            assert int(whole.abs().max()) == 2 ** (bits - 1) - 1
            weight = written.layers[layer["name"]].weight.double()
            if len(quantum) > 1:
                weight = weight * quantum.view(1, -1, *(1 for _ in weight.shape[2:]))
            expected = whole.view(weight.shape) * step.view(-1, *(1 for _ in weight.shape[1:]))
            torch.testing.assert_close(weight, expected, rtol=1e-5, atol=1e-12)
    ts.export_nir(snn, tmp_path / "net.nir")
    found = [n for n in nir.read(tmp_path / "net.nir").nodes.values() if hasattr(n, "weight")]
    assert len(found) == 3
    for node in found:
        assert int(node.metadata["bits"]) == bits
        rows = torch.tensor(node.weight).flatten(1).double()
        whole = rows / torch.tensor(node.metadata["step"])[:, None]
        torch.testing.assert_close(whole, whole.round(), rtol=0, atol=1e-3)
    with np.load(export_csr(plain, tmp_path / "plain") / "weights.npz") as arrays:
        assert not any(name.endswith("/whole") for name in arrays)

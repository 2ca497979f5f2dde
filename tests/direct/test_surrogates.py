import pytest
import torch

from topospike.direct import SURROGATES
from topospike.errors import ConfigError

# the reference's names and widths for the curves here
REFERENCE = {
    "atan": ("arctan", 2.0),
    "qgate": ("triangular", 2.0),
    "sigmoid": ("sigmoid", 1.0),
    "gate": ("rectangular", 1.0),
    "backei": ("rectangular", 1.0),
}


@pytest.mark.parametrize("name", REFERENCE)
def test_curves_equal_the_reference(oracle, name):
    stored, (ours, width) = oracle("nodes"), REFERENCE[name]
    u = torch.from_numpy(stored["u"])
    found = SURROGATES[ours].slope(u, torch.tensor(width))
    expected = torch.from_numpy(stored[f"surr_{name}__grad"])
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)


def test_the_gradient_of_the_width_equals_the_reference(oracle):
    stored = oracle("nodes")
    u, width = torch.from_numpy(stored["u"]), torch.tensor(2.0)
    assert SURROGATES["arctan"].by_width is not None
    found = SURROGATES["arctan"].by_width(u, width).sum()
    assert float(found) == pytest.approx(float(stored["surr_atan__grad_alpha"]), abs=2e-6)


@pytest.mark.parametrize("name", ["arctan", "triangular", "rectangular", "sigmoid", "gaussian"])
@pytest.mark.parametrize("width", [0.5, 2.0])
def test_the_area_under_a_curve_is_one(name, width):
    u = torch.linspace(-400, 400, 800_001, dtype=torch.float64)
    slope = SURROGATES[name].slope(u, torch.tensor(width, dtype=torch.float64))
    assert float(torch.trapezoid(slope, u)) == pytest.approx(1.0, abs=3e-3)


def test_the_derivative_by_the_width_is_that_of_the_integral():
    u = torch.linspace(-3, 3, 7, dtype=torch.float64)
    width = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    integral = torch.arctan(torch.pi * width * u / 2) / torch.pi
    (expected,) = torch.autograd.grad(integral.sum(), width)
    assert SURROGATES["arctan"].by_width is not None
    torch.testing.assert_close(SURROGATES["arctan"].by_width(u, width.detach()).sum(), expected)


def test_an_unknown_curve_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'triangular'"):
        SURROGATES["triangle"]

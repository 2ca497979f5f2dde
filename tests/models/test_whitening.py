"""Whitening layers: their outputs are uncorrelated and of variance 1, and they never train."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from topospike.conversion import convert
from topospike.errors import ConfigError, ShapeError
from topospike.export import load, save
from topospike.measure import evaluate
from topospike.models import fast_cnn, fit_whitening
from topospike.models.networks.fast import whitening_filters
from topospike.snn.neurons import Identity


def images(count=64, channels=3, size=8, seed=0):
    """Neighbouring pixels are alike, as those of photographs are."""
    noise = torch.randn(
        count, channels, size + 2, size + 2, generator=torch.Generator().manual_seed(seed)
    )
    return F.avg_pool2d(noise, 3, stride=1) + 0.3 * noise[:, :1, 1:-1, 1:-1]


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 3), st.sampled_from([1, 2, 3]), st.integers(0, 1000))
def test_the_outputs_have_the_identity_as_covariance(channels, kernel, seed):
    x = images(channels=channels, seed=seed)
    y = F.conv2d(x, whitening_filters(x, kernel, epsilon=0.0))
    values = y.transpose(0, 1).flatten(1).double()
    covariance = torch.atleast_2d(torch.cov(values, correction=0))
    torch.testing.assert_close(covariance, torch.eye(len(values)).double(), atol=1e-3, rtol=0)


def test_epsilon_holds_small_variances_back():
    x = images()
    plain, held = (F.conv2d(x, whitening_filters(x, epsilon=e)) for e in (0.0, 0.1))
    own = 1 / whitening_filters(x, epsilon=0.0).flatten(1).square().sum(1)
    ratio = held.var((0, 2, 3), correction=0) / plain.var((0, 2, 3), correction=0)
    assert ratio == pytest.approx(own / (own + 0.1), rel=1e-3)


def test_two_pixels_by_hand():
    """Pixels (a, a + b), a = +-2, b = +-1: eigenvectors follow from [[4, 4], [4, 5]]."""
    rows = [[a, a + b] for a in (2.0, -2.0) for b in (1.0, -1.0)]
    x = torch.tensor(rows).view(4, 2, 1, 1)
    covariance = torch.tensor([[4.0, 4.0], [4.0, 5.0]])
    filters = whitening_filters(x, 1, epsilon=0.0).flatten(1)
    assert filters @ covariance @ filters.T == pytest.approx(torch.eye(2), abs=1e-5)
    largest = (9 + 65**0.5) / 2
    assert float(filters[0].norm()) == pytest.approx(largest**-0.5)
    # of each filter the largest value is positive, so a sign is never left to the solver
    assert (filters.gather(1, filters.abs().argmax(1, keepdim=True)) > 0).all()


def test_a_layer_shows_every_direction_and_its_negative_and_stays():
    torch.manual_seed(0)
    model, x = fast_cnn(4, image_size=(8, 8), widths=(4, 6), blocks=(2, 1), hidden=(8,)), images()
    assert torch.equal(F.relu(model.whiten(x)), F.relu(torch.cat([*unfolded(x)], dim=1)))
    fit_whitening(model, [x[:30], x[30:]])
    half = len(model.whiten.weight) // 2
    assert torch.equal(model.whiten.weight[half:], -model.whiten.weight[:half])
    assert torch.equal(model.whiten.weight[:half], whitening_filters(x))
    before = model.whiten.weight.clone()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(x).square().sum().backward()
    optimizer.step()
    assert torch.equal(model.whiten.weight, before)


def unfolded(x):
    """Return the values of every 2 x 2 patch as channels, and their negatives."""
    patches = F.unfold(x, 2).view(len(x), -1, x.shape[2] - 1, x.shape[3] - 1)
    return patches, -patches


def test_a_model_without_such_a_layer_reads_no_image():
    def fail():
        raise AssertionError
        yield

    fit_whitening(nn.Linear(2, 2), fail())


@pytest.fixture
def trained():
    """A small network with whitening, its statistics and weights moved away from their start."""
    torch.manual_seed(1)
    model, x = fast_cnn(4, image_size=(8, 8), widths=(4, 6), blocks=(2, 1), hidden=(8,)), images()
    fit_whitening(model, [x])
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)  # negative ones keep pooling and scaling from commuting
    for _ in range(5):
        model(x)
    return model.eval(), x


def test_identity_sites_repeat_the_logits(trained):
    model, x = trained
    snn = convert(model, calibration=[x], neuron=Identity())
    with torch.no_grad():
        wanted = model(x[:8])
    assert torch.allclose(snn(x[:8], timesteps=2)[1], wanted, atol=1e-4)


def test_the_layer_counts_once_an_image_and_is_saved(trained, tmp_path):
    model, x = trained
    snn = convert(model, "dcgs", calibration=[x])
    result = evaluate(snn, [(x[:8], torch.zeros(8, dtype=torch.int64))], 3)
    first, *others = result.layers
    assert (first.name, first.input) == ("whiten", "image")
    assert first.macs == 24 * 12 * 7 * 7
    assert set(first.snn_macs) == {first.macs}
    assert all(layer.input == "spikes" and layer.sops[-1] > 0 for layer in others)
    save(snn, tmp_path / "saved")
    assert torch.equal(load(tmp_path / "saved")(x[:4], timesteps=2), snn(x[:4], timesteps=2))


@pytest.mark.parametrize(
    ("x", "kernel", "epsilon", "error"),
    [
        (torch.zeros(4, 3, 1, 1), 2, 1e-3, ShapeError),
        (torch.zeros(0, 3, 4, 4), 2, 1e-3, ShapeError),
        (torch.zeros(3, 4, 4), 2, 1e-3, ShapeError),
        (torch.zeros(4, 3, 4, 4), 2, 0.0, ConfigError),
    ],
)
def test_what_cannot_be_whitened_is_refused(x, kernel, epsilon, error):
    with pytest.raises(error):
        whitening_filters(x, kernel, epsilon=epsilon)

"""Training a converted network on through its steps: values, gradients, links, and a gain."""

import copy

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import topospike as ts
from topospike.conversion.fine_tune import GradientRule, answers_with_gradient, mean_loss, trainable
from topospike.direct import spiking_model, spiking_network
from topospike.errors import ConfigError, ConversionError, MissingDataError, NonFiniteError
from topospike.snn.coding import CODINGS, SiteState
from topospike.snn.neurons import IntegrateAndFire
from topospike.snn.site import Site
from topospike.topology import check_masks, masks_of, register_mask

METHODS = {
    "dcgs": {}, "sigma-delta": {"levels": 4}, "qcfs": {}, "cs-qcfs": {"readout_delay": 1},
    "signed-if": {}, "ltb": {"passes": 2, "readout_delay": 0}, "parallel": {"steps": 3},
    "phase": {"steps": 3}, "one-spike": {"steps": 5}, "graded": {"levels": 3},
}  # fmt: skip
PRESIMULATED = ("srp", "offset-spike")


def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 12), nn.ReLU(), nn.Linear(12, 3)
    ).double()
    kept = torch.rand(12, 144, generator=torch.Generator().manual_seed(3)) < 0.4
    register_mask(model[3], kept)
    return model.eval()


def pictures(n: int = 24) -> torch.Tensor:
    return torch.randn(
        n, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    ).abs()


def converted(method: str) -> ts.SpikingNetwork:
    x, model = pictures(), network()
    if method in PRESIMULATED:
        model = ts.quantise_activations(model, x, kind="s-qcfs", levels=4, calibration=x).eval()
    options = METHODS.get(method, {"presimulation": 2})
    return ts.convert(model, method, calibration=[x], **options)


@pytest.mark.slow
@pytest.mark.parametrize("method", [*METHODS, *PRESIMULATED])
def test_values_are_those_of_the_simulation_and_every_weight_learns(method) -> None:
    """Of any method: forward the same numbers, backward a gradient, links and thresholds kept."""
    snn, x, y = converted(method), pictures(), torch.arange(24) % 3
    simulated = snn(x, 6)
    for t, answer in answers_with_gradient(snn, snn.shown(x, 6), 6):
        if not simulated[t - 1].isnan().any() and method not in ("parallel", "phase", "one-spike"):
            torch.testing.assert_close(answer, simulated[t - 1], rtol=0, atol=1e-10)
    torch.testing.assert_close(answer, simulated[-1], rtol=0, atol=1e-10)
    before = copy.deepcopy(snn.ann.state_dict())
    tuned = ts.fine_tune(snn, [(x, y)], timesteps=4, epochs=2, learning_rate=1e-3)
    for name, value in snn.ann.state_dict().items():
        assert torch.equal(value, before[name]), name  # the given network stays as it is
    check_masks(tuned.ann)
    for name, mask in masks_of(snn.ann).items():
        assert torch.equal(masks_of(tuned.ann)[name], mask)
    after = tuned.ann.state_dict()
    learnt = [name for name in before if name.endswith(("weight", "bias"))]
    assert len(learnt) == 6
    assert not any(torch.equal(before[name], after[name]) for name in learnt)
    for name in set(before) - set(learnt):
        assert torch.equal(before[name], after[name]), name
    assert not any(parameter.requires_grad for parameter in tuned.ann.parameters())


def test_gradient_by_hand() -> None:
    """One neuron, two steps, theta = 1: what a spike says of its input, step by step."""
    site = Site("a", gated=True, neuron=IntegrateAndFire(), coding=CODINGS["rate"])
    site.threshold = torch.tensor(1.0)
    r_in = torch.tensor([0.7], requires_grad=True)
    rule = GradientRule(site)
    one = rule(1, r_in, SiteState())
    # u = 0.7 + 0.5: within half a threshold of 1, so ds/du = 1, and r_out = s
    assert one.decoded.tolist() == [1.0]
    assert torch.autograd.grad(one.decoded, r_in, retain_graph=True)[0].tolist() == [1.0]
    two = rule(2, r_in, one)
    # u = 2 r_in - r_out + 0.5 = 0.9: no spike, near enough; du/dr_in = 2 - 1; r_out = (1 + 0) / 2
    assert two.decoded.tolist() == [0.5]
    assert torch.autograd.grad(two.decoded, r_in)[0].tolist() == [1.0]
    far = torch.tensor([-0.2], requires_grad=True)
    out = rule(1, far, SiteState()).decoded  # u = 0.3, too far below to follow
    assert torch.autograd.grad(out, far)[0].tolist() == [0.0]


def test_gradient_equals_a_slow_simulation_of_spike_trains() -> None:
    """Membranes and spikes of a network written out, differentiated with the same rule."""
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    model = model.double()
    x = torch.rand(10, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    y, steps = torch.arange(10) % 2, 5
    snn = ts.convert(model, "qcfs", calibration=[x], timesteps=4)
    weights = trainable(snn)
    mean_loss(snn, (x,), y, nn.functional.cross_entropy, steps).backward()
    found = [weight.grad for weight in weights]
    thetas = [site.threshold for site in snn.sites.values()]
    copies = [p.detach().clone().requires_grad_(True) for p in weights]
    w1, b1, w2, b2, w3, b3 = copies
    v1, v2 = thetas[0] / 2, thetas[1] / 2
    total, losses = 0.0, []
    for t in range(1, steps + 1):
        spikes = []
        v1 = v1 + x @ w1.T + b1
        for number, theta in enumerate(thetas):
            v = v1 if number == 0 else v2 + spikes[0] @ w2.T + b2
            near = ((v.detach() - theta).abs() <= theta / 2).double()
            s = (v.detach() >= theta).double() * theta + near * (v - v.detach())
            spikes.append(s)
            v1, v2 = (v - s, v2) if number == 0 else (v1, v - s)
        total = total + spikes[1] @ w3.T + b3
        losses.append(nn.functional.cross_entropy(total / t, y))
    torch.stack(losses).mean().backward()
    for gradient, weight in zip(found, copies, strict=True):
        torch.testing.assert_close(gradient, weight.grad, rtol=1e-9, atol=1e-12)
        assert bool(gradient.abs().sum() > 0)


def test_a_few_epochs_repair_a_run_of_few_steps() -> None:
    """Digits, integrate-and-fire, thresholds for T = 16, trained on at T = 2; unseen images."""
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)
    torch.manual_seed(0)
    layers = [nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)]
    model, train, test = nn.Sequential(*layers), (x[:1400], y[:1400]), (x[1400:], y[1400:])
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(train[0]), train[1]).backward()
        optimizer.step()
    snn = ts.convert(model, "qcfs", calibration=[train[0]], timesteps=16)
    batches = list(zip(train[0].split(50), train[1].split(50), strict=True))
    tuned = ts.fine_tune(snn, batches, timesteps=2, epochs=8, learning_rate=2e-3)
    before, after = (ts.evaluate(net, [test], 2) for net in (snn, tuned))
    assert before.accuracy[0] < 0.8 < 0.85 < after.accuracy[0]  # 75.1 and 88.7 %
    assert after.accuracy[1] > before.accuracy[1]  # 85.9 and 88.4 %
    assert after.energy_joule[1] < 1.1 * before.energy_joule[1]


def test_it_is_saved_and_says_what_it_is(tmp_path) -> None:
    x, y = pictures(), torch.arange(24) % 3
    tuned = ts.fine_tune(converted("qcfs"), [(x, y)], timesteps=2, learning_rate=1e-3)
    ts.save(tuned, tmp_path / "network")
    again = ts.load(tmp_path / "network")
    assert torch.equal(again(x, 5), tuned(x, 5))
    assert "Fine-tuned through 2 steps" in again.report.advice[-1]


def test_what_cannot_be_trained_is_refused() -> None:
    x, y = pictures(), torch.arange(24) % 3
    snn = converted("qcfs")
    with pytest.raises(ConfigError, match="timesteps is 0"):
        ts.fine_tune(snn, [(x, y)], timesteps=0)
    with pytest.raises(ConfigError, match="has no target"):
        ts.fine_tune(snn, [x])
    with pytest.raises(MissingDataError, match="epoch 2 has no batch"):
        ts.fine_tune(snn, iter([(x, y)]), timesteps=1, epochs=2)
    with pytest.raises(NonFiniteError, match="smaller learning_rate"):
        ts.fine_tune(snn, [(x, y)], timesteps=1, loss=lambda out, _: out.sum() * torch.nan)
    with pytest.raises(ConfigError, match="read out from step 2 on"):
        ts.fine_tune(converted("cs-qcfs"), [(x, y)], timesteps=1)
    small = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 3))
    images = x.float()
    trained = spiking_network(spiking_model(small), images)
    with pytest.raises(ConversionError, match="was not converted"):
        ts.fine_tune(trained, [(images, y)])

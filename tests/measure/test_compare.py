"""The error of every site against the ANN: values, properties, and what the advice names."""

import numpy as np
import pytest
import torch
from torch import nn

import topospike as ts
from topospike.contracts import ActivationComparison
from topospike.errors import ConfigError, MissingDataError
from topospike.measure import compare_activations, comparison_text
from topospike.snn.neurons import Identity


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(96, 4),
    )  # fmt: skip


def images(n: int = 20) -> torch.Tensor:
    return torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def snn() -> ts.SpikingNetwork:
    return ts.convert(network(), calibration=[images(64)])


def test_figures_are_those_of_numpy_on_all_images_at_once(snn: ts.SpikingNetwork) -> None:
    x = images()
    labels = torch.zeros(20, dtype=torch.long)
    found = compare_activations(snn, [(x[:7], labels[:7]), (x[7:], labels[7:])], timesteps=(3, 1))
    assert (found.timesteps, found.images) == ((1, 3), 20)
    assert [(record.t, record.site) for record in found.sites] == [
        (t, site) for t in (1, 3) for site in ("1", "3", "output")
    ]
    model = network()
    analog = model[:2](x).detach().double().numpy()
    node = next(node for node in snn.ann.graph.nodes if node.op == "call_module")
    *_, last = snn.watch(x, 3, [node])
    decoded = last.values[0].double().numpy()
    record = found.at(3)[0]
    gap = decoded - analog
    assert record.relative_error == pytest.approx(
        np.linalg.norm(gap) / np.linalg.norm(analog), rel=1e-6
    )
    assert record.correlation == pytest.approx(
        np.corrcoef(decoded.ravel(), analog.ravel())[0, 1], rel=1e-6
    )
    assert record.mean_bias == pytest.approx(gap.mean(), rel=1e-5)
    silent = (decoded == 0).all(0) & (analog != 0).any(0)
    assert record.dead_share == pytest.approx(silent.mean())
    limit = snn.sites["1"].threshold.double().numpy() * (1 + 1 / 2 + 1 / 3)
    assert record.saturated_share == pytest.approx((analog > limit).mean())


def test_identity_sites_have_no_error() -> None:
    snn = ts.convert(network().double(), calibration=[images().double()], neuron=Identity(True))
    found = compare_activations(snn, [images().double()], timesteps=[1, 5])
    assert max(record.relative_error or 0.0 for record in found.sites) < 1e-12
    assert all(record.saturated_share == record.dead_share == 0 for record in found.sites)
    assert found.jump is None
    assert found.advice == ()


def test_the_error_falls_with_time_and_the_run_leaves_nothing_behind(
    snn: ts.SpikingNetwork,
) -> None:
    x = images()
    before = snn(x, 4)
    found = compare_activations(snn, [x], timesteps=(1, 64))
    for early, late in zip(found.at(1), found.at(64), strict=True):
        assert (late.relative_error or 0) < 0.2 * (early.relative_error or 0)
        assert (late.correlation or 0) > 0.999
    assert torch.equal(snn(x, 4), before)
    assert not any(site._forward_hooks for site in snn.sites.values())


@pytest.mark.parametrize(
    ("threshold", "words"), [(0.01, "lie above what it can decode"), (80.0, "have not fired yet")]
)
def test_the_advice_names_the_spoilt_site_and_the_cause(threshold: float, words: str) -> None:
    snn = ts.convert(
        network(), calibration=[images()], thresholds={"3": threshold}, coding="rate", levels=4
    )
    found = compare_activations(snn, [images()], timesteps=(1, 8))
    assert found.jump == "3"
    assert len(found.advice) == 1
    assert words in found.advice[0]
    assert "3: the relative error jumps from" in found.advice[0]
    assert f"- {found.advice[0]}" in comparison_text(found)


def test_text_and_file_say_the_same(snn: ts.SpikingNetwork, tmp_path) -> None:
    found = compare_activations(snn, [images()], timesteps=(1, 2), images=5)
    assert found.images == 5
    found.save(tmp_path / "activations.json")
    assert ActivationComparison.load(tmp_path / "activations.json") == found
    lines = comparison_text(found).splitlines()
    assert lines[1].split()[:3] == ["site", "t=1", "t=2"]
    assert [line.split()[0] for line in lines[2:5]] == ["1", "3", "output"]
    assert f"{found.at(1)[0].relative_error:.2%}" in lines[2]


def test_a_silent_output_has_no_ratio() -> None:
    model = network()
    with torch.no_grad():
        for parameter in model[5].parameters():
            parameter.zero_()
    snn = ts.convert(model, calibration=[images()])
    output = compare_activations(snn, [images()], timesteps=(1,)).at(1)[-1]
    assert (output.site, output.relative_error, output.correlation) == ("output", None, None)


def test_bad_arguments_are_refused(snn: ts.SpikingNetwork) -> None:
    with pytest.raises(MissingDataError, match="no image to compare on"):
        compare_activations(snn, [])
    for steps in ((), (0, 4)):
        with pytest.raises(ConfigError, match="at least one step"):
            compare_activations(snn, [images()], timesteps=steps)

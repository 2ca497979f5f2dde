"""The converter as a user meets it: what it keeps, what it reports, what it refuses."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from topospike.conversion import conversion_text, convert
from topospike.errors import (
    ConfigError,
    ConversionError,
    MissingDataError,
    NonFiniteError,
    ShapeError,
    TopologyViolation,
)
from topospike.topology import register_mask


def small_net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(96, 20), nn.ReLU(), nn.Linear(20, 4),
    )  # fmt: skip


def images(n: int = 64, seed: int = 1) -> torch.Tensor:
    return torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dcgs", "qcfs", "cs-qcfs"])
def test_every_method_approaches_the_ann(method: str) -> None:
    model = small_net().eval()
    x = images()
    snn = convert(model, method, [x], timesteps=64, solver="max" if "qcfs" in method else None)
    error = (snn(x, timesteps=64) - model(x)).abs().amax((1, 2))
    # rate coding converges as 1/t: 32 times the steps, well below a quarter of the error
    assert error[63] < 0.25 * error[1]
    assert error[63] < 0.1


def test_model_is_not_changed_and_stays_in_training_mode() -> None:
    model = small_net()
    before = copy.deepcopy(model.state_dict())
    convert(model, calibration=[images()])
    assert model.training
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_batches_as_x_as_pairs_and_as_one_tensor_give_the_same_thresholds() -> None:
    x, model = images(), small_net()
    labels = torch.zeros(32, dtype=torch.long)
    given = [
        x,
        [x[:32], x[32:]],
        [(x[:32], labels), (x[32:], labels)],
        iter([[x[:32], labels], [x[32:], labels]]),
    ]
    found = [convert(model, calibration=calibration) for calibration in given]
    for snn in found[1:]:
        for name, site in snn.sites.items():
            torch.testing.assert_close(site.threshold, found[0].sites[name].threshold)
        assert snn.report.calibration_images == 64


def test_folding_does_not_change_the_simulation() -> None:
    model, x = small_net().double().eval(), images().double()
    model(x)
    plain, folded = (convert(model, calibration=[x], fold=fold) for fold in (False, True))
    assert folded.report.batch_norms_folded == ("1",)
    assert plain.report.batch_norms_folded == ()
    torch.testing.assert_close(plain(x, 8), folded(x, 8), rtol=1e-9, atol=1e-9)


def test_report_says_what_happened() -> None:
    snn = convert(small_net(), calibration=[images()], timesteps=8)
    report = snn.report
    assert (report.method, report.coding) == ("dcgs", "differential")
    assert report.neuron == "multi-threshold"
    assert (report.levels, report.granularity, report.calibration_images) == (4, "channel", 64)
    assert [(s.name, s.sources, s.channels) for s in report.sites] == [
        ("2", ("0",), 6),
        ("6", ("5",), 20),
    ]
    assert [(la.name, la.input) for la in report.layers] == [
        ("0", "image"),
        ("5", "spikes"),
        ("7", "spikes"),
    ]
    text = conversion_text(report)
    for part in ("dcgs", "differential", "spikes through average pooling", "thresholds"):
        assert part in text


def test_given_thresholds_are_used_and_a_wrong_name_is_corrected() -> None:
    snn = convert(small_net(), calibration=[images()], thresholds={"6": 2.5})
    assert snn.sites["6"].threshold.item() == 2.5
    assert snn.sites["2"].threshold.numel() == 6
    with pytest.raises(ConfigError, match=r"site '66'.*Known: 2, 6.*Did you mean '6'"):
        convert(small_net(), calibration=[images()], thresholds={"66": 1.0})
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(ConversionError, match="6: 1 of 1 thresholds are unusable"):
            convert(small_net(), calibration=[images()], thresholds={"6": bad})


def test_masks_travel_and_a_violated_mask_is_refused() -> None:
    model = small_net()
    mask = torch.rand(20, 96, generator=torch.Generator().manual_seed(0)) < 0.1
    register_mask(model[5], mask)
    snn = convert(model, calibration=[images()])
    inherited = snn.ann.get_buffer("5.weight_mask")
    assert torch.equal(inherited, mask)
    assert "ann.5.weight_mask" in snn.state_dict()
    assert not snn.ann.get_parameter("5.weight")[~mask].any()
    with torch.no_grad():
        model[5].weight[~mask] = 0.5
    with pytest.raises(TopologyViolation, match=r"5\.weight"):
        convert(model, calibration=[images()])


def test_a_masked_layer_outside_the_graph_is_refused() -> None:
    model = small_net()
    model.add_module("unused", nn.Identity())
    model[8].add_module("fc", nn.Linear(3, 3))
    register_mask(model[8].fc, torch.eye(3, dtype=torch.bool))
    with pytest.raises(ConversionError, match=r"unused\.fc\.weight has a mask but is not read"):
        convert(model, calibration=[images()])


def test_hopeless_models_are_refused_with_the_reason() -> None:
    with pytest.raises(ConversionError, match="no activation at all"):
        convert(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), calibration=[images()])
    with pytest.raises(ConversionError, match=r"uses GELU"):
        convert(
            nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.GELU(), nn.Linear(4, 2)),
            calibration=[images()],
            scheme="relu",
        )
    with pytest.raises(ConversionError, match=r"uses GELU"):
        convert(
            nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.GELU(), nn.Linear(4, 2)),
            "qcfs",
            calibration=[images()],
        )


def test_bad_calibration_data_is_refused() -> None:
    model = small_net()
    for nothing in (None, [], iter([]), [images()[:0]]):
        with pytest.raises(MissingDataError, match="no calibration images"):
            convert(model, calibration=nothing)
    with pytest.raises(ConversionError, match="every value is 0"):
        convert(model, calibration=[torch.zeros(8, 1, 8, 8)])
    broken = images()
    broken[3, 0, 2, 2] = float("nan")
    with pytest.raises(NonFiniteError, match="batch 1 holds NaN"):
        convert(model, calibration=[images(), broken])
    with pytest.raises(ConfigError, match="calibration batch 0 is"):
        convert(model, calibration=[["not", "tensors"]])  # pyright: ignore[reportArgumentType]


def test_nan_weights_are_named_at_the_site_they_reach() -> None:
    model = small_net()
    with torch.no_grad():
        model[5].weight[0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match="6"):
        convert(model, calibration=[images()])


def test_unknown_options_are_corrected() -> None:
    with pytest.raises(ConfigError, match=r"unknown conversion method 'dgcs'.*'dcgs'"):
        convert(small_net(), "dgcs", [images()])
    with pytest.raises(ConfigError, match="unknown coding"):
        convert(small_net(), calibration=[images()], coding="diferential")
    with pytest.raises(ConfigError, match="unknown threshold solver"):
        convert(small_net(), calibration=[images()], solver="optimum")
    with pytest.raises(ConfigError, match="unknown granularity"):
        convert(small_net(), calibration=[images()], granularity="chanel")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="timesteps is 0"):
        convert(small_net(), calibration=[images()], timesteps=0)
    with pytest.raises(ConfigError, match="levels is 0"):
        convert(small_net(), calibration=[images()], levels=0)


def test_bad_input_to_the_spiking_network_is_refused() -> None:
    snn = convert(small_net(), calibration=[images()])
    with pytest.raises(ConfigError, match="timesteps is 0"):
        snn(images(), timesteps=0)
    with pytest.raises(ShapeError, match=r"\(64, 1, 8, 8\)|required"):
        snn(torch.randn(2, 3, 8, 8), timesteps=2)
    broken = images()
    broken[0, 0, 0, 0] = float("inf")
    with pytest.raises(NonFiniteError, match=r"NaN or infinite values \(1 of 4096\)"):
        snn(broken, timesteps=2)


class Swapped(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x.flatten(1)) @ torch.ones(64, 3)


def test_a_network_without_weight_layers_still_runs() -> None:
    snn = convert(Swapped(), calibration=[images()], timesteps=8)
    x = images(4)
    torch.testing.assert_close(snn(x, 256)[-1], Swapped()(x), atol=0.2, rtol=0.02)

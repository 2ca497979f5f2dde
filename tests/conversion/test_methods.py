"""The relatives of QCFS: SRP, offset-spike calibration, SlipReLU and signed integrate-and-fire."""

import copy
import dataclasses
import functools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from topospike.contracts import ConversionReport, to_json
from topospike.conversion import (
    METHODS,
    conversion_text,
    convert,
    quantise_activations,
)
from topospike.conversion.methods.method import method_of
from topospike.conversion.methods.uneven_spikes import (
    OffsetSpike,
    ResidualMembrane,
    offset_membrane,
)
from topospike.errors import ConfigError, ConversionError
from topospike.export import load, save
from topospike.files.reading import decoded
from topospike.measure import evaluate
from topospike.models.qcfs import SlipReLU
from topospike.pipeline.names import check_names
from topospike.recipe import ConversionSettings, Recipe
from topospike.snn import SpikingNetwork
from topospike.snn.executors.steps import Visitor
from topospike.snn.neurons import IntegrateAndFire, MultiThreshold
from topospike.snn.site import START, Site, site_step

ORACLES = Path(__file__).parents[1] / "oracles" / "qcfs"


def images(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(24, 1, 8, 8, dtype=torch.float64, generator=generator)


def relu_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(96, 24), nn.ReLU(), nn.Linear(24, 3),
    ).double().eval()  # fmt: skip


@functools.cache
def trained(kind: str = "s-qcfs", levels: int = 4) -> nn.Module:
    return quantise_activations(
        relu_net(), images(), kind=kind, levels=levels, calibration=images(), percentile=0.99
    )


@functools.cache
def converted(method: str) -> SpikingNetwork:
    return convert(trained(), method, images(1))


@pytest.mark.parametrize("i", [0, 1])
def test_srp_equals_the_reference(i: int) -> None:
    """Spikes of both phases from the site's own steps on decoded values; tolerance 1e-6."""
    with np.load(ORACLES / "variants.npz", allow_pickle=False) as arrays:
        data = {k.removeprefix(f"srp_{i}_"): torch.from_numpy(v) for k, v in arrays.items()
                if k.startswith(f"srp_{i}_")}  # fmt: skip
    tau, x = int(data["tau"]), data["x"].double()
    site = Site("a", gated=True, neuron=IntegrateAndFire(), coding=ResidualMembrane(tau))
    site.threshold, state = data["theta"].double(), START
    for t in range(1, len(x) + 1):
        start = 0 if t <= tau else tau
        state = site_step(site, t, x[start:t].mean(0), state)
        expected = data["out"][start:t].double().mean(0)
        torch.testing.assert_close(state.decoded, expected, rtol=0, atol=1e-6)
        torch.testing.assert_close(state.spikes, data["out"][t - 1].double(), rtol=0, atol=1e-6)
    assert torch.equal(state.extra.float(), data["mask"])


def test_srp_is_qcfs_in_its_first_phase_and_silences_later() -> None:
    x, plain = images(1), converted("qcfs")
    srp = convert(trained(), "srp", x, presimulation=3)
    assert torch.equal(srp(x, 3), plain(x, 3))
    assert torch.equal(srp(x, 7), srp(x, 7))
    silenced = {}
    for step in srp.watch(x, 8):
        for name, held in step.sites.items():
            if step.t == 3:
                silenced[name] = held.extra == 0
            elif step.t > 3:
                assert not held.spikes[silenced[name]].any()
                assert not held.decoded[silenced[name]].any()
    assert all(bool(where.any()) and not bool(where.all()) for where in silenced.values())
    assert any("first phase of srp" in sentence for sentence in srp.report.advice)


def test_srp_counts_the_energy_of_both_phases() -> None:
    batches = [(images(1), torch.arange(24) % 3)]
    srp, plain = (evaluate(converted(method), batches, 8) for method in ("srp", "qcfs"))
    assert srp.sops[:4] == plain.sops[:4]
    assert srp.sops[4] > srp.sops[3]
    assert srp.sops[-1] < plain.sops[-1]


def test_the_event_executor_follows_offset_spikes_but_not_the_two_phases() -> None:
    x, shifted = images(1), converted("offset-spike")
    events = shifted(x, 6, executor="event")
    torch.testing.assert_close(events, shifted(x, 6), rtol=0, atol=1e-9)
    with pytest.raises(ConfigError, match=r"executor is 'event'; a network of srp"):
        converted("srp")(x, 6, executor="event")


def test_offset_membranes_by_hand() -> None:
    """Columns: nothing to do; one spike too many, twice; nothing; below 0 without a spike."""
    currents = torch.tensor([
        [0.7, 0.7, 2.6, 0.0, -1.0],
        [0.1, -1.5, -5.0, 0.4, 0.0],
        [0.1, 0.0, 0.0, 1.0, 0.0],
    ])  # fmt: skip
    expected = [0.5, -0.5, 0.5 - (3.1 - 0.999), 0.5, 0.5]
    torch.testing.assert_close(offset_membrane(currents), torch.tensor(expected))
    late = offset_membrane(torch.tensor([[-0.8], [-0.1], [3.9]]))
    torch.testing.assert_close(late, torch.tensor([0.5 + 1.001 + 0.3]))
    early = offset_membrane(torch.tensor([[-0.3], [-0.2], [2.9]]))
    torch.testing.assert_close(early, torch.tensor([0.5 + 1.0]))
    always = offset_membrane(torch.full((3, 1), 5.0))
    assert always.item() == 0.5


def counts(currents: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    neuron, v, total = IntegrateAndFire(), start.clone(), 0
    for current in currents:
        v = v + current
        s = neuron.fire(v, torch.tensor(1.0))
        v, total = v - s, total + s
    return total


def test_offset_spikes_bring_the_counts_nearer_to_qcfs() -> None:
    """Random sequences: the error of the spike count over rho steps falls by a wide margin."""
    generator = torch.Generator().manual_seed(0)
    currents = 0.3 + 0.8 * torch.randn(4, 20_000, generator=generator)
    wanted = torch.floor(currents.sum(0) + 0.5).clamp(0, 4)
    before = (counts(currents, torch.full((20_000,), 0.5)) - wanted).abs()
    after = (counts(currents, offset_membrane(currents)) - wanted).abs()
    assert before.mean() > 0.2
    assert after.mean() < 0.25 * before.mean()


def test_offset_spike_networks_are_nearer_to_their_ann() -> None:
    x = images(1)
    ann = trained()(x).detach()
    plain, shifted = converted("qcfs"), converted("offset-spike")
    error = [float((snn(x, 4)[-1] - ann).norm()) for snn in (plain, shifted)]
    assert error[1] < 0.5 * error[0]
    assert torch.equal(shifted(x, 6), shifted(x, 6))
    torch.testing.assert_close(shifted(x[:5], 6), shifted(x, 6)[:, :5], rtol=0, atol=1e-12)
    torch.testing.assert_close(shifted.analog(x), ann)
    assert any("calibration before each batch" in sentence for sentence in shifted.report.advice)


def test_a_watched_site_sees_the_spikes_the_run_will_send() -> None:
    """The time-batched calibration of a later site uses the calibrated output of earlier ones."""
    x, snn = images(1), convert(trained(), "offset-spike", images(1), presimulation=3)
    received, sent = {}, {}

    def watched(site: Site, r_in: torch.Tensor) -> torch.Tensor:
        received[site.name], _ = site.coding.presimulate(site, r_in)
        return received[site.name]

    Visitor(snn.ann, watched).run(x.repeat(3, 1, 1, 1))
    for step in snn.watch(x, 3):
        for name, held in step.sites.items():
            sent.setdefault(name, []).append(held.decoded.clone())
    for name in snn.sites:
        torch.testing.assert_close(received[name], torch.cat(sent[name]), rtol=0, atol=1e-9)


def test_slip_relu_starts_its_neurons_at_its_own_shift() -> None:
    model, x = copy.deepcopy(trained("slip-relu", levels=16)), images(1)
    for module in model.modules():
        if isinstance(module, SlipReLU):
            module.initial_membrane = 0.25
    snn = convert(model, "slip-relu", x)
    assert {site.neuron.initial_membrane for site in snn.sites.values()} == {0.25}
    torch.testing.assert_close(snn.analog(x), model(x).detach())
    theta = snn.sites["2"].threshold
    assert torch.equal(theta, model[2].theta.detach())


def test_signed_neurons_may_take_back_and_need_no_training() -> None:
    model, x = relu_net(), images(1)
    plain, signed = (convert(model, name, x, timesteps=16) for name in ("qcfs", "signed-if"))
    negative = 0
    for step in signed.watch(x, 16):
        negative += sum(int((held.spikes < 0).sum()) for held in step.sites.values())
    ann = model(x).detach()
    error = [float((snn(x, 16)[-1] - ann).norm()) for snn in (plain, signed)]
    assert negative > 0
    assert error[1] < error[0]
    of_trained = convert(trained(), "signed-if", x)
    assert of_trained.report.solver == "trained"


@pytest.mark.parametrize("method", ["srp", "offset-spike", "slip-relu"])
def test_a_network_without_the_training_is_refused(method: str) -> None:
    message = (
        rf"'{method}' needs a network trained with .*has rectifiers only.*quantise_activations"
    )
    with pytest.raises(ConversionError, match=message):
        convert(relu_net(), method, images())


def test_slip_relu_refuses_plain_qcfs() -> None:
    with pytest.raises(ConversionError, match=r"SlipReLU activations, but this one has QCFS"):
        convert(trained(), "slip-relu", images())


def test_options_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"'qcfs' has no option 'presim.*srp, offset-"):
        convert(trained(), "qcfs", images(), presimulation=4)
    with pytest.raises(ConfigError, match=r"presimulation is 0; a whole number"):
        convert(trained(), "srp", images(), presimulation=0)
    with pytest.raises(ConfigError, match=r"has no option 'level'.*Did you mean 'levels'"):
        convert(relu_net(), "dcgs", images(), level=4)
    with pytest.raises(ConfigError, match=r"levels is 4, but the multi-thr.* have 2"):
        convert(relu_net(), "dcgs", images(), levels=4, neuron=MultiThreshold(2, gated=True))
    with pytest.raises(ConfigError, match=r"levels given beside a method object"):
        convert(relu_net(), METHODS["dcgs"](), images(), levels=4)


OUTSIDE = {
    "solver": ["best", 1],
    "granularity": ["pixel"],
    "quantisation_levels": [0, -1, 2.0, True, "4"],
    "percentile": [0, 1.1, float("nan"), "0.9"],
    "scale": [0, -1.0, float("inf"), float("nan")],
    "scheme": ["everywhere"],
    "coding": ["phase"],
    "neuron": ["lif", 1],
    "levels": [0, 1 << 16, 4.0],
    "stat": ["mean"],
    "presimulation": [0, -1, 2.5],
    "schedule": ["4", (0,), (4.5,)],
    "tolerance": [0.0, 1.5, "small"],
    "pixels": ["yes", 1],
    "passes": [0, 1.5],
    "steps": [0, 2.5, "8"],
    "readout_delay": [-1, 1.5],
    "calibrated": [1, "no"],
}


@pytest.mark.parametrize("method", METHODS)
def test_every_option_has_a_range_and_is_stated(method: str) -> None:
    kind = METHODS[method]
    options = kind().options()
    assert set(options) == {field.name for field in dataclasses.fields(kind)}
    assert set(options) <= set(OUTSIDE)
    assert kind.of(dict.fromkeys(options)) == kind()
    for name in options:
        for value in OUTSIDE[name]:
            with pytest.raises(ConfigError):
                kind(**{name: value})


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_the_report_gives_the_method_back(method: str) -> None:
    made = METHODS[method](percentile=0.9, quantisation_levels=3)
    if method == "dcgs":
        made = dataclasses.replace(made, neuron=MultiThreshold(3, gated=False))
    kind = made.activations
    snn = convert(relu_net() if kind is None else trained(kind), made, images())
    assert (
        method_of(
            decoded(json.dumps(to_json(snn.report)).encode(), ConversionReport, "report.json")
        )
        == made
    )
    assert "percentile=0.9" in conversion_text(snn.report)


@dataclass(frozen=True, kw_only=True)
class HalvingMethod(METHODS["qcfs"]):
    """A method of a user: integrate-and-fire neurons with half the thresholds."""

    name, source = "halving", "this test, 2026"
    share: float = 0.5

    def finish(self, snn, images):
        for site in snn.sites.values():
            site.threshold = site.threshold * self.share
        return snn


def test_a_method_of_ones_own_is_known_everywhere(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(METHODS, "_table", dict(METHODS))
    METHODS.register("halving", HalvingMethod)
    plain = convert(relu_net(), "qcfs", images())
    snn = convert(relu_net(), "halving", images(), share=0.25)
    for name, site in snn.sites.items():
        assert torch.equal(site.threshold, plain.sites[name].threshold / 4)
        (reported,) = (one for one in snn.report.sites if one.name == name)
        assert reported.threshold_max == float(site.threshold.max())
    check_names(Recipe(convert=(ConversionSettings("halving", {"share": 0.25}),)))
    save(snn, tmp_path)
    assert torch.equal(load(tmp_path)(images(), 4), snn(images(), 4))


@pytest.mark.parametrize("coding", [ResidualMembrane, OffsetSpike])
def test_the_variants_need_a_step_of_presimulation(coding) -> None:
    with pytest.raises(ConfigError, match="presimulation is 0"):
        coding(0)


def test_srp_refuses_a_max_pool_it_could_not_count() -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.relu, self.fc = (
                nn.Conv2d(1, 3, 3, padding=1),
                nn.ReLU(),
                nn.Linear(96, 3),
            )
            self.pool = nn.MaxPool2d(2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.relu(self.conv(x))
            return self.fc(torch.cat([self.pool(y), self.pool(-y)], 1).flatten(1))

    model = quantise_activations(Pooled().double().eval(), images())
    with pytest.raises(ConversionError, match=r"fc is fed through a max-pool .* two phases of srp"):
        convert(model, "srp", images())


def test_every_method_names_its_source() -> None:
    assert set(METHODS) >= {
        "dcgs", "qcfs", "cs-qcfs", "slip-relu", "signed-if", "srp", "offset-spike", "sigma-delta",
    }  # fmt: skip
    assert all(", 20" in m.source or " 20" in m.source for m in METHODS.values())


@pytest.mark.parametrize("method", ["srp", "offset-spike"])
def test_networks_with_a_presimulation_are_saved_as_what_they_are(method: str, tmp_path) -> None:
    save(converted(method), tmp_path)
    again = load(tmp_path)
    codings = [[site.coding for site in snn.sites.values()] for snn in (again, converted(method))]
    assert codings[0] == codings[1]
    assert torch.equal(again(images(1), 6), converted(method)(images(1), 6))

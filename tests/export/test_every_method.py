"""Whatever the method, a form gives the same outputs as the network, or is refused by name."""

import functools

import pytest
import torch
from torch import nn

import topospike as ts
from topospike.conversion import METHODS
from topospike.conversion.methods.method import EXPORTS
from topospike.errors import ConversionError
from topospike.export import event_network, export_csr, export_nir, read_csr, simulate_nir
from topospike.models.qcfs import SlipReLU
from topospike.snn.neurons import IntegrateAndFire

STEPS = 8


def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(64, 4, dtype=torch.float64, generator=generator)


@functools.cache
def converted(method: str) -> ts.SpikingNetwork:
    torch.manual_seed(0)
    layers = [nn.Linear(4, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 3)]
    model = nn.Sequential(*layers).double()
    kind = METHODS[method].activations
    if kind is not None:
        model = ts.quantise_activations(model, images(), kind=kind, calibration=images())
        for module in model.modules():
            if isinstance(module, SlipReLU):
                module.initial_membrane = 0.2
    return ts.convert(model, method, images())


def nir_outputs(snn: ts.SpikingNetwork, path) -> torch.Tensor:
    export_nir(snn, path / "net.nir")
    run = simulate_nir(path / "net.nir", images().expand(STEPS, 64, 4))
    return run.output.mean(0)


def outputs(form: str, snn: ts.SpikingNetwork, path) -> torch.Tensor:
    return nir_outputs(snn, path) if form == "nir" else event_network(snn, STEPS)(images())


@pytest.mark.slow
@pytest.mark.parametrize("form", ["nir", "event-network"])
@pytest.mark.parametrize("method", METHODS)
def test_the_outputs_are_the_networks_own_or_the_form_is_refused(method, form, tmp_path):
    snn = converted(method)
    if form not in METHODS[method].exports:
        with pytest.raises(ConversionError, match=rf"of method '{method}'.*'{form}'.*export_csr"):
            outputs(form, snn, tmp_path)
    elif form == "nir" and not all(
        isinstance(s.neuron, IntegrateAndFire) for s in snn.sites.values()
    ):
        with pytest.raises(ConversionError, match=r"site 1 holds .* neurons.*export_csr"):
            outputs(form, snn, tmp_path)
    else:
        found = outputs(form, snn, tmp_path)
        assert torch.allclose(found, snn(images(), timesteps=STEPS)[-1], atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_csr_files_say_the_method_and_every_option(method, tmp_path):
    snn = converted(method)
    conversion = read_csr(export_csr(snn, tmp_path)).description["conversion"]
    assert (conversion["method"], conversion["options"]) == (method, METHODS[method]().options())


def test_methods_name_known_forms():
    assert all(method.exports <= set(EXPORTS) for method in METHODS.values())

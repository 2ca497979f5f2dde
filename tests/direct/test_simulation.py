import pytest
import torch
from torch import nn

import topospike as ts
from topospike.direct import spiking_model, spiking_network
from topospike.errors import ConfigError, ShapeError
from topospike.measure import Conventions
from topospike.recipe import DirectSettings
from topospike.topology import register_mask


@pytest.fixture
def loud(net):
    """The small network with weights so large that every population fires, and images."""
    with torch.no_grad():
        for layer in (net.conv2, net.fc1, net.fc2):
            layer.weight.mul_(5)
    x = 2 * torch.randn(10, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    model = spiking_model(net, DirectSettings(timesteps=5))
    model.train()(x)
    return model.eval(), x


def test_the_engine_answers_as_the_model_at_every_step(loud):
    model, x = loud
    network = spiking_network(model, x)
    answers = network(x, 5)
    outputs = torch.stack([output for _, output in zip(range(5), model.steps(x), strict=False)])
    assert outputs.any()
    for t in range(1, 6):
        torch.testing.assert_close(answers[t - 1], outputs[:t].mean(0))
    torch.testing.assert_close(network.analog(x), model(x))


@torch.no_grad()
def by_hand(model, x, timesteps):
    """Synaptic operations of every layer: one for each link and spike, by a loop over both."""
    arriving = {"conv2": [], "fc1": [], "fc2": []}
    hooks = [
        model.get_submodule(name).register_forward_pre_hook(
            lambda module, inputs, name=name: arriving[name].append(inputs[0])
        )
        for name in arriving
    ]
    for _, _ in zip(range(timesteps), model.steps(x), strict=False):
        pass
    for hook in hooks:
        hook.remove()
    counts = {}
    for name, steps in arriving.items():
        layer = model.get_submodule(name)
        mask = getattr(layer, "weight_mask", torch.ones_like(layer.weight)).to(x.dtype)
        total = 0.0
        for spikes in steps[:timesteps]:
            assert ((spikes == 0) | (spikes == 1)).all()
            if name == "conv2":
                total += float(nn.functional.conv2d(spikes, mask, padding=1).sum())
            else:
                total += float((spikes @ mask.T).sum())
        counts[name] = total / len(x)
    return counts


@pytest.mark.slow
def test_operations_are_spikes_times_existing_links(loud):
    model, x = loud
    generator = torch.Generator().manual_seed(2)
    for name, share in (("conv2", 0.5), ("fc1", 0.1)):
        weight = model.get_submodule(name).weight
        mask = torch.rand(weight.shape, generator=generator) < share
        register_mask(model.get_submodule(name), mask)
        with torch.no_grad():
            weight.mul_(3)
    counts = by_hand(model, x, 5)
    assert min(counts.values()) > 0
    labels = torch.arange(10) % 3
    result = ts.evaluate(
        spiking_network(model, x),
        [(x, labels)],
        5,
        conventions=Conventions(first_layer="mac_per_step"),
    )
    found = {layer.name: layer.sops[-1] for layer in result.layers}
    assert {name: found[name] for name in counts} == pytest.approx(counts)
    fed = {layer.name: layer.input for layer in result.layers}
    assert fed == {"conv1": "image", "conv2": "maxpool", "fc1": "spikes", "fc2": "spikes"}
    dense = 64 * 6 * 9 - 6 * (4 * 8 * 3 - 4)
    assert result.macs_per_step == tuple(t * dense for t in range(1, 6))
    expected = float((model(x).argmax(1) == labels).double().mean())
    assert result.accuracy[-1] == result.ann_accuracy == pytest.approx(expected)
    energy = 4.6e-12 * result.macs + 0.9e-12 * result.sops[-1]
    assert result.energy_joule[-1] == pytest.approx(energy)


def test_the_report_names_populations_and_their_health(loud):
    model, x = loud
    report = spiking_network(model, x).report
    assert (report.method, report.coding, report.neuron) == ("direct", "spikes", "plif, lif")
    assert [site.name for site in report.sites] == list(model.neurons)
    assert [site.sources for site in report.sites] == [("conv1",), ("conv2",), ("fc1",), ("fc2",)]
    assert all(0 <= site.dead_share < 1 for site in report.sites)


def test_masks_are_inherited_and_the_model_is_not_changed(loud):
    model, x = loud
    register_mask(model.get_submodule("fc1"), torch.rand(10, 128) < 0.5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    network = spiking_network(model, x)
    assert torch.equal(network.ann.get_buffer("fc1.weight_mask"), before["fc1.weight_mask"])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_residual_networks_can_be_simulated():
    from topospike.models import resnet18

    torch.manual_seed(0)
    model = spiking_model(resnet18(4, widths=(4, 4, 4, 4), image_size=(8, 8)))
    x = 3 * torch.randn(4, 3, 8, 8)
    model.train()(x)
    model.eval()
    torch.testing.assert_close(spiking_network(model, x)(x, 8)[-1], model(x))


def test_bad_input_is_refused(loud):
    model, x = loud
    network = spiking_network(model, x)
    with pytest.raises(ShapeError, match=r"\(batch, 1, 8, 8\)"):
        network(x[:, :, :4], 2)
    with pytest.raises(ConfigError, match="timesteps is 0"):
        network(x, 0)

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from topospike.direct import spiking_model
from topospike.errors import ConfigError, ConversionError
from topospike.models import conv6fc2
from topospike.recipe import DirectSettings

# our name of a layer of 6Conv2FC -> the reference's
LAYERS = {f"features.{ours}": f"feature.{theirs}" for ours, theirs in
          {0: 0, 3: 1, 7: 3, 10: 4, 14: 6, 17: 7}.items()}  # fmt: skip
LINEAR = {"classifier.0": "fc_prun.0.fc", "classifier.2": "fc.0.fc"}


@pytest.fixture
def tiny(oracle):
    """The reference's small 6Conv2FC with its weights, its numbers, images and labels."""
    stored = {name: torch.as_tensor(value) for name, value in oracle("tiny_net").items()}
    net = conv6fc2(10, widths=(4, 5, 6, 6, 8, 8), hidden=(12,))
    with torch.no_grad():
        for ours, theirs in LAYERS.items():
            net.get_parameter(f"{ours}.weight").copy_(stored[f"param/{theirs}.conv.weight"])
            norm = net.get_submodule(norm_of(ours))
            for name in ("weight", "bias", "running_mean", "running_var"):
                getattr(norm, name).copy_(stored[f"param/{theirs}.bn.{name}"])
        for ours, theirs in LINEAR.items():
            for name in ("weight", "bias"):
                net.get_parameter(f"{ours}.{name}").copy_(stored[f"param/{theirs}.{name}"])
    return spiking_model(net), stored, stored["x"].float(), stored["y"]


def norm_of(layer):
    return f"features.{int(layer.split('.')[1]) + 1}"


def spike_sums(model, x):
    """Spikes a step and image of every population, and the output rates."""
    seen = {name: [] for name in model.neurons}
    hooks = [
        neuron.register_forward_hook(
            lambda module, _, spikes, name=name: seen[name].append(
                spikes.detach().flatten(1).sum(1)
            )
        )
        for name, neuron in model.neurons.items()
    ]
    rates = model(x)
    for hook in hooks:
        hook.remove()
    return {name: torch.stack(sums) for name, sums in seen.items()}, rates


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_every_spike_equals_the_reference(tiny, mode):
    model, stored, x, _ = tiny
    if mode == "eval":
        model(x)  # the reference evaluates after a training pass
    sums, rates = spike_sums(model.train(mode == "train"), x)
    places = ("l1", "l2", "l4", "l5", "l7", "l8", "l10")
    for place, name in zip(places, sums, strict=False):
        assert torch.equal(sums[name], stored[f"{mode}/spike_sum_{place}"]), name
    torch.testing.assert_close(rates.detach(), stored[f"{mode}/out_rate"], atol=1e-6, rtol=0)


def test_loss_gradients_and_batch_statistics_equal_the_reference(tiny):
    model, stored, x, y = tiny
    loss = F.mse_loss(model.train()(x), F.one_hot(y, 10).float())
    assert loss.item() == pytest.approx(float(stored["train/loss"]), abs=1e-6)
    loss.backward()
    pairs = []
    for ours, theirs in LAYERS.items():
        neuron = model.neurons[model.feeding[ours]]
        norm = model.get_submodule(norm_of(ours))
        pairs += [
            (model.get_parameter(f"{ours}.weight").grad, f"grad/{theirs}.conv.weight"),
            (norm.weight.grad, f"grad/{theirs}.bn.weight"),
            (norm.bias.grad, f"grad/{theirs}.bn.bias"),
            (neuron.w.grad, f"grad/{theirs}.node.w"),
            (neuron.width.grad, f"grad/{theirs}.node.act_fun.alpha"),
            (norm.running_mean, f"train/after/{theirs}.bn.running_mean"),
            (norm.running_var, f"train/after/{theirs}.bn.running_var"),
        ]
    for ours, theirs in LINEAR.items():
        for name in ("weight", "bias"):
            pairs.append((model.get_parameter(f"{ours}.{name}").grad, f"grad/{theirs}.{name}"))
    for found, name in pairs:
        torch.testing.assert_close(found, stored[name], atol=1e-6, rtol=1e-3, msg=name)


def test_6conv2fc_has_the_published_parameters():
    with torch.device("meta"):
        model = spiking_model(conv6fc2(10))
    assert sum(p.numel() for p in model.parameters()) == 21_361_046
    kinds = [neuron.settings.kind for neuron in model.neurons.values()]
    assert kinds == ["plif"] * 6 + ["lif"] * 2
    assert model.hidden_layers == (*LAYERS, "classifier.0")


def test_activations_are_found_however_they_are_written(net, spiking):
    assert list(spiking.feeding) == ["conv1", "conv2", "fc1", "fc2"]
    assert set(net.state_dict()) <= set(spiking.state_dict())
    assert spiking.get_parameter("conv1.weight") is net.conv1.weight


class Reused(nn.Module):
    """One ReLU module at two places."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.act = nn.Linear(4, 5), nn.Linear(5, 6), nn.ReLU()
        self.c = nn.Linear(6, 2)

    def forward(self, x):
        return self.c(self.act(self.b(self.act(self.a(x)))))


def test_a_module_called_twice_becomes_two_populations():
    model = spiking_model(Reused(), DirectSettings(timesteps=3))
    assert len(model.neurons) == 3
    assert model(torch.randn(7, 4)).shape == (7, 2)


def test_batches_do_not_see_each_other(spiking):
    x = torch.randn(4, 1, 8, 8)
    spiking.eval()
    first = spiking(x)
    assert torch.equal(spiking(x), first)
    assert all(neuron.membrane is None for neuron in spiking.neurons.values())


def test_a_copy_computes_the_same_and_shares_nothing(spiking):
    x = torch.randn(4, 1, 8, 8)
    spiking.eval()
    twin = copy.deepcopy(spiking)
    assert torch.equal(twin(x), spiking(x))
    assert twin.get_parameter("fc1.weight") is not spiking.get_parameter("fc1.weight")


def test_membrane_output_is_the_mean_of_the_classifiers_inputs(net):
    model = spiking_model(net, DirectSettings(timesteps=3, output="membrane")).eval()
    x = torch.randn(2, 1, 8, 8)
    collected = []
    model.get_submodule("fc2").register_forward_hook(lambda *a: collected.append(a[2]))
    torch.testing.assert_close(model(x), torch.stack(collected).mean(0))
    assert "fc2" not in model.feeding


def test_a_network_without_activations_is_refused():
    with pytest.raises(ConversionError, match=r"no activation.*nn\.ReLU"):
        spiking_model(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2)

    def forward(self, x):
        return torch.relu(self.fc(x)) if x.sum() > 0 else self.fc(x)


def test_a_network_that_cannot_be_traced_is_refused():
    with pytest.raises(ConversionError, match=r"Branching cannot be traced.*control flow"):
        spiking_model(Branching())


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"timesteps": 0}, "timesteps is 0"), ({"output": "spike"}, "Did you mean 'spikes'")],
)
def test_impossible_settings_are_refused(net, changes, message):
    with pytest.raises(ConfigError, match=message):
        spiking_model(net, DirectSettings(**changes))

import pytest
import torch

from topospike.direct import Dpap, SdSnn, spiking_model, structure_rule
from topospike.direct.rule import percentile
from topospike.errors import CheckpointError, ConfigError
from topospike.recipe import DirectSettings
from topospike.topology import register_mask
from topospike.train import TopologyController


@pytest.mark.parametrize("percent", [0.0, 12.5, 66.0, 75.0, 99.0, 100.0])
def test_percentiles_interpolate_linearly(percent):
    values = torch.randn(7, 13, generator=torch.Generator().manual_seed(0))
    expected = torch.quantile(values.double().flatten(), percent / 100)
    torch.testing.assert_close(percentile(values, percent), expected)


@pytest.mark.parametrize("kind", [Dpap, SdSnn])
def test_rules_are_controllers_with_masks_of_ones(spiking, kind):
    rule = kind(spiking)
    assert isinstance(rule, TopologyController)
    assert all(rule.mask(layer).all() for layer in rule.layers)
    record = rule.update_topology(0)
    assert (record.sparsity, record.anp, record.epoch) == (0.0, 1.0, 0)
    assert record.layers["fc1"].active_after == 1280


def test_the_settings_choose_the_rule(spiking):
    assert structure_rule(spiking, DirectSettings(rule="dense"), epochs=3) is None
    rule = structure_rule(spiking, DirectSettings(rule="sd-snn", patience=3), epochs=3)
    assert isinstance(rule, SdSnn)
    assert rule.stages.patience == 3


def test_a_masked_layer_cannot_be_taken_over(net):
    register_mask(net.fc1, torch.ones(10, 128, dtype=torch.bool))
    with pytest.raises(ConfigError, match="already has 'weight_mask'"):
        Dpap(spiking_model(net))


def test_a_network_without_hidden_layers_is_refused():
    net = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(4, 2))
    with pytest.raises(ConfigError, match="dpap found no layer to prune"):
        Dpap(spiking_model(net))


def test_the_state_of_another_rule_is_refused(net, spiking):
    state = Dpap(spiking).state_dict()
    other = SdSnn(spiking_model(type(net)()))
    with pytest.raises(CheckpointError, match="rule is 'dpap', here it is 'sd-snn'"):
        other.load_state_dict(state)

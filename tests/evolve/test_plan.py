import pytest
import torch
from torch import nn

from topospike.errors import ConfigError
from topospike.evolve import sparsify
from topospike.topology import get_mask


def plan(model, sparsity, **options):
    return sparsify(model, sparsity=sparsity, epochs=4, **options).layers


def test_one_number_takes_all_but_the_classifier(small_network):
    model = small_network()
    layers = plan(model, 0.9)
    assert list(layers) == ["0", "3", "7", "9"]
    assert get_mask(model[11]) is None
    assert [plan.layer.kind for plan in layers.values()] == ["conv", "conv", "linear", "linear"]
    assert [layer.links for layer in layers.values()] == [6, 44, 77, 39]
    assert layers["7"].layer.parameter == "7.weight"


def test_names_win_over_kinds_and_zero_is_dense(small_network):
    layers = plan(small_network(), {"linear": 0.9, "conv": 0.0, "9": 0.5, "11": 0.25})
    assert {name: layer.sparsity for name, layer in layers.items()} == {
        "7": 0.9,
        "9": 0.5,
        "11": 0.25,
    }
    assert layers["11"].layer.is_classifier


def test_scores_go_by_kind(small_network):
    layers = plan(small_network(), 0.5, linear_score="RA-L3p", conv_score="CH2-L3n")
    assert [layer.score for layer in layers.values()] == ["CH2-L3n", "CH2-L3n", "RA-L3p", "RA-L3p"]


def test_depthwise_convolutions_stay_dense():
    model = nn.Sequential(
        nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 8, 1), nn.Flatten(), nn.Linear(8, 2)
    )
    assert list(plan(model, 0.5)) == ["1"]
    with pytest.raises(ConfigError, match="'0' is a depthwise convolution"):
        plan(nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Linear(4, 2)), {"0": 0.5})


def test_decaying_rules_start_denser(small_network):
    half = plan(small_network(), {"linear": 0.9, "conv": 0.3}, rule="chtss")
    assert [layer.initial_sparsity for layer in half.values()] == [0.3, 0.3, 0.5, 0.5]
    convs = plan(small_network(), 0.9, rule="chtss", initial_sparsity={"conv": 0.2})
    assert [layer.initial_sparsity for layer in convs.values()] == [0.2, 0.2, 0.9, 0.9]


@pytest.mark.parametrize("sparsity", [1.0, -0.1, float("nan"), {"conv": 1.5}])
def test_a_sparsity_out_of_range_is_refused(small_network, sparsity):
    with pytest.raises(ConfigError, match=r"sparsity\.\w+ is .*; at least 0 .* below 1"):
        plan(small_network(), sparsity)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": {"liner": 0.9}}, r"'liner'.*Did you mean 'linear'"),
        ({"sparsity": 0.0}, "selects no layer to sparsify"),
        ({"sparsity": 0.9, "initial_sparsity": 0.5}, "needs a rule whose density"),
        ({"sparsity": 0.9, "rule": "chts2"}, r"unknown rule 'chts2'.*Did you mean 'chts"),
        ({"sparsity": 0.9, "initial_topology": "ring"}, "unknown initial topology 'ring'"),
        ({"sparsity": 0.9, "initial_topology": "csti"}, "'0' is a convolution"),
        ({"sparsity": {"linear": 0.9}, "initial_topology": "csti"}, "needs csti_features"),
        ({"sparsity": 0.9, "weight_init": "xavier"}, "unknown weight initialisation 'xavier'"),
        ({"sparsity": 0.9, "linear_score": "CH9"}, "unknown score rule 'CH9'"),
        ({"sparsity": 0.9, "removal": "magn"}, "unknown removal criterion 'magn'"),
        ({"sparsity": 0.9, "zeta": 1.2}, "zeta is 1.2"),
        ({"sparsity": 0.9, "zeta_schedule": "step"}, "unknown zeta schedule 'step'"),
        ({"sparsity": 0.9, "conv_unfold": "fold"}, "conv_unfold is 'fold'"),
        ({"sparsity": 0.9, "early_stop": "some"}, r"early_stop is 'some'"),
        ({"sparsity": 0.9, "early_stop_overlap": 0.0}, "early_stop_overlap is 0.0"),
        ({"sparsity": 0.9, "decay_k": 0.0}, "decay_k is 0.0"),
        ({"sparsity": 0.9, "removal_exponents": (3.0, 1.0)}, r"removal_exponents is \(3.0, 1.0\)"),
        ({"sparsity": 0.9, "removals": "ri"}, "no option 'removals'. Did you mean 'removal'"),
        ({"sparsity": 0.9, "stop_fraction": 1.5}, r"stop_fraction is 1.5"),
        ({"sparsity": 0.9, "start_fraction": 0.9}, r"start_fraction is 0.9; 0 to stop_fraction"),
        (
            {"sparsity": 0.5, "rule": "chtss", "initial_sparsity": 0.6},
            "would start at sparsity 0.6 and end at 0.5",
        ),
        (
            {"sparsity": 0.9, "rule": "gmp", "density_decay": "constant"},
            "'gmp' lets density fall",
        ),
        ({"sparsity": 0.9, "rule": "gmp", "stop_fraction": 0.0}, "has no update"),
    ],
)
def test_errors_name_the_value_and_leave_the_model_alone(small_network, options, message):
    model = small_network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ConfigError, match=message):
        sparsify(model, **{"rule": "chts", "epochs": 8, **options})
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(model.state_dict()[name], old) for name, old in before.items())


def test_shared_frozen_and_masked_weights_are_refused(small_network):
    shared = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    shared[1].weight = shared[0].weight
    with pytest.raises(ConfigError, match=r"0\.weight is the same weight as 1\.weight"):
        plan(shared, 0.5)
    frozen = small_network()
    frozen[7].weight.requires_grad_(False)
    with pytest.warns(UserWarning, match=r"7.weight does not require a gradient"):
        assert "7" not in plan(frozen, 0.5)
    frozen = small_network()
    frozen[7].weight.requires_grad_(False)
    with pytest.raises(ConfigError, match=r"7.weight does not require a gradient"):
        plan(frozen, {"7": 0.5})
    masked = small_network()
    sparsify(masked, sparsity=0.5, epochs=2)
    with pytest.raises(ConfigError, match="has a mask already"):
        plan(masked, 0.5)


@pytest.mark.parametrize("kind", ["er", "bsw", "brf"])
def test_initial_topologies_have_exact_counts(small_network, kind):
    model = small_network()
    layers = plan(model, 0.8, initial_topology=kind)
    for name, layer in layers.items():
        assert int(get_mask(model.get_submodule(name)).sum()) == layer.links


def test_csti_links_correlated_inputs():
    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 2))
    noise = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    sparsify(
        model,
        sparsity=1 - 12 / 72,
        epochs=2,
        initial_topology="csti",
        csti_features=torch.cat([noise, noise], 1),
    )
    partner = (torch.arange(12) % 6 + 3) % 6
    assert torch.equal(get_mask(model[0]), torch.nn.functional.one_hot(partner, 6).bool())


def test_weights_start_with_the_variance_of_the_sparse_fan_in():
    model = nn.Sequential(nn.Linear(400, 300), nn.ReLU(), nn.Linear(300, 2))
    sparsify(model, sparsity=0.9, epochs=2)
    weights = model[0].weight.detach()[get_mask(model[0])]
    assert float(weights.std()) == pytest.approx((2 / 40) ** 0.5, rel=0.03)


def test_the_model_s_own_weights_can_be_kept(small_network):
    model, dense = small_network(), small_network()
    sparsify(model, sparsity=0.5, epochs=2, weight_init="model")
    mask = get_mask(model[7])
    assert torch.equal(model[7].weight, dense[7].weight * mask)


def test_an_example_shows_which_layer_runs_last(caplog):
    class Backwards(nn.Module):
        """Registers its classifier first, and branches on data, so it cannot be traced."""

        def __init__(self):
            super().__init__()
            self.classifier, self.hidden = nn.Linear(6, 3), nn.Linear(8, 6)

        def forward(self, x):
            hidden = self.hidden(x)
            return self.classifier(hidden if hidden.sum() > 0 else -hidden)

    sparsifier = sparsify(
        Backwards(), "set", sparsity=0.5, epochs=2, example_input=torch.ones(2, 8)
    )
    assert list(sparsifier.layers) == ["hidden"]
    assert not [record for record in caplog.records if record.name.startswith("topospike")]

"""The call as a whole: convolutions, blocks, options, and what it refuses."""

import copy

import pytest
import torch
from torch import nn

import topospike as ts
from topospike.errors import (
    ConfigError,
    MissingDataError,
    NonFiniteError,
    ShapeError,
)
from topospike.evolve import keep_links
from topospike.pruning import shrink
from topospike.topology import share_count


def state_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def unchanged(model, before):
    after = model.state_dict()
    return after.keys() == before.keys() and all(torch.equal(after[n], before[n]) for n in before)


@pytest.mark.slow
def test_convolutions_are_pruned_as_unfolded_matrices(residual_network, images):
    dense = copy.deepcopy(residual_network)
    sparsity = {"conv": 0.5, "linear": 0.75, "stem": 0.0}
    report = ts.prune(residual_network, "wanda-rec", sparsity, images, comparison="layer")
    assert [layer.name for layer in report.layers] == [
        *(f"blocks.{i}.conv{j}" for i in (0, 1) for j in (1, 2)), "hidden",
    ]  # fmt: skip
    for layer in report.layers:
        lost = share_count(layer.possible, 0.5 if layer.kind == "conv" else 0.75)
        assert layer.possible - layer.links == lost
        assert layer.error_after < layer.error_before
    assert torch.equal(residual_network.stem.weight, dense.stem.weight)
    with torch.no_grad():
        outputs = {model: model(images) for model in (dense, residual_network)}
    magnitude = copy.deepcopy(dense)
    ts.prune(magnitude, "magnitude", sparsity)
    with torch.no_grad():
        simple = (magnitude(images) - outputs[dense]).norm()
    assert (outputs[residual_network] - outputs[dense]).norm() < simple


def test_errors_are_those_of_the_layers_outputs(perceptron, rows):
    dense = copy.deepcopy(perceptron)
    report = ts.prune(perceptron, "magnitude", 0.5, rows)
    with torch.no_grad():
        old, new = (rows @ model[0].weight.T for model in (dense, perceptron))
    assert report.layers[0].error_after == pytest.approx(
        float((new - old).norm() / old.norm()), rel=1e-4
    )
    assert report.layers[0].error_before == report.layers[0].error_after


@pytest.mark.slow
def test_dense_inputs_differ_from_sequential_ones_behind_the_first_block(perceptron, rows):
    errors = {}
    for inputs in ("sequential", "dense"):
        report = ts.prune(copy.deepcopy(perceptron), "ria", 0.7, rows, inputs=inputs)
        assert report.inputs == inputs
        errors[inputs] = [layer.error_after for layer in report.layers]
    assert errors["dense"][0] == errors["sequential"][0]
    assert errors["dense"][1] != errors["sequential"][1]


@pytest.mark.slow
def test_ria_with_exponent_zero_is_ri(perceptron, rows):
    other = copy.deepcopy(perceptron)
    ts.prune(perceptron, "ria", 0.7, rows, exponent=0.0)
    ts.prune(other, "ri", 0.7)
    assert torch.equal(perceptron[2].weight_mask, other[2].weight_mask)


@pytest.mark.slow
def test_layers_with_one_input_can_be_ranked_as_one(rows):
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.query, self.key = nn.Linear(12, 6), nn.Linear(12, 10)
            self.head = nn.Linear(16, 2)

        def forward(self, x):
            return self.head(torch.cat([self.query(x), self.key(x)], 1).relu())

    torch.manual_seed(0)
    model = Branches()
    with torch.no_grad():
        model.key.weight.mul_(5)
    apart, fused = copy.deepcopy(model), copy.deepcopy(model)
    ts.prune(apart, "magnitude", 0.5, rows)
    assert int(apart.query.weight_mask.sum()) == 36
    ts.prune(fused, "magnitude", 0.5, rows, fuse_qkv=True)
    stacked = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 2))
    stacked[0].weight.data = torch.cat([model.query.weight.data, model.key.weight.data])
    ts.prune(stacked, "magnitude", 0.5, rows)
    masks = torch.cat([fused.query.weight_mask, fused.key.weight_mask])
    assert torch.equal(masks, stacked[0].weight_mask)
    assert int(fused.query.weight_mask.sum()) < 36


def test_sparsity_zero_changes_nothing(perceptron, rows):
    before = state_of(perceptron)
    assert ts.prune(perceptron, "wanda", 0.0, rows).layers == ()
    assert unchanged(perceptron, before)


@pytest.mark.slow
def test_columns_and_rows_of_zeros_are_pruned_first(perceptron, rows):
    with torch.no_grad():
        perceptron[0].weight[:, 3] = 0.0
        perceptron[0].weight[5] = 0.0
    ts.prune(perceptron, "ria", 0.5, rows)
    mask = perceptron[0].weight_mask
    assert not mask[:, 3].any()
    assert not mask[5].any()
    assert int(mask.sum()) == 120
    assert bool(perceptron[0].weight.isfinite().all())


@pytest.mark.slow
def test_inputs_that_are_always_zero_are_pruned_first(perceptron, rows):
    rows[:, 7] = 0.0
    for method in ("wanda", "sparsegpt"):
        model = copy.deepcopy(perceptron)
        report = ts.prune(model, method, 0.5, rows)
        assert not model[0].weight[:, 7].any()
        assert report.layers[0].links == 120


def test_a_pruned_network_converts_and_counts_only_its_links(perceptron, rows):
    report = ts.prune(perceptron, "wanda", 0.75, rows)
    snn = ts.convert(perceptron, calibration=rows, timesteps=4)
    result = ts.evaluate(snn, [(rows, torch.zeros(len(rows), dtype=torch.long))], 4)
    density = {layer.name: layer.density for layer in report.layers}
    measured = {layer.name: layer.density for layer in result.layers}
    assert measured == pytest.approx({**density, "4": 1.0})


@pytest.mark.slow
@pytest.mark.parametrize("widths", ["layer", "total"])
def test_channels_go_as_masks_and_the_smaller_network_is_the_same(residual_network, images, widths):
    target = {"conv": 0.6, "linear": 0.5}
    report = ts.prune(residual_network, "depgraph", target, images, widths=widths, tolerance=0.15)
    assert report.widths["stem"] == (5, 8)
    small = shrink(residual_network, images[:2])
    with torch.no_grad():
        torch.testing.assert_close(small(images), residual_network(images), rtol=0, atol=1e-5)
    assert small.hidden.weight.numel() == int(residual_network.hidden.weight_mask.sum())
    snn = ts.convert(residual_network, calibration=images, timesteps=4)
    compact = ts.convert(small, calibration=images, timesteps=4)
    labels = torch.zeros(len(images), dtype=torch.long)
    ours, theirs = (ts.evaluate(net, [(images, labels)], 4) for net in (snn, compact))
    assert ours.ann_energy_joule == pytest.approx(theirs.ann_energy_joule)
    assert ours.sops == pytest.approx(theirs.sops, rel=0.02)


@pytest.mark.slow
def test_fine_tuning_keeps_links_and_removed_channels(residual_network, images):
    ts.prune(residual_network, "depgraph", {"conv": 0.6, "linear": 0.5}, images, tolerance=0.15)
    topology = ts.Topology.from_model(residual_network)
    small = shrink(residual_network, images[:2])
    keeper = keep_links(residual_network)
    for model in (residual_network, small):
        optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=1e-3)
        if model is residual_network:
            keeper.attach(optimizer)
        model.train()
        for step in range(3):
            optimizer.zero_grad()
            labels = torch.arange(len(images)).add(step) % 5
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
        model.eval()
    topology.verify(residual_network)
    with torch.no_grad():
        torch.testing.assert_close(small(images), residual_network(images), rtol=1e-3, atol=1e-4)
    assert not keeper.is_update_epoch(0)
    assert not any(change.removed for change in keeper.update_topology(0).layers.values())
    keeper.load_state_dict(keeper.state_dict())


def test_images_of_the_wrong_shape(perceptron, rows):
    before = state_of(perceptron)
    with pytest.raises(ShapeError, match=r"calibration images of shape \(48, 11\)"):
        ts.prune(perceptron, "wanda", 0.5, rows[:, :11])
    with pytest.raises(ShapeError, match=r"batch 1 has inputs of shape \(11,.*0 of shape \(12,"):
        ts.prune(perceptron, "wanda", 0.5, [rows, rows[:, :11]])
    assert unchanged(perceptron, before)


def test_activations_that_are_not_finite_leave_the_model_alone(perceptron, rows):
    with torch.no_grad():
        perceptron[0].bias[2] = float("nan")
    before = state_of(perceptron)
    with pytest.raises(NonFiniteError, match=r"^2: the inputs .* NaN or infinite"):
        ts.prune(perceptron, "magnitude", 0.5, rows)
    after = perceptron.state_dict()
    assert after.keys() == before.keys()
    assert torch.equal(after["0.weight"], before["0.weight"])
    rows[0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match="calibration batch 0 holds NaN"):
        ts.prune(perceptron, "wanda", 0.5, rows)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "wandar"}, ConfigError, "unknown pruning method 'wandar'.*'wanda'"),
        ({"method": "wanda"}, MissingDataError, "looks at activations; pass calibration"),
        ({"calibration": []}, MissingDataError, "there are no calibration images"),
        ({"sparsity": 1.0}, ConfigError, r"must lie in \[0, 1\)"),
        ({"sparsity": -0.1}, ConfigError, r"must lie in \[0, 1\)"),
        ({"sparsity": {"fc9": 0.5}}, ConfigError, "unknown layer or kind 'fc9'"),
        ({"sparsity": {"conv": 0.5}}, ConfigError, "selects no layer"),
        ({"method": {"0": 0.5}}, ConfigError, "Numbers by layer go to sparsity="),
        ({"comparison": "column"}, ConfigError, "unknown comparison 'column'"),
        (
            {"method": "sparsegpt", "comparison": "row", "calibration": torch.rand(4, 12)},
            ConfigError,
            "ranks within its own blocks",
        ),
        ({"inputs": "sequentiel"}, ConfigError, "Did you mean 'sequential'"),
        ({"calibration": torch.rand(4, 12), "chunk": 0}, ConfigError, "chunk is 0"),
        (
            {"method": "depgraph", "sparsity": {"0": 0.5}, "calibration": torch.rand(4, 12)},
            ConfigError,
            "by kind only",
        ),
        (
            {"method": "depgraph", "sparsity": 0.47, "calibration": torch.rand(4, 12),
             "tolerance": 0.0},
            ConfigError,
            "instead of 0.47, more than the tolerance 0 away",
        ),
        (
            {"method": "depgraph", "sparsity": 0.999, "calibration": torch.rand(4, 12)},
            ConfigError,
            "rounds to none of its 20 channels",
        ),
    ],
)  # fmt: skip
def test_what_is_refused(perceptron, options, error, message):
    before = state_of(perceptron)
    with pytest.raises(error, match=message):
        ts.prune(perceptron, **options)
    assert unchanged(perceptron, before)


def test_a_model_without_linear_layers():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 2))
    with pytest.raises(ConfigError, match=r"0 \(conv\), 3 \(classifier\).*sparsity=\{'conv'"):
        ts.prune(model)
    with pytest.raises(ConfigError, match="The layers are: none"):
        ts.prune(nn.Sequential(nn.ReLU()))


def test_a_sparse_model_is_not_pruned_again(perceptron):
    ts.prune(perceptron, "magnitude", 0.5)
    with pytest.raises(ConfigError, match=r"0\.weight has a mask already"):
        ts.prune(perceptron, "ri", 0.7)


@pytest.mark.slow
def test_a_layer_that_is_never_run(perceptron, rows):
    class Unused(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model, self.spare = model, nn.Linear(3, 3)

        def forward(self, x):
            return self.model(x)

    with pytest.raises(ConfigError, match="'spare' is not run by the forward pass"):
        ts.prune(Unused(perceptron), "wanda", {"linear": 0.5, "model.4": 0.0}, rows)


@pytest.mark.slow
def test_few_images_are_warned_about(perceptron, rows):
    with pytest.warns(UserWarning, match=r"layer '0' \(6 for 12\), '2' \(6 for 20\)"):
        ts.prune(perceptron, "sparsegpt", 0.5, rows[:6])


@pytest.mark.slow
def test_a_layer_run_twice_is_pruned_once(rows):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.between = nn.Linear(12, 12), nn.Linear(12, 12)
            self.head = nn.Linear(12, 2)

        def forward(self, x):
            return self.head(self.inner(self.between(self.inner(x).relu()).relu()).relu())

    torch.manual_seed(0)
    model = Twice()
    with pytest.warns(UserWarning, match="'inner' is run in several blocks"):
        report = ts.prune(model, "wanda", 0.5, rows)
    assert [layer.name for layer in report.layers] == ["inner", "between"]
    assert int(model.inner.weight_mask.sum()) == 72

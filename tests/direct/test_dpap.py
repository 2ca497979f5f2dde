import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from topospike.direct import Dpap, spiking_model
from topospike.direct.dpap import FILTERS, LINEAR, robust_scale, updated_survival
from topospike.direct.rule import published_epochs
from topospike.errors import TopologyViolation
from topospike.recipe import DirectSettings
from topospike.topology import check_masks


def test_survival_and_masks_equal_the_reference(oracle):
    stored = oracle("dpap_survival")
    shape = stored["mask_fc_shape"]
    links = np.unpackbits(stored["mask_fc"], count=int(np.prod(shape))).reshape(shape).astype(bool)
    survival = {"conv": torch.full((40,), 10.0), "fc": torch.full((20,), 10.0)}
    survival["synapse"] = torch.full((20, 24), 10.0)
    filters, mask = torch.ones(40, dtype=torch.bool), torch.ones(20, 24, dtype=torch.bool)
    for i, epoch in enumerate(stored["epochs"].tolist()):
        given_values = {"conv": "spine_conv", "fc": "spine_fc", "synapse": "bcm_fc"}
        for kind, name in given_values.items():
            survival[kind] = updated_survival(
                survival[kind],
                torch.from_numpy(stored[name][i]).float(),
                FILTERS if kind == "conv" else LINEAR,
                epoch=epoch,
                guard_constant=False,
            )
        filters &= survival["conv"] >= 0
        mask &= survival["synapse"] >= 0
        mask &= (survival["fc"] >= 0)[:, None]
        for kind in ("conv", "fc"):
            expected = torch.from_numpy(stored[f"surv_{kind}"][i])
            torch.testing.assert_close(survival[kind], expected, atol=1e-3, rtol=0)
        for name, at in (("first", 0), ("mid", 30), ("final", len(links) - 1)):
            if i == at:
                expected = torch.from_numpy(stored[f"surv_syn_{name}"])
                torch.testing.assert_close(survival["synapse"], expected, atol=1e-3, rtol=0)
        assert torch.equal(filters, torch.from_numpy(stored["mask_conv_filters"][i]).bool())
        assert np.array_equal(mask.numpy(), links[i])


def epoch_of_removal(score, supply, *, last=400):
    """The epoch after which an element with a constant scaled score is removed, if any."""
    importance = torch.tensor([0.0, score, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    survival = torch.full_like(importance, 10.0)
    for epoch in range(5, last):
        survival = updated_survival(survival, importance, supply, epoch=epoch)
        if survival[1] < 0:
            return epoch
    return None


@pytest.mark.parametrize(
    ("score", "epoch"), [(0.0, 25), (0.02, 28), (0.04, 35), (0.05, 40), (0.06, 52), (0.066, None)]
)
def test_filters_go_at_the_published_epochs(score, epoch):
    assert epoch_of_removal(score, FILTERS) == epoch


@pytest.mark.parametrize(
    ("score", "epoch"),
    [(0.0, 11), (0.1, 12), (0.2, 14), (0.3, 16), (0.4, 21), (0.45, 27), (0.48, 34), (0.5, 48),
     (0.51, 90), (0.515, None)],
)  # fmt: skip
def test_linear_elements_go_at_the_published_epochs(score, epoch):
    assert epoch_of_removal(score, LINEAR) == epoch


def test_a_layer_without_differences_is_left_alone_or_pruned_whole_as_released():
    same, start = torch.full((6,), 3.0), torch.full((6,), 10.0)
    assert robust_scale(same) is None
    assert torch.equal(updated_survival(start, same, LINEAR, epoch=9), start)
    survival, epoch = start, 4
    while (survival >= 0).all():
        epoch += 1
        survival = updated_survival(survival, same, LINEAR, epoch=epoch, guard_constant=False)
    assert epoch == 48
    assert (survival < 0).all()


@pytest.mark.parametrize(("supply", "score"), [(FILTERS, 0.04), (LINEAR, 0.0), (LINEAR, 0.45)])
@pytest.mark.parametrize("epochs", [30, 60, 600])
def test_a_short_run_prunes_in_the_epoch_that_stands_for_the_published_one(
    spiking, epochs, supply, score
):
    rule = Dpap(spiking, epochs=epochs, scale_epochs=True)
    importance = torch.tensor([0.0, score, 1.0, 1.0, 1.0, 1.0])
    gone, survival = None, {}
    for epoch in range(epochs):
        published = [e for e in published_epochs(epoch, epochs / 600) if e >= 5]
        survives = rule._survive(survival, "conv1", importance, supply, published)
        if gone is None and not survives[1]:
            gone = epoch
    assert gone == epoch_of_removal(score, supply) * epochs // 600


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.lists(st.floats(-5, 5, width=32), min_size=4, max_size=30), st.floats(0.1, 9))
def test_scaling_does_not_depend_on_the_unit(values, factor):
    x = torch.tensor(values, dtype=torch.float64)
    one, other = robust_scale(x), robust_scale(factor * x + 2)
    if one is not None and other is not None and x.max() - x.min() > 1e-3:
        assert ((one >= 0) & (one <= 1)).all()
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)


def trained_rule(net, *, batches, **options):
    model = spiking_model(net, DirectSettings(timesteps=3))
    with torch.no_grad():  # loud enough that every population fires
        for layer in (net.conv2, net.fc1):
            layer.weight.mul_(6)
    rule = Dpap(model, **options)
    for x in batches:
        model.train()(x)
    return model, rule


def test_statistics_come_from_training_passes_alone(net):
    x = torch.randn(4, 1, 8, 8)
    model, rule = trained_rule(net, batches=[x, x])
    model.eval()(x)
    assert {own.batches for own in rule.plasticity.values()} == {2}
    assert rule.layers == ("conv1", "conv2", "fc1")
    assert rule.plasticity["conv2"].strength.shape == (8, 6)
    assert rule.plasticity["fc1"].strength.shape == (10, 128)


def test_links_only_go_and_cut_weights_are_zero(net):
    model, rule = trained_rule(net, batches=[torch.randn(4, 1, 8, 8)])
    before = {layer: rule.mask(layer).clone() for layer in rule.layers}
    records = [rule.update_topology(epoch) for epoch in range(60)]
    assert records[4].sparsity == 0.0
    assert records[-1].sparsity > 0.1
    sparsities = [record.sparsity for record in records]
    assert sparsities == sorted(sparsities)
    assert all(change.grown == 0 for record in records for change in record.layers.values())
    for layer in rule.layers:
        assert (rule.mask(layer) <= before[layer]).all()
    check_masks(model)
    filters = rule.mask("conv2").flatten(1)
    assert torch.equal(filters.any(1), filters.all(1))
    assert rule.freeze().names == ("conv1.weight", "conv2.weight", "fc1.weight")
    with pytest.raises(TopologyViolation, match="frozen"):
        rule.update_topology(60)


@pytest.mark.parametrize("mask_every_step", [False, True])
def test_between_updates_pruned_weights_train_on_unless_masked_every_step(net, mask_every_step):
    x = torch.randn(6, 1, 8, 8)
    model, rule = trained_rule(net, batches=[x], mask_every_step=mask_every_step)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.01)
    rule.attach(optimizer)
    rule.mask("fc1")[:, :50] = False
    rule.update_topology(0)
    for _ in range(2):
        optimizer.zero_grad()
        (model(x) + model.get_submodule("fc1").weight.sum()).sum().backward()
        optimizer.step()
    cut = model.get_submodule("fc1").weight[:, :50]
    assert bool((cut == 0).all()) is mask_every_step
    rule.update_topology(1)
    assert (cut == 0).all()

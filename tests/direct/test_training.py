import copy
import dataclasses
import json

import pytest
import torch

from topospike.direct import spiking_model, structure_rule, training_method
from topospike.direct.training import epoch_rate, rate_error
from topospike.errors import CheckpointError, ConfigError, NonFiniteError
from topospike.evolve import sparsify
from topospike.recipe import DirectSettings, TrainSettings
from topospike.topology import check_masks
from topospike.train import fit

SHORT = TrainSettings(epochs=6, learning_rate=0.02, weight_decay=0.01, optimizer="adamw")
STEPWISE = DirectSettings(timesteps=4, schedule="step")


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [300, 600])
def test_learning_rates_equal_the_reference(oracle, epochs):
    stored = oracle("lr_schedule")
    rates = [epoch_rate(epoch, epochs, float(stored["base_lr"])) for epoch in range(epochs)]
    assert rates == pytest.approx(stored[f"lr_{epochs}"].tolist(), rel=1e-9)


def test_all_steps_of_an_epoch_have_one_rate():
    rate = training_method(DirectSettings()).learning_rate
    settings = TrainSettings(epochs=10, learning_rate=0.1)
    rates = [rate(settings, step, steps_per_epoch=4) for step in range(40)]
    assert [rates[4 * e : 4 * e + 4] for e in range(10)] == [
        [epoch_rate(e, 10, 0.1)] * 4 for e in range(10)
    ]


def test_the_loss_is_the_mean_over_images_and_classes():
    rates = torch.tensor([[1.0, 0.0], [0.5, 0.25]])
    loss = rate_error(rates, torch.tensor([0, 1]), TrainSettings())
    assert loss.item() == pytest.approx((0 + 0 + 0.25 + 0.5625) / 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (DirectSettings(loss="mes"), "Did you mean 'mse'"),
        (DirectSettings(schedule="eopch"), "epoch"),
    ],
)
def test_unknown_names_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        training_method(settings)


def trained(net, data, settings, *, folder=None, train=SHORT, resume=True):
    model = spiking_model(net, settings)
    rule = structure_rule(model, settings, epochs=train.epochs)
    result = fit(
        model, data, train, folder=folder, seed=0, sparsifier=rule, resume=resume,
        method=training_method(settings),
    )  # fmt: skip
    return model, rule, result


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_a_spiking_network_learns(net, data, loss):
    settings = DirectSettings(timesteps=4, schedule="step", loss=loss)
    longer = dataclasses.replace(SHORT, epochs=15, learning_rate=0.03)
    _, _, result = trained(net, data, settings, train=longer)
    assert result.validation_accuracy == 1.0


@pytest.mark.parametrize("rule", ["dpap", "sd-snn"])
def test_a_resumed_run_equals_one_in_one_go(net, data, tmp_path, monkeypatch, rule):
    settings = DirectSettings(
        rule=rule, timesteps=3, schedule="step", scale_epochs=True, patience=20
    )
    twin = copy.deepcopy(net)
    whole, _, _ = trained(net, data, settings, folder=tmp_path / "whole")

    def stop(epoch):
        data.train.epoch = epoch
        if epoch == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(data.train, "set_epoch", stop, raising=False)
    with pytest.raises(KeyboardInterrupt):
        trained(copy.deepcopy(twin), data, settings, folder=tmp_path / "parts")
    monkeypatch.undo()
    resumed, own_rule, _ = trained(twin, data, settings, folder=tmp_path / "parts")
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    assert own_rule.update_index == SHORT.epochs
    lines = [(tmp_path / part / "metrics.jsonl").read_text().splitlines()
             for part in ("whole", "parts")]  # fmt: skip
    one, other = (
        [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in part]
        for part in lines
    )
    assert one == other


def test_a_run_is_not_resumed_under_other_direct_settings(net, data, tmp_path):
    trained(net, data, STEPWISE, folder=tmp_path, train=TrainSettings(epochs=1))
    other = DirectSettings(timesteps=2, schedule="step")
    with pytest.raises(CheckpointError, match="timesteps"):
        trained(net, data, other, folder=tmp_path, train=TrainSettings(epochs=1))


@pytest.mark.parametrize("rule", ["set", "rigl"])
def test_dynamic_sparse_training_runs_through_time(net, data, rule):
    sparsifier = sparsify(net, rule, sparsity={"linear": 0.8}, epochs=SHORT.epochs, seed=0)
    model = spiking_model(net, STEPWISE)
    before = sparsifier.masks["fc1"].clone()
    fit(
        model, data, SHORT, folder=None, seed=0, sparsifier=sparsifier,
        method=training_method(STEPWISE),
    )  # fmt: skip
    after = model.get_submodule("fc1").weight_mask
    assert after.sum() == before.sum()
    assert not torch.equal(after, before)
    check_masks(model)
    sparsifier.freeze().verify(model)


def test_a_nan_that_spikes_swallow_is_found_in_the_weights(net, data):
    data.train[0][0][0, 0, 0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match="epoch 0 the weight of layer 'conv1'"):
        trained(net, data, STEPWISE)

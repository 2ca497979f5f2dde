from dataclasses import replace

import pytest
import torch
from torch import nn

from topospike.evolve import sparsify
from topospike.recipe import TrainSettings
from topospike.topology import check_masks, copy_masks, register_mask, set_mask
from topospike.train import evaluate_accuracy, fit
from topospike.train.optim import weight_average


def test_floating_point_state_is_averaged_and_the_rest_is_that_of_the_model(toy):
    model = toy.net()
    register_mask(model.fc1, torch.rand_like(model.fc1.weight) < 0.5)
    average = weight_average(model, 0.9)
    expected = {}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step, (x, y) in enumerate(toy.digits().train):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        average.update_parameters(model)
        for name, value in model.state_dict().items():
            if step and value.is_floating_point():
                value = 0.9 * expected[name] + 0.1 * value
            expected[name] = value.clone()
    for name, value in average.module.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-6, atol=1e-7)
    assert average.module.norm.num_batches_tracked == 5


def test_a_link_that_is_gone_does_not_live_on_in_the_average():
    layer = nn.Linear(2, 1, bias=False)
    register_mask(layer, torch.tensor([[True, True]]))
    average = weight_average(layer, 0.5)
    for values in ([[1.0, 2.0]], [[3.0, 4.0]]):
        layer.weight.data.copy_(torch.tensor(values))
        average.update_parameters(layer)
    set_mask(layer, torch.tensor([[True, False]]))
    copy_masks(layer, average)
    assert average.module.weight.tolist() == [[2.0, 0.0]]  # without the projection it would be 3
    average.update_parameters(layer)
    check_masks(average.module)
    assert average.module.weight_mask.tolist() == [[True, False]]
    assert layer.weight.tolist() == [[3.0, 0.0]]


@pytest.mark.slow
def test_the_average_is_validated_and_returned_on_the_masks(toy):
    settings = replace(toy.SETTINGS, ema_decay=0.9)
    data = toy.digits()
    model = toy.net(dropout=0.0)
    example = torch.zeros(2, 1, 8, 8)
    sparsifier = sparsify(model, "set", sparsity=0.8, epochs=5, seed=2, example_input=example)
    result = fit(model, data, settings, folder=None, seed=1, sparsifier=sparsifier)
    check_masks(model)
    assert result.validation_accuracy == evaluate_accuracy(model, data.validation)
    plain = toy.net(dropout=0.0)
    other = sparsify(plain, "set", sparsity=0.8, epochs=5, seed=2, example_input=example)
    fit(plain, data, toy.SETTINGS, folder=None, seed=1, sparsifier=other)
    assert sparsifier.freeze() == other.freeze()  # it does not disturb training
    assert not torch.equal(model.fc1.weight, plain.fc1.weight)


@pytest.mark.parametrize("options", [{"ema_decay": 0.9}, {"accumulate": 2}])
def test_resume_is_bit_identical(toy, tmp_path, read_metrics, options):
    class Interrupted(toy.Batches):
        def __iter__(self):
            for step, batch in enumerate(super().__iter__()):
                if self.epoch == 2 and step == 3:
                    raise KeyboardInterrupt
                yield batch

    settings = replace(toy.SETTINGS, **options)
    whole = toy.run(tmp_path / "whole", settings=settings)
    with pytest.raises(KeyboardInterrupt):
        toy.run(tmp_path / "cut", settings=settings, data=toy.digits(kind=Interrupted))
    resumed = toy.run(tmp_path / "cut", settings=settings)
    again = toy.run(tmp_path / "cut", settings=settings)  # complete: loaded, not trained
    for model in (resumed[0], again[0]):
        for name, value in whole[0].state_dict().items():
            assert torch.equal(model.state_dict()[name], value), name
    assert read_metrics(tmp_path / "whole") == read_metrics(tmp_path / "cut")


def trained(toy, batch_size, accumulate, rule="rigl"):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 10))
    with torch.no_grad():
        generator = torch.Generator().manual_seed(3)
        for parameter in model.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    settings = TrainSettings(
        epochs=3, learning_rate=0.1, gradient_clip=1.0, accumulate=accumulate, warmup_epochs=1
    )
    sparsifier = sparsify(model, rule, sparsity=0.7, epochs=3, seed=2, percolation=False)
    data = toy.digits(train=150, batch_size=batch_size)
    result = fit(model, data, settings, folder=None, seed=0, sparsifier=sparsifier)
    return model, sparsifier, result


@pytest.mark.parametrize(("batch_size", "accumulate"), [(16, 2), (8, 4), (32, 1)])
def test_accumulated_batches_equal_one_batch_of_their_size(toy, batch_size, accumulate):
    """The last step of 150 images has 22, in batches of unequal size."""
    whole, sparsifier, result = trained(toy, 32, 1)
    parts, other, result_2 = trained(toy, batch_size, accumulate)
    assert sparsifier.freeze() == other.freeze()
    for one, two in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)
    assert result.train_loss == pytest.approx(result_2.train_loss, rel=1e-5)


def test_an_epoch_of_five_batches_has_two_steps_of_three(toy):
    steps = []

    class Watching(toy.SetController):
        def attach(self, optimizer):
            super().attach(optimizer)
            optimizer.register_step_post_hook(lambda *_: steps.append(1))

    model = toy.net()
    settings = TrainSettings(epochs=2, learning_rate=0.1, accumulate=3)
    fit(model, toy.digits(), settings, folder=None, seed=0, sparsifier=Watching(model))
    assert len(steps) == 2 * 2

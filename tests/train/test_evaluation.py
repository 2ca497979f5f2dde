from dataclasses import replace

import pytest
import torch
from torch import nn

from topospike.errors import ConfigError, ShapeError
from topospike.train import evaluate_accuracy, fit
from topospike.train.epoch import check_logits, count_correct


def test_accuracy_by_hand_over_uneven_batches():
    x = torch.eye(3)
    batches = [(x, torch.tensor([0, 1, 0])), (x[:1], torch.tensor([0]))]
    assert evaluate_accuracy(nn.Identity(), batches) == 0.75


@pytest.mark.parametrize("training", [True, False])
def test_evaluated_in_eval_mode_and_the_mode_given_back(training):
    seen = []

    class Probe(nn.Module):
        def forward(self, x):
            seen.append((self.training, torch.is_grad_enabled()))
            return x

    model = Probe().train(training)
    evaluate_accuracy(model, [(torch.eye(2), torch.tensor([0, 1]))])
    assert seen == [(False, False)]
    assert model.training is training


def test_every_module_gets_its_own_mode_back():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Sequential(nn.Dropout(0.5)))
    model[1].eval()
    model[2][0].eval()
    before = [module.training for module in model.modules()]
    evaluate_accuracy(model, [(torch.eye(2), torch.tensor([0, 1]))])
    assert [module.training for module in model.modules()] == before


def test_a_frozen_batch_norm_stays_frozen_through_training(toy):
    model = toy.net()
    model.norm.eval()
    before = model.norm.running_mean.clone()
    settings = replace(toy.SETTINGS, epochs=2)
    fit(model, toy.digits(), settings, folder=None, seed=0)
    assert torch.equal(model.norm.running_mean, before)
    assert model.norm.num_batches_tracked == 0


def test_a_model_in_eval_mode_is_trained(toy):
    model = toy.net().eval()
    fit(model, toy.digits(), replace(toy.SETTINGS, epochs=1), folder=None, seed=0)
    assert model.norm.num_batches_tracked == 5


def test_outputs_for_fewer_images_than_labels_are_refused():
    with pytest.raises(ShapeError, match=r"shape \(1, 3\) for 2 images"):
        evaluate_accuracy(nn.Identity(), [(torch.eye(3)[:1], torch.tensor([0, 1]))])


def test_no_images():
    with pytest.raises(ConfigError, match="no images"):
        evaluate_accuracy(nn.Identity(), [])


def test_wrong_outputs_are_described():
    model = nn.Linear(4, 5)
    with pytest.raises(ShapeError, match=r"Linear returned shape \(2, 5\).*must be \(2, 10\)"):
        check_logits(model(torch.ones(2, 4)), torch.tensor([0, 1]), classes=10, model=model)
    with pytest.raises(ShapeError, match=r"returned a dict"):
        check_logits({"logits": 1}, torch.tensor([0, 1]), classes=10, model=model)


def test_probabilities_of_classes_count_as_their_most_probable_class():
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    labels = torch.tensor([[0.7, 0.3], [0.6, 0.4], [0.9, 0.1]])
    assert int(count_correct(logits, labels)) == int(count_correct(logits, labels.argmax(1))) == 2

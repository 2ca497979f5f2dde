import pytest
import torch
from torch import nn

from topospike.errors import ConfigError, ShapeError
from topospike.train import evaluate_accuracy
from topospike.train.evaluation import check_logits, count_correct


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


def test_no_images():
    with pytest.raises(ConfigError, match="no images"):
        evaluate_accuracy(nn.Identity(), [])


def test_wrong_outputs_are_described():
    model = nn.Linear(4, 5)
    with pytest.raises(ShapeError, match=r"Linear returned shape \(2, 5\).*must be \(2, 10\)"):
        check_logits(model(torch.ones(2, 4)), batch=2, classes=10, model=model)
    with pytest.raises(ShapeError, match=r"returned a dict"):
        check_logits({"logits": 1}, batch=2, classes=10, model=model)


def test_probabilities_of_classes_count_as_their_most_probable_class():
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    labels = torch.tensor([[0.7, 0.3], [0.6, 0.4], [0.9, 0.1]])
    assert int(count_correct(logits, labels)) == int(count_correct(logits, labels.argmax(1))) == 2

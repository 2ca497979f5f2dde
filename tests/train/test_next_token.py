"""One label a token: the loss of the loop, what it counts, and which epoch is the best."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from topospike.errors import ShapeError
from topospike.recipe import TrainSettings
from topospike.train import NEXT_TOKEN, FitResult, evaluate_accuracy, fit
from topospike.train.epoch import order_of, score
from topospike.train.optim import cross_entropy


class Batches(list):
    def set_epoch(self, epoch):
        pass


class Table(nn.Module):
    """The logits of the next token, one row a token."""

    def __init__(self, logits):
        super().__init__()
        self.rows = nn.Embedding.from_pretrained(logits.clone(), freeze=False)

    def forward(self, tokens):
        return self.rows(tokens)


# Token 0 is followed by 1 with probability 3/4, token 1 by 0 with 1/2.
LOGITS = torch.tensor([[1.0, 3.0], [1.0, 1.0]]).log()
TOKENS, NEXT = torch.tensor([[0, 0, 1]]), torch.tensor([[1, 0, 1]])
LOSS = -(math.log(3 / 4) + math.log(1 / 4) + math.log(1 / 2)) / 3


def data(*pairs):
    return SimpleNamespace(train=Batches(pairs), validation=Batches(pairs), classes=2)


def test_loss_and_accuracy_of_tokens_by_hand():
    found = score(
        Table(LOGITS), [(TOKENS, NEXT)], lambda z, y: cross_entropy(z, y, TrainSettings())
    )
    assert found.loss == pytest.approx(LOSS)
    assert found.accuracy == pytest.approx(1 / 3)  # of equal logits the first is taken
    assert evaluate_accuracy(Table(LOGITS), [(TOKENS, NEXT)]) == pytest.approx(1 / 3)


def test_a_step_follows_the_mean_gradient_of_all_tokens(tmp_path):
    """Two batches of unlike size make one step: every token weighs the same."""
    first, second = (TOKENS.repeat(2, 1), NEXT.repeat(2, 1)), (TOKENS, torch.tensor([[0, 0, 0]]))
    model = Table(LOGITS)
    settings = TrainSettings(
        epochs=1,
        learning_rate=1.0,
        momentum=0.0,
        weight_decay=0.0,
        accumulate=2,
        schedule="constant",
    )
    fit(model, data(first, second), settings, folder=tmp_path, seed=0, method=NEXT_TOKEN)
    rows = LOGITS.clone().requires_grad_()
    x, y = (torch.cat(parts).flatten() for parts in zip(first, second, strict=True))
    F.cross_entropy(rows[x], y).backward()
    assert torch.allclose(model.rows.weight, LOGITS - rows.grad, atol=1e-6)
    (line,) = [json.loads(row) for row in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    with torch.no_grad():
        before = float(F.cross_entropy(LOGITS[x], y))
        after = float(F.cross_entropy(model.rows.weight[x], y))
    assert line["train_loss"] == pytest.approx(before)
    assert line["validation_loss"] == pytest.approx(after)
    assert line["best_validation_loss"] == line["validation_loss"]


def test_validation_has_no_label_smoothing():
    settings = TrainSettings(epochs=1, learning_rate=1e-9, weight_decay=0.0, label_smoothing=0.5)
    likely = torch.tensor([[1, 1, 1]])
    result = fit(Table(LOGITS), data((TOKENS, likely)), settings, folder=None, seed=0)
    loss, uniform = (
        -(2 * math.log(3 / 4) + math.log(1 / 2)) / 3,
        -(math.log(3 / 16) + math.log(1 / 2)) / 3,
    )
    assert result.validation_loss == pytest.approx(loss, abs=1e-6)
    assert result.train_loss == pytest.approx(0.5 * loss + 0.5 * uniform, abs=1e-6)


@pytest.mark.parametrize(("best", "epoch"), [("accuracy", 1), ("loss", 2)])
def test_the_best_epoch_is_judged_by_what_the_method_says(best, epoch):
    history = FitResult()
    for accuracy, loss in ((0.5, 3.0), (0.7, 2.0), (0.6, 1.0), (0.7, 1.0)):
        history = history.after_epoch(
            train_loss=1.0,
            validation_accuracy=accuracy,
            validation_loss=loss,
            seconds=1.0,
            best=best,
        )
    assert history.best_epoch == epoch
    assert (history.epochs, history.seconds, history.validation_loss) == (4, 4.0, 1.0)


@pytest.mark.parametrize("shape", [(1, 3), (1, 2, 2), (1, 3, 3)])
def test_logits_that_are_not_one_row_a_token(shape):
    class Other(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(()))

        def forward(self, tokens):
            return torch.zeros(shape) + self.bias

    with pytest.raises(ShapeError, match=r"for 1 texts; it must be \(1, 3, 2\)"):
        fit(Other(), data((TOKENS, NEXT)), TrainSettings(epochs=1), folder=None, seed=0)


def test_the_order_of_labels_of_tokens():
    assert int(order_of(torch.tensor([[1, 0], [2, 3]]))) == 1 * 1 + 2 * 3 + 3 * 4
    assert int(order_of(torch.tensor([[0.1, 0.9], [0.8, 0.2]]))) == 1  # classes 1, 0

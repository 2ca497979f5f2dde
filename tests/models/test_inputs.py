"""Calibration images as users give them."""

import pytest
import torch
from torch import nn

from topospike.errors import ConfigError, NonFiniteError, ShapeError
from topospike.models.inputs import calibration_batches


def test_tensors_pairs_and_nothing_are_taken():
    x, y = torch.rand(3, 1, 4, 4), torch.zeros(3)
    model = nn.Flatten()
    assert list(calibration_batches(None, model)) == []
    assert [batch.tolist() for batch in calibration_batches(x, model)] == [x.tolist()]
    found = list(calibration_batches((batch for batch in [(x, y), [x, y], x[:0], x]), model))
    assert [len(batch) for batch in found] == [3, 3, 3]


@pytest.mark.parametrize(
    ("second", "error", "message"),
    [
        ({"image": 1}, ConfigError, "calibration batch 1 is dict of int; a tensor x"),
        ((1, 2), ConfigError, "calibration batch 1 is tuple of int"),
        ((), ConfigError, "calibration batch 1 is tuple"),
        (torch.tensor(1.0), ConfigError, "the batch first"),
        (torch.rand(2, 1, 4, 5), ShapeError, r"batch 1 has inputs of shape \(1, 4, 5\)"),
        (torch.rand(2, 1, 4, 4).double(), ShapeError, r"dtype torch.float64, batch 0 of"),
        (torch.full((2, 1, 4, 4), float("inf")), NonFiniteError, "batch 1 holds NaN or infinite"),
    ],
)
def test_the_batch_that_does_not_fit_is_named(second, error, message):
    batches = calibration_batches([torch.rand(2, 1, 4, 4), second], nn.Flatten())
    assert len(next(batches)) == 2
    with pytest.raises(error, match=message):
        next(batches)

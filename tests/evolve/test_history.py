import pytest
import torch

from topospike.errors import CheckpointError
from topospike.evolve import WeightHistory


def test_links_come_back_with_their_last_weight_and_new_ones_with_zero():
    history = WeightHistory()
    weight = torch.tensor([[1.0, 2.0, 0.0]])
    history.remember("fc", weight, torch.tensor([[True, True, False]]))
    # An update removes the first link, training moves the second, the next update grows both ends.
    weight.copy_(torch.tensor([[0.0, 5.0, 0.0]]))
    history.remember("fc", weight, torch.tensor([[False, True, False]]))
    weight.zero_()
    history.revive("fc", weight, torch.tensor([[True, False, True]]))
    assert weight.tolist() == [[1.0, 0.0, 0.0]]
    history.revive("fc", weight, torch.tensor([[False, True, False]]))
    assert weight.tolist() == [[1.0, 5.0, 0.0]]


def test_the_state_survives_a_checkpoint_and_refuses_another_network():
    history, other = WeightHistory(), WeightHistory()
    history.remember("fc", torch.ones(2, 3), torch.ones(2, 3, dtype=torch.bool))
    other.load_state_dict(history.state_dict(), {"fc": (2, 3)})
    weight = torch.zeros(2, 3)
    other.revive("fc", weight, torch.ones(2, 3, dtype=torch.bool))
    assert bool((weight == 1).all())
    with pytest.raises(CheckpointError, match=r"'fc' has shape \(2, 3\), the layer \(3, 2\)"):
        other.load_state_dict(history.state_dict(), {"fc": (3, 2)})

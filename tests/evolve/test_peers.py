import numpy as np
import pytest
import torch

from topospike.errors import TopologyViolation
from topospike.evolve import sparsify
from topospike.evolve.peers import checksum, require_same_masks
from topospike.train import Processes


def test_the_checksum_sees_every_link_and_no_memory_layout():
    mask = torch.rand(4, 3, 3, 3, generator=torch.Generator().manual_seed(0)) < 0.5
    assert checksum(mask) == checksum(mask.contiguous(memory_format=torch.channels_last))
    values = {checksum(mask)}
    for index in np.ndindex(*mask.shape):
        changed = mask.clone()
        changed[index] ^= True
        values.add(checksum(changed))
    assert len(values) == mask.numel() + 1


class Recorded:
    """Three processes whose checksums are given."""

    rank = 0

    def __init__(self, *masks):
        self.rows = [{name: checksum(mask) for name, mask in one.items()} for one in masks]

    def broadcast(self, message):
        return message

    def gather(self, value):
        assert value == self.rows[0]
        return self.rows


def test_the_error_names_process_and_layer():
    masks = {"a": torch.eye(3, dtype=torch.bool), "b": torch.ones(2, 2, dtype=torch.bool)}
    other = {**masks, "b": torch.eye(2, dtype=torch.bool)}
    require_same_masks(Recorded(masks, masks, masks), masks, moment="now")
    with pytest.raises(TopologyViolation, match=r"^now, the mask of layer 'b' on process 2 is not"):
        require_same_masks(Recorded(masks, masks, other), masks, moment="now")
    with pytest.raises(TopologyViolation, match=r"on process 1 .* \(1 more differ\)"):
        require_same_masks(Recorded(masks, other, other), masks, moment="now")


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["chts", "rigl", "granet"])
def test_a_decision_that_was_sent_is_the_decision(small_network, train_epoch, rule):
    """One process that sends messages to itself does what one without messages does."""
    results = []
    for peers in (None, Processes()):
        model = small_network()
        sparsifier = sparsify(model, rule, sparsity=0.6, epochs=4, seed=3)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        sparsifier.attach(optimizer)
        if peers is not None:
            sparsifier.share_decisions(peers)
        records = []
        for epoch in range(4):
            train_epoch(model, optimizer, epoch=epoch)
            records.append(sparsifier.update_topology(epoch))
        results.append((records, model.state_dict(), sparsifier.freeze()))
    assert results[0][0] == results[1][0]
    assert any(change.grown for change in results[0][0][0].layers.values())
    assert results[0][2] == results[1][2]
    for name, value in results[0][1].items():
        assert torch.equal(results[1][1][name], value), name

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from topospike.evolve.agreement import (
    checksums,
    decode,
    encode,
    is_sharded,
    laid_out_as,
    message_bytes,
    require_same_masks,
    whole,
)

from topospike.contracts import LayerChange
from topospike.errors import TopologyViolation
from topospike.evolve import sparsify
from topospike.evolve.update import LayerOutcome
from topospike.train import Processes

shapes = st.lists(st.tuples(*[st.integers(1, 9)] * 2), min_size=1, max_size=4)


def outcome(shape, seed):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(shape, generator=generator) < 0.5
    kept = mask & (torch.rand(shape, generator=generator) < 0.5)
    change = LayerChange(2**52 + 1, seed, 0, 3, 4, 5, -1, 1 / 3, None if seed % 2 else 0.1)
    return LayerOutcome(kept=kept, mask=mask, change=change)


@settings(deadline=None, derandomize=True, max_examples=25)
@given(shapes)
def test_what_is_sent_is_what_is_received(shapes):
    sent = {f"layer{i}": outcome(shape, i) for i, shape in enumerate(shapes)}
    expected = {name: tuple(result.mask.shape) for name, result in sent.items()}
    message = encode(sent)
    assert message.dtype == torch.uint8
    assert message.shape == (message_bytes(expected),)
    received = decode(message, expected)
    assert received.keys() == sent.keys()
    for name, result in received.items():
        assert torch.equal(result.mask, sent[name].mask)
        assert torch.equal(result.kept, sent[name].kept)
        assert result.change == sent[name].change
        assert type(result.change.grown) is int


def test_two_bits_a_link_and_a_record_of_fixed_length():
    assert message_bytes({"fc": (1000, 1000)}) == 2 * 125_000 + 72
    assert message_bytes({"a": (3, 3), "b": (1, 1)}) == 2 * 2 + 2 * 1 + 2 * 72


def test_the_checksum_sees_every_link_and_no_memory_layout():
    mask = torch.rand(4, 3, 3, 3, generator=torch.Generator().manual_seed(0)) < 0.5
    other = mask.contiguous(memory_format=torch.channels_last)
    assert torch.equal(checksums({"conv": mask}), checksums({"conv": other}))
    values = {int(checksums({"conv": mask}))}
    for index in np.ndindex(*mask.shape):
        changed = mask.clone()
        changed[index] ^= True
        values.add(int(checksums({"conv": changed})))
    assert len(values) == mask.numel() + 1


class Recorded:
    """Three processes whose checksums are given."""

    rank = 0

    def __init__(self, *masks):
        self.rows = [checksums(one) for one in masks]

    def broadcast(self, message):
        return message

    def gather(self, value):
        assert torch.equal(value, self.rows[0])
        return self.rows


def test_the_error_names_process_and_layer():
    masks = {"a": torch.eye(3, dtype=torch.bool), "b": torch.ones(2, 2, dtype=torch.bool)}
    other = {**masks, "b": torch.eye(2, dtype=torch.bool)}
    require_same_masks(Recorded(masks, masks, masks), masks, moment="now")
    with pytest.raises(TopologyViolation, match=r"^now, the mask of layer 'b' on process 2 is not"):
        require_same_masks(Recorded(masks, masks, other), masks, moment="now")
    with pytest.raises(TopologyViolation, match=r"on process 1 .* \(1 more differ\)"):
        require_same_masks(Recorded(masks, other, other), masks, moment="now")


def test_plain_tensors_are_neither_gathered_nor_laid_out():
    tensor = torch.ones(2)
    assert not is_sharded(tensor)
    assert whole(tensor) is tensor
    assert laid_out_as(tensor, torch.zeros(2)) is tensor


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

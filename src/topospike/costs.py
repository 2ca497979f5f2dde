"""What operations leave out of a cost: the record that stands beside them in an evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from topospike.files.ranges import Amount, Order


@dataclass(frozen=True, slots=True)
class WiderCost:
    """What a count of synaptic operations leaves out; shown beside it, never added.

    Joules per image, cumulative over steps 1..t. ``update_joule`` prices an update of every neuron
    at every step, and is empty where the energy model has no price for one; ``memory_joule`` and
    ``ann_memory_joule`` are memory accesses. ``int8_ann_joule`` is the ANN with weights and
    activations of 8 bits on the same links, activations that are 0 left out; ``active_share`` is
    the share left of the links fed by spikes. ``event_rate`` is events per link and step over
    these layers; below ``break_even_rate`` they cost less than in that ANN. ``chip_steps`` is what
    a chip takes with L layers: t + L - 1, or t + (L - 1) T where each waits for the T steps of the
    one before, which is L T for the whole answer. ``first_answer`` is the first step with one.
    """

    update_joule: tuple[Amount, ...]
    memory_joule: tuple[Amount, ...]
    ann_memory_joule: Amount
    int8_ann_joule: Amount
    active_share: Amount
    event_rate: tuple[Amount, ...]
    break_even_rate: tuple[Amount, ...]
    chip_steps: tuple[Order, ...]
    first_answer: Order = 1

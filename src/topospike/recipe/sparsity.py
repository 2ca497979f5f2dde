"""Settings of a sparse topology: evolved in training, or pruned after it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SparsitySettings:
    """How the topology starts, evolves and stops; see `topospike.evolve.sparsify`.

    Attributes
    ----------
    linear, conv
        Share of absent links in the end; 0 leaves a kind of layer dense, the classifier always is.
    initial_linear, initial_conv
        Where rules whose density falls start; a kind without a number starts at its end, and
        without any number both start at 0.5.
    removal, density_decay
        ``None`` takes the rule's own.
    keep_every
        Save the topology after every so many updates, besides the last, so that its evolution can
        be analysed; 0 is off.
    """

    rule: str = "chts"
    linear: float = 0.99
    conv: float = 0.0
    initial_linear: float | None = None
    initial_conv: float | None = None
    initial_topology: str = "er"
    weight_init: str = "swi"
    linear_score: str = "CH2-L3n"
    conv_score: str = "CH3-L3n"
    removal: str | None = None
    zeta: float = 0.3
    zeta_schedule: str = "cosine"
    density_decay: str | None = None
    decay_k: float = 6.0
    update_interval: int = 1
    start_fraction: float = 0.0
    stop_fraction: float = 0.75
    percolation: bool = True
    keep_every: int = 0


@dataclass(frozen=True)
class PruneSettings:
    """Prune a trained dense network, instead of evolving links; see `topospike.pruning`.

    Attributes
    ----------
    method
        ``None``: links evolve by ``sparsity.rule``. Otherwise how the sparse network is pruned, to
        ``sparsity.linear`` and ``sparsity.conv``.
    comparison, inputs, exponent, damping, fuse_qkv
        As of `topospike.pruning.prune`; ``None`` is the method's own.
    widths, tolerance
        Of ``depgraph``: whether each hidden linear layer, or all together, meet their sparsity, and
        how far the sparsity of a kind may lie from its target.
    calibration_images
        Training images, without augmentation.
    fine_tune
        Share of the epochs that come after pruning. 0 prunes the dense twin as it is; otherwise a
        network of its own is trained for the epochs before.
    fine_tune_rate
        Factor on the learning rate after pruning; the schedule starts anew, without warm-up.
    fine_tune_dropout
        Dropout after pruning; ``None`` leaves it.
    """

    method: str | None = None
    comparison: str | None = None
    inputs: str = "sequential"
    exponent: float = 0.5
    damping: float = 0.01
    fuse_qkv: bool = False
    widths: str = "layer"
    tolerance: float = 0.005
    calibration_images: int = 128
    fine_tune: float = 0.0
    fine_tune_rate: float = 0.1
    fine_tune_dropout: float | None = None

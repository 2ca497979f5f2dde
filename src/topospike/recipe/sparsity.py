"""Settings of a sparse topology: evolved in training, or pruned after it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from topospike.recipe.training import check_ranges


@dataclass(frozen=True)
class SparsitySettings:
    """How the topology starts, evolves and stops: the argument of `topospike.evolve.sparsify`.

    Attributes
    ----------
    rule
        ``cht``, ``chts``, ``chtss``, ``ch-snn``, ``set``, ``rigl``, ``mest``, ``gmp``,
        ``granet`` or ``static``.
    linear, conv
        Share of absent links in the end; 0 leaves a kind of layer dense, the classifier always is.
    layers
        The same for single layers, by name; the classifier too if it is named here.
    initial_linear, initial_conv, initial_layers
        Where rules whose density falls (``chtss``, ``granet``, ``gmp``) start; a kind without a
        number starts at its end, and without any number all start at 0.5.
    initial_topology
        ``er``, ``bsw``, ``brf``, or ``csti`` or ``sscti`` (linear layers that see the input; these
        need training images), or a mapping by kind or layer name.
    beta, r, degree
        Options of ``bsw`` and ``brf``, see `topospike.topology.initial_mask`.
    weight_init
        ``swi``, ``sswi`` (before spiking neurons), ``sparse_kaiming``, ``model`` (as the model
        came) or ``model_scaled``.
    threshold
        Of ``sswi``: threshold of the spiking neurons.
    linear_score, conv_score
        Link-prediction rules of `ch_scores`, for Cannistraci-Hebb growth.
    conv_unfold
        ``im2col``, ``spatial`` or ``position``, see `ch_scores_conv`.
    removal
        ``magnitude``, ``ri``, ``magnitude_soft``, ``ri_soft``, ``ri_damped_soft`` or ``mest``:
        which links are removed to be replaced, or, by a rule that replaces none (``gmp``), as
        density falls; ``None`` takes the rule's own.
    removal_exponents
        Exponent of soft removal at the start and at the end of the evolution.
    zeta, zeta_schedule
        Share of links replaced in an update, and how it shrinks: ``cosine`` (to 0 at the end of
        the window) or ``constant``.
    density_decay, decay_k
        ``sigmoid``, ``sigmoid_literal``, ``cubic`` or ``linear``, see
        `topospike.topology.sparsity_at`; ``None`` takes the rule's own.
    update_interval, start_fraction, stop_fraction
        Epochs (or steps) between updates and the window, see `UpdateSchedule`.
    update_unit
        What ``update_interval`` counts in a recipe: ``epoch``, or ``step`` of the optimizer. A
        call of `topospike.evolve.sparsify` says it by ``epochs`` or ``steps``.
    percolation
        Remove links of dead neurons along chains of layers. Chains are found in the model's graph
        at the first update.
    early_stop, early_stop_overlap
        ``all`` stops replacing links when, in every layer, more than this share of the grown links
        had just been removed; ``off`` never stops. ``None`` takes the rule's own (``all`` for
        ``cht``). Falling density goes on to its end in any case.
    new_links
        What a new link starts from: ``zero``, or ``swi``, a draw as of `init_weights` for the
        layer's density of the moment.
    history
        Start a link that is grown again from the weight it last had, whatever ``new_links`` is.
    keep_every
        Save the topology after every so many updates, besides the last, so that its evolution can
        be analysed; 0 is off.

    Raises
    ------
    ConfigError
        A number out of range.
    """

    rule: str = "chts"
    linear: float = 0.99
    conv: float = 0.0
    layers: dict[str, float] = field(default_factory=dict)
    initial_linear: float | None = None
    initial_conv: float | None = None
    initial_layers: dict[str, float] = field(default_factory=dict)
    initial_topology: str | dict[str, str] = "er"
    beta: float = 0.25
    r: float = 0.25
    degree: str = "fixed"
    weight_init: str = "swi"
    threshold: float = 1.0
    linear_score: str = "CH2-L3n"
    conv_score: str = "CH3-L3n"
    conv_unfold: str = "im2col"
    removal: str | None = None
    removal_exponents: tuple[float, float] = (1.0, 3.0)
    zeta: float = 0.3
    zeta_schedule: str = "cosine"
    density_decay: str | None = None
    decay_k: float = 6.0
    update_interval: int = 1
    update_unit: str = "epoch"
    start_fraction: float = 0.0
    stop_fraction: float = 0.75
    percolation: bool = True
    early_stop: str | None = None
    early_stop_overlap: float = 0.9
    new_links: str = "zero"
    history: bool = False
    keep_every: int = 0

    def __post_init__(self) -> None:
        share = "at least 0 and below 1"
        start, end = self.removal_exponents
        by_name = [*self.layers.values()], [*self.initial_layers.values()]
        check_ranges(
            "sparsity",
            self,
            ("linear", 0 <= self.linear < 1, share),
            ("conv", 0 <= self.conv < 1, share),
            ("layers", all(0 <= value < 1 for value in by_name[0]), share),
            ("initial_linear", 0 <= (self.initial_linear or 0) < 1, share),
            ("initial_conv", 0 <= (self.initial_conv or 0) < 1, share),
            (
                "initial_layers",
                all(0 <= value < 1 for value in by_name[1]),
                share,
            ),
            ("threshold", self.threshold > 0, "above 0"),
            ("beta", 0 <= self.beta <= 1, "between 0 and 1"),
            ("r", 0 <= self.r <= 1, "between 0 and 1"),
            ("removal_exponents", 0 < start <= end, "0 < start <= end"),
            ("zeta", 0 <= self.zeta <= 1, "between 0 and 1"),
            ("decay_k", self.decay_k > 0, "above 0"),
            ("update_unit", self.update_unit in ("epoch", "step"), "epoch or step"),
            ("update_interval", self.update_interval >= 1, "1 or more"),
            (
                "start_fraction",
                0 <= self.start_fraction <= self.stop_fraction,
                "0 to stop_fraction",
            ),
            ("stop_fraction", self.stop_fraction <= 1, "1 or less"),
            ("early_stop", self.early_stop in (None, "off", "all"), "off, all or null"),
            ("early_stop_overlap", 0 < self.early_stop_overlap <= 1, "above 0 and at most 1"),
            ("new_links", self.new_links in ("zero", "swi"), "zero or swi"),
            ("keep_every", self.keep_every >= 0, "0 or more"),
        )

    @property
    def shares(self) -> dict[str, float]:
        """The final share of absent links, by kind and layer name."""
        return {"linear": self.linear, "conv": self.conv, **self.layers}

    @property
    def initial_shares(self) -> dict[str, float]:
        """Where falling densities start, by kind and layer name; empty if nothing was given."""
        kinds: dict[str, Any] = {"linear": self.initial_linear, "conv": self.initial_conv}
        given = {kind: share for kind, share in kinds.items() if share is not None}
        return {**given, **self.initial_layers}


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

    def __post_init__(self) -> None:
        check_ranges(
            "prune",
            self,
            ("exponent", self.exponent >= 0, "0 or more"),
            ("damping", self.damping > 0, "above 0"),
            ("tolerance", self.tolerance >= 0, "0 or more"),
            ("calibration_images", self.calibration_images >= 1, "1 or more"),
            ("fine_tune", 0 <= self.fine_tune < 1, "at least 0 and below 1"),
            ("fine_tune_rate", self.fine_tune_rate > 0, "above 0"),
            (
                "fine_tune_dropout",
                0 <= (self.fine_tune_dropout or 0) < 1,
                "at least 0 and below 1",
            ),
        )

"""A recipe is data: the frozen settings of one complete run.

One dataclass a stage, in the order of the pipeline. Defaults are the paper's where it states one
(Bao, Gu, Lyu, Cannistraci 2026, Appendix C). Importing this module costs nothing: no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class DataSettings:
    """Where the images come from.

    Attributes
    ----------
    source
        ``digits`` (scikit-learn's scans, embedded), or anything Hugging Face ``datasets`` reads:
        a hub id, a folder of parquet files, an image folder. A relative folder that does not exist
        here is looked up under the environment variable ``TOPOSPIKE_DATA``.
    image_column, label_column
        Column names; ``None`` finds them by type.
    mean, std
        Normalisation per channel, on pixels scaled to [0, 1]; ``None`` uses the known constants
        of the dataset, or measures them on the training split.
    validation_fraction
        Share of the training split cut off for validation (stratified, seeded). The test split is
        read once, at the end.
    augment
        Names of augmentations, in order: ``crop`` (pad 4), ``flip``, ``cutout``, ...; a number
        after a colon is its strength, as in ``crop:2`` (`topospike.data.AUGMENTATIONS`).
    mix
        Ways to mix two training images and their labels, one of them drawn for every batch:
        ``mixup``, ``cutmix``; a number after a colon is the parameter of the Beta distribution.
    image_size
        Height and width the network sees, for images of differing sizes: each is scaled so that
        256/224 of this size fits, and the middle is cut out. ``None``: leave images as they are.
    channels
        1 (grey) or 3 (colour); ``None`` looks at the images.
    limit_train, limit_test
        Use only a seeded, stratified subset of n images (training and validation together, and
        test); for quick runs.
    workers
        Processes that decode images, for sets too large to be held in memory.
    memory_gib
        Sets up to this size are decoded once and held in memory; 0 decodes every batch anew.
    """

    source: str = "digits"
    image_column: str | None = None
    label_column: str | None = None
    train_split: str = "train"
    test_split: str = "test"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    validation_fraction: float = 0.1
    augment: tuple[str, ...] = ()
    mix: tuple[str, ...] = ()
    image_size: tuple[int, int] | None = None
    channels: int | None = None
    batch_size: int = 128
    eval_batch_size: int = 256
    limit_train: int | None = None
    limit_test: int | None = None
    workers: int = 0
    memory_gib: float = 2.0


@dataclass(frozen=True)
class ModelSettings:
    """Which network: a name of ``topospike.models`` and its sizes.

    Attributes
    ----------
    widths, blocks
        Channels and number of convolutions (or residual blocks) of every stage.
    hidden
        Widths of the hidden linear layers before the classifier.
    pool
        ``max`` or ``avg``.
    heads, patch
        Of a vision transformer: attention heads, side of a patch in pixels.
    dropout
        Share of activations dropped in training, of a vision transformer and of VGG.

    Notes
    -----
    Every ``None`` means the network's own default; an option that a network does not have is an
    error.
    """

    name: str = "small_cnn"
    widths: tuple[int, ...] | None = None
    hidden: tuple[int, ...] | None = None
    blocks: tuple[int, ...] | None = None
    pool: str | None = None
    heads: int | None = None
    patch: int | None = None
    dropout: float | None = None


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


@dataclass(frozen=True)
class TrainSettings:
    """The optimizer and its schedule.

    Attributes
    ----------
    optimizer
        ``sgd``, or ``adamw``, whose first-moment decay is ``momentum``.
    schedule
        ``cosine``, ``linear``, ``step`` or ``constant``, after ``warmup_epochs`` of linear ramp.
    milestones, milestone_factor
        Epochs at which ``step`` multiplies the rate by the factor; none named means one half and
        three quarters of the run.
    restart_every_epochs, restart_warmup_epochs
        Iterative warm-up: ramp the rate up again every so many epochs (fractions allowed), over
        so many epochs; 0 is off.
    accumulate
        Batches whose gradients make one optimizer step, which is one of ``accumulate`` times the
        batch size.
    ema_decay
        Share of an exponential moving average of the weights that is kept at every step; the
        average is then what is validated and returned. 0 is off.
    execution
        ``masked`` multiplies whole weights whose absent links are 0. ``compact`` computes ultra-
        sparse linear layers on their links alone: several times faster, and equal up to the order
        of floating-point sums (`topospike.train.on_links`).
    """

    epochs: int = 200
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "cosine"
    warmup_epochs: float = 0.0
    final_learning_rate_fraction: float = 0.0
    milestones: tuple[float, ...] = ()
    milestone_factor: float = 0.1
    restart_every_epochs: float = 0.0
    restart_warmup_epochs: float = 0.0
    label_smoothing: float = 0.0
    gradient_clip: float | None = None
    bf16: bool = False
    channels_last: bool = False
    checkpoint_every: int = 1
    accumulate: int = 1
    ema_decay: float = 0.0
    execution: str = "masked"


@dataclass(frozen=True)
class NeuronSettings:
    """One kind of spiking neuron of a network trained through time; see `topospike.direct`.

    Attributes
    ----------
    kind
        ``if`` (no leak), ``lif`` (time constant ``tau``, in steps), ``plif`` (leak trained, at
        first ``1 / tau``).
    surrogate, surrogate_width, train_width
        Curve in the place of the derivative of a spike, its width, and whether that is trained.
    reset, detach_reset
        ``hard`` (to 0) or ``soft`` (by the threshold); held constant in the backward pass or not.
    strict
        Fire above the threshold only, not on it.
    """

    kind: str = "plif"
    threshold: float = 1.0
    tau: float = 2.0
    surrogate: str = "arctan"
    surrogate_width: float = 2.0
    train_width: bool = False
    reset: str = "hard"
    detach_reset: bool = True
    strict: bool = True


@dataclass(frozen=True)
class DirectSettings:
    """Training the spiking network itself, through time, instead of converting an ANN.

    The defaults are what the released code of DPAP and SD-SNN runs (Han et al. 2022).

    Attributes
    ----------
    rule
        ``None``: train an ANN and convert it. Otherwise the structure rule: ``dense``, ``dpap``,
        ``sd-snn``, or ``evolve`` (the dynamic sparse training of ``sparsity``).
    conv, linear
        Neurons behind convolutions, and behind linear layers.
    output
        ``spikes``: the classifier has spiking neurons and answers with their rates; ``membrane``:
        with the mean of its inputs.
    loss
        ``mse`` (rates against one-hot labels) or ``cross_entropy``.
    schedule
        ``epoch``: the released learning rate, which changes after each epoch and ends at 1e-5;
        ``step``: that of ``train``.
    released_normalisation
        Normalise training images by ImageNet's constants and test images by CIFAR-10's.
    mask_every_step
        Keep absent links at 0 during an epoch too, not only after it.
    scale_epochs
        Scale the rules' epochs (made for runs of 600) to the length of this run.
    guard_constant
        DPAP: skip a layer whose importance is the same everywhere, instead of pruning it whole.
    range_layers, regrow, patience
        SD-SNN: layers whose weight ranges adapt (``all``, or ``linear`` as released), whether
        synapses grow again, and the epochs a condition must last.
    """

    rule: str | None = None
    timesteps: int = 8
    conv: NeuronSettings = field(default_factory=lambda: NeuronSettings(train_width=True))
    linear: NeuronSettings = field(
        default_factory=lambda: NeuronSettings("lif", threshold=0.5, surrogate="triangular")
    )
    output: str = "spikes"
    loss: str = "mse"
    schedule: str = "epoch"
    released_normalisation: bool = False
    mask_every_step: bool = False
    scale_epochs: bool = False
    guard_constant: bool = True
    range_layers: str = "all"
    regrow: bool = True
    patience: int = 18


@dataclass(frozen=True)
class PruneSettings:
    """Prune a trained dense network, instead of evolving links; see `topospike.prune`.

    Attributes
    ----------
    method
        ``None``: links evolve by ``sparsity.rule``. Otherwise how the sparse network is pruned, to
        ``sparsity.linear`` and ``sparsity.conv``.
    comparison, inputs, exponent, damping, fuse_qkv
        As of `topospike.prune.prune`; ``None`` is the method's own.
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


@dataclass(frozen=True)
class QuantisationSettings:
    """Training of quantised activations on the finished networks, before the conversions.

    Off unless ``epochs`` are given: the QCFS methods then calibrate the networks as they are. The
    topology is frozen; weights, biases and thresholds train on by SGD with momentum 0.9 and a
    cosine to 0 in each stage. Table A3 of Bao et al. (2026): 300 epochs, then 100 of channel-wise
    thresholds; rates of 0.05 to 0.001, 4 or 8 levels.

    Attributes
    ----------
    epochs
        Stage 1, one threshold a layer (S-QCFS); used by every method of the QCFS family.
    channel_epochs
        Stage 2, from there with one threshold a channel behind convolutions (CS-QCFS); used by
        ``cs-qcfs``.
    levels
        Quantisation steps L.
    channel_rate
        Learning rate of stage 2 as a share of that of stage 1.
    initial_threshold, percentile
        Where thresholds start: at one number, or, if given, at this quantile of the positive
        pre-activations of 1024 training images.
    positive_map
        Keeps thresholds positive: ``softplus``, ``sqrt`` or ``none``.
    order
        Gradient of the activation: ``floor_first`` or ``clamp_first``.
    dropout
        Probability in every dropout layer during the stages.
    freeze_weights
        Train thresholds (and batch-norm statistics) alone in stage 2.
    """

    epochs: int = 0
    channel_epochs: int = 0
    levels: int = 4
    learning_rate: float = 0.05
    channel_rate: float = 1.0
    weight_decay: float = 5e-4
    initial_threshold: float = 8.0
    percentile: float | None = None
    positive_map: str = "softplus"
    order: str = "floor_first"
    dropout: float = 0.0
    freeze_weights: bool = False


@dataclass(frozen=True)
class ConversionSettings:
    """How the trained network becomes a spiking one; ``None`` means the method's own default.

    ``presimulation`` is the number of steps of ``srp`` and ``offset-spike`` before the run proper.
    """

    method: str = "dcgs"
    coding: str | None = None
    levels: int | None = None
    solver: str | None = None
    granularity: str | None = None
    timesteps: int = 8
    calibration_images: int = 1024
    presimulation: int | None = None


@dataclass(frozen=True)
class MeasureSettings:
    """How long to simulate, on what, and which counting conventions to use.

    Attributes
    ----------
    images
        Simulate only so many test images, spread evenly over the split; ``None`` takes them all.
    """

    timesteps: int = 32
    images: int | None = None
    energy_model: str = "45nm"
    first_layer: str = "mac_once"
    pooled: str = "fold"


@dataclass(frozen=True)
class Recipe:
    """One complete run: a dense twin, a sparse twin, their conversions, and the analysis.

    ``dense_twin`` and ``sparse_twin`` leave one of the two networks out.
    """

    name: str = "run"
    seed: int = 0
    data: DataSettings = field(default_factory=DataSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    sparsity: SparsitySettings = field(default_factory=SparsitySettings)
    direct: DirectSettings = field(default_factory=DirectSettings)
    prune: PruneSettings = field(default_factory=PruneSettings)
    quantise: QuantisationSettings = field(default_factory=QuantisationSettings)
    dense_twin: bool = True
    sparse_twin: bool = True
    convert: tuple[ConversionSettings, ...] = (
        ConversionSettings("dcgs"),
        ConversionSettings("qcfs"),
    )
    measure: MeasureSettings = field(default_factory=MeasureSettings)
    analyse: bool = True
    threads: int | None = None

"""Settings of spiking networks: trained through time, or converted, and how they are measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from topospike.recipe.training import check_ranges


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
    changes
        What of ``train``, ``sparsity`` and ``measure`` is otherwise for the network trained through
        time than for the networks that are converted beside it (`topospike.recipe.parts`), such as
        ``{train: {epochs: 12}}``.
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
    changes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_ranges(
            "direct",
            self,
            ("timesteps", self.timesteps >= 1, "1 or more"),
            ("patience", self.patience >= 1, "1 or more"),
            (
                "changes",
                {*self.changes} <= {"train", "sparsity", "measure"},
                "a mapping of train, sparsity and measure, or less,",
            ),
        )


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

    def __post_init__(self) -> None:
        check_ranges(
            "quantise",
            self,
            ("epochs", self.epochs >= 0, "0 (off) or more"),
            ("channel_epochs", self.channel_epochs >= 0, "0 (off) or more"),
            ("levels", self.levels >= 1, "1 or more"),
            ("learning_rate", self.learning_rate > 0, "above 0"),
            ("channel_rate", self.channel_rate > 0, "above 0"),
            ("weight_decay", self.weight_decay >= 0, "0 or more"),
            ("initial_threshold", self.initial_threshold > 0, "above 0"),
            ("percentile", 0 <= (self.percentile or 0) <= 1, "between 0 and 1"),
            ("dropout", 0 <= self.dropout < 1, "at least 0 and below 1"),
        )


@dataclass(frozen=True)
class ConversionSettings:
    """How the trained network becomes a spiking one.

    Attributes
    ----------
    method
        Name in `topospike.conversion.METHODS`.
    options
        Options of that method, such as ``{levels: 4, solver: iterations}``: the fields of its class
        in `topospike.conversion.methods`. What is left out has the method's own default.
    name
        What the conversion is called in folders and tables, where one method is used twice.
    timesteps
        Run length the thresholds are chosen for.
    calibration_images
        Training images the thresholds are found on.
    input
        What the network is shown of recordings of events: ``events`` (frame after frame, events
        counted as spikes), ``frames`` (the same frames as real numbers), or ``image`` (their mean,
        constant in time). ``None``: ``events``; of images, ``image``.
    weight_bits
        Bits of whole weights, 2 to 8 (`topospike.quantise_weights`); ``None`` leaves them real.
    """

    method: str = "dcgs"
    options: dict[str, Any] = field(default_factory=dict)
    name: str | None = None
    timesteps: int = 8
    calibration_images: int = 1024
    input: str | None = None
    weight_bits: int | None = None

    def __post_init__(self) -> None:
        known = (None, "image", "frames", "events")
        check_ranges(
            "convert",
            self,
            ("input", self.input in known, "image, frames, events or null"),
            ("timesteps", self.timesteps >= 1, "1 or more"),
            ("calibration_images", self.calibration_images >= 1, "1 or more"),
            ("weight_bits", self.weight_bits in (None, *range(2, 9)), "2 to 8, or null,"),
        )

    @property
    def label(self) -> str:
        """Its name, by default that of the method."""
        return self.method if self.name is None else self.name


@dataclass(frozen=True)
class MeasureSettings:
    """How long to simulate, on what, and which counting conventions to use.

    Attributes
    ----------
    images
        Simulate only so many test images (contexts of a text), spread evenly over the split;
        ``None`` takes them all.
    metric
        What is measured at every step besides accuracy, which of text is the share of next tokens
        that are right: ``perplexity``, ``top5``, ``agreement``, ... (`topospike.measure.METRICS`).
    hold
        Steps each frame is shown for, of networks that read frames; ``None``: 1, or as the network
        was trained through time.
    input_events
        How events that enter the first layer are counted: ``count`` or ``nonzero``.
    executor
        How layers are evaluated (`topospike.snn.executors`), or ``auto``; ``None``: ``decoded``.
        ``integer`` needs ``weight_bits`` of the conversion.
    """

    timesteps: int = 32
    images: int | None = None
    energy_model: str = "45nm"
    first_layer: str = "mac_once"
    pooled: str = "fold"
    hold: int | None = None
    input_events: str = "count"
    metric: str = "accuracy"
    executor: str | None = None

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metric, and accuracy."""
        return tuple(dict.fromkeys((self.metric, "accuracy")))

    def __post_init__(self) -> None:
        check_ranges(
            "measure",
            self,
            ("hold", self.hold is None or self.hold >= 1, "1 or more, or null,"),
            ("timesteps", self.timesteps >= 1, "1 or more"),
            ("images", self.images is None or self.images >= 1, "1 or more, or null,"),
        )

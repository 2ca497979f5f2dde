"""Settings of the data, of the network and of its training.

Ranges are checked here, when settings are made, and nowhere else. Names (of a schedule, an
augmentation) are looked up by the stages whose tables they are in.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from topospike.errors import ConfigError

Requirement = tuple[str, bool, str]


def check_ranges(section: str, settings: object, *requirements: Requirement) -> None:
    """Raise `ConfigError` for the first field whose condition does not hold; NaN meets none."""
    for name, holds, required in requirements:
        if not holds:
            value = getattr(settings, name)
            raise ConfigError(f"{section}.{name} is {value!r}; {required} is required.")


@dataclass(frozen=True)
class EventSettings:
    """How recordings of an event camera become frames of counts.

    Attributes
    ----------
    frames
        Frames a recording is cut into; 0: the data are images.
    binning
        ``time``: bins of equal duration; ``count``: of an equal number of events.
    sensor
        (height, width) of the sensor, where the files do not say it.
    crop
        (height, width) of the middle that is kept; ``None``: all.
    resize
        Side of the squares of pixels whose counts are added up.
    clip
        Largest count of an entry; more are cut to it (a byte holds 255).
    stack
        Show an ANN the frames side by side as channels, instead of their mean: time becomes space,
        and the network reads an image.
    noise
        Background events a second and pixel, of the simulated ``digits-events``.

    Raises
    ------
    ConfigError
        A number out of range.
    """

    frames: int = 0
    binning: str = "time"
    sensor: tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    resize: int = 1
    clip: int = 255
    stack: bool = False
    noise: float = 0.0

    def __post_init__(self) -> None:
        pixels = "1 or more on each side"
        check_ranges(
            "data.events",
            self,
            ("frames", self.frames >= 0, "0 (images) or more"),
            ("sensor", self.sensor is None or min(self.sensor) >= 1, pixels),
            ("crop", self.crop is None or min(self.crop) >= 1, pixels),
            ("resize", self.resize >= 1, "1 or more"),
            ("clip", 1 <= self.clip <= 255, "1 to 255"),
            ("noise", self.noise >= 0, "0 or more"),
        )


@dataclass(frozen=True)
class TextSettings:
    """How a text becomes contexts of tokens, for language models.

    Attributes
    ----------
    context
        Tokens of a context, which the network reads at once; 0: the data are images.
    column
        Column of a dataset that holds the text; ``None``: ``text`` or ``content``.
    tokenizer
        ``None``: a token is a byte of UTF-8, 256 of them. Otherwise a tokenizer of Hugging Face
        ``transformers``: a hub id, or a folder.
    test_fraction
        Share of the text cut off at its end for the test; 0: the source has a test split.

    Raises
    ------
    ConfigError
        A number out of range.
    """

    context: int = 0
    column: str | None = None
    tokenizer: str | None = None
    test_fraction: float = 0.1

    def __post_init__(self) -> None:
        check_ranges(
            "data.text",
            self,
            ("context", self.context >= 0, "0 (images) or more"),
            ("test_fraction", 0 <= self.test_fraction < 1, "at least 0 and below 1"),
        )


@dataclass(frozen=True)
class DataSettings:
    """Where the images, or the text, come from.

    Attributes
    ----------
    source
        ``digits`` (scikit-learn's scans, embedded), or anything Hugging Face ``datasets`` reads:
        a hub id, a folder of parquet files, an image folder. A relative folder that does not exist
        here is looked up under the environment variable ``TOPOSPIKE_DATA``. With
        ``events.frames``: ``digits-events`` (the same scans seen by a simulated event camera), or
        a folder of recordings. With ``text.context``: ``pydoc-topics`` (the help texts of Python,
        embedded), a file or folder of ``.txt``, or a dataset with a column of text.
    image_column, label_column
        Column names; ``None`` finds them by type.
    mean, std
        Normalisation per channel, on pixels scaled to [0, 1]; ``None`` uses the known constants
        of the dataset, or measures them on the training split.
    validation_fraction
        Share of the training split cut off for validation (stratified and seeded; of text, the end
        of it). The test split is read once, at the end.
    augment
        Names of augmentations, in order: ``crop`` (pad 4), ``flip``, ``alternating_flip``,
        ``cutout``, ...; a number after a colon is its strength, as in ``crop:2``
        (`topospike.data.AUGMENTATIONS`). Of events: ``flip``, ``roll``, ``jitter``. Of text:
        ``shift``, which cuts the contexts of every epoch at other places.
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
        test), or the first n contexts of a text; for quick runs.
    workers
        Processes that decode images, for sets too large to be held in memory.
    memory_gib
        Sets up to this size are decoded once and held in memory; 0 decodes every batch anew.
    events
        Recordings of an event camera instead of images.
    text
        Text instead of images.

    Raises
    ------
    ConfigError
        A number out of range, events and text at once, or one split for training and for the test.
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
    events: EventSettings = field(default_factory=EventSettings)
    text: TextSettings = field(default_factory=TextSettings)

    def __post_init__(self) -> None:
        size, limits = self.image_size, (self.limit_train, self.limit_test)
        check_ranges(
            "data",
            self,
            ("batch_size", self.batch_size >= 1, "1 or more"),
            ("eval_batch_size", self.eval_batch_size >= 1, "1 or more"),
            ("validation_fraction", 0 <= self.validation_fraction < 1, "at least 0 and below 1"),
            ("limit_train", limits[0] is None or limits[0] >= 1, "1 or more, or null,"),
            ("limit_test", limits[1] is None or limits[1] >= 1, "1 or more, or null,"),
            ("workers", self.workers >= 0, "0 or more"),
            ("memory_gib", self.memory_gib >= 0, "0 or more"),
            ("channels", self.channels in (None, 1, 3), "1, 3 or null"),
            ("image_size", size is None or min(size) >= 1, "1 or more on each side"),
            ("std", self.std is None or all(x > 0 for x in self.std), "above 0 everywhere"),
            (
                "test_split",
                self.test_split != self.train_split,
                "another split than train_split, of images that are not trained on,",
            ),
            (
                "text",
                self.text.context == 0 or self.events.frames == 0,
                "no context where data.events.frames are given, since data are one or the other,",
            ),
        )


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
        Share of activations dropped in training, of a vision transformer, VGG and the fast CNN.

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
class TrainSettings:
    """The optimizer and its schedule.

    Attributes
    ----------
    optimizer
        ``sgd``, or ``adamw``, whose first-moment decay is ``momentum``.
    nesterov
        Nesterov's momentum, of ``sgd``: the step looks ahead along the momentum.
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

    Raises
    ------
    ConfigError
        A number out of range, or numbers that contradict each other.
    """

    epochs: int = 200
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
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

    def __post_init__(self) -> None:
        end, final = f"epochs={self.epochs}", self.final_learning_rate_fraction
        check_ranges(
            "train",
            self,
            ("epochs", self.epochs >= 1, "1 or more"),
            ("learning_rate", self.learning_rate > 0, "above 0"),
            ("momentum", 0 <= self.momentum < 1, "at least 0 and below 1"),
            (
                "nesterov",
                not self.nesterov or (self.optimizer == "sgd" and self.momentum > 0),
                "false, unless optimizer='sgd' with momentum above 0,",
            ),
            ("weight_decay", self.weight_decay >= 0, "0 or more"),
            ("label_smoothing", 0 <= self.label_smoothing < 1, "at least 0 and below 1"),
            (
                "gradient_clip",
                self.gradient_clip is None or self.gradient_clip > 0,
                "above 0, or null for no clipping,",
            ),
            ("checkpoint_every", self.checkpoint_every >= 1, "1 or more (epochs)"),
            ("accumulate", self.accumulate >= 1, "1 or more (batches)"),
            ("ema_decay", 0 <= self.ema_decay < 1, "at least 0 (off) and below 1"),
            (
                "warmup_epochs",
                0 <= self.warmup_epochs < self.epochs,
                f"at least 0 and below {end}",
            ),
            (
                "milestones",
                not self.milestones or self.schedule == "step",
                "nothing, unless schedule='step',",
            ),
            (
                "milestones",
                all(0 < epoch < self.epochs for epoch in self.milestones)
                and list(self.milestones) == sorted(set(self.milestones)),
                f"a rising list of epochs above 0 and below {end}",
            ),
            ("milestone_factor", 0 < self.milestone_factor <= 1, "above 0 and at most 1"),
            ("restart_every_epochs", self.restart_every_epochs >= 0, "0 (off) or more"),
            (
                "restart_warmup_epochs",
                0 <= self.restart_warmup_epochs <= self.restart_every_epochs,
                f"at least 0 and at most restart_every_epochs={self.restart_every_epochs}",
            ),
            ("final_learning_rate_fraction", 0 <= final <= 1, "between 0 and 1"),
            (
                "final_learning_rate_fraction",
                self.schedule != "linear" or final > 0,
                "above 0 with schedule='linear', whose last tenth trains at that rate (try 0.01),",
            ),
            (
                "final_learning_rate_fraction",
                self.schedule not in ("step", "constant") or final == 0,
                f"0 with schedule={self.schedule!r}, which does not use it,",
            ),
        )

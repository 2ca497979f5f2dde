"""A conversion method is one frozen class, and an instance of it *is* the method's options.

Its fields are the keyword arguments of `topospike.convert`, the ``options`` of a recipe's
conversion, what a saved network stores and what a report prints; their ranges are checked once,
when it is made. Class attributes are the facts about the method, its functions say what the network
is built of. A new method is one such class in a file of its own, and a line that registers it; the
present ones are in `topospike.conversion.methods`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

from torch import Tensor

from topospike.contracts import ConversionReport
from topospike.errors import ConfigError, ConversionError
from topospike.models.qcfs import QCFS
from topospike.registry import Registry, suggestion
from topospike.snn import neurons
from topospike.snn.coding import CODINGS, Coding
from topospike.snn.network import SpikingNetwork
from topospike.snn.neurons import IntegrateAndFire, MultiThreshold, Neuron
from topospike.snn.site import Site
from topospike.thresholds.solvers import SOLVERS, decodable_levels
from topospike.thresholds.statistics import UNITS, Granularity, Values

Check = Callable[[str, Any], object]
"""Takes the name and the value of an option; `ConfigError` if it is out of range."""

EXPORTS = ("nir", "event-network", "neurobench", "csr")
NEURONS: Registry[type] = Registry(
    "neuron",
    {
        name: kind
        for name, kind in vars(neurons).items()
        if dataclasses.is_dataclass(kind) and isinstance(kind, type) and hasattr(kind, "fire")
    },
)
"""The firing rules a saved network can name."""


@dataclass(frozen=True)
class ThresholdRule:
    """How sites of one kind get their thresholds; see `topospike.thresholds.solvers`."""

    solver: str
    granularity: Granularity
    quantisation_levels: int
    scale: float
    percentile: float
    values: Values = "rectified"
    signed: bool = False
    floor: float = 0.0


def one_of(table: Mapping[str, Any]) -> Check:
    """Check that an option is a name in a table, whose error lists the names."""
    return lambda name, value: table[value]


def whole(least: int, most: float = math.inf) -> Check:
    """Check that an option is a whole number in a range."""

    def check(name: str, value: Any) -> None:
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        if not (is_whole and least <= value <= most):
            limit = f"from {least} to {most}" if most < math.inf else f"of at least {least}"
            raise ConfigError(f"{name} is {value!r}; a whole number {limit} is required.")

    return check


def number(least: float, most: float = math.inf) -> Check:
    """Check that an option is a finite number above ``least`` and at most ``most``."""

    def check(name: str, value: Any) -> None:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (is_number and math.isfinite(value) and least < value <= most):
            limit = f" and at most {most:g}" if most < math.inf else ""
            raise ConfigError(f"{name} is {value!r}; a number above {least:g}{limit} is required.")

    return check


def yes_or_no(name: str, value: Any) -> None:
    """Check that an option is true or false."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name} is {value!r}; true or false is required.")


def firing_rule(name: str, value: Any) -> None:
    """Check that an option is a neuron."""
    if not isinstance(value, Neuron):
        raise ConfigError(
            f"{name} is {value!r}; a firing rule is required, such as "
            "topospike.snn.neurons.MultiThreshold(levels=4, gated=True)."
        )


@dataclass(frozen=True, kw_only=True)
class Method:
    """A conversion method and its options: what every method has. Subclass it for a new one.

    Parameters
    ----------
    solver : {"optimal", "iterations", "percentile", "max"}
        How thresholds follow from the statistics.
    granularity : {"layer", "channel", "neuron", "feature"}
        One threshold for a site, for each channel (axis 1), each neuron, each last-axis feature.
    quantisation_levels
        Number N of values a site can decode to; default: what its neuron can in ``timesteps``.
    percentile
        Quantile for solver ``percentile``, above 0 and at most 1.
    scale
        Factor on every threshold.

    Attributes
    ----------
    name, source
        What it is called, and who proposed it.
    activations
        Kind of `topospike.quantise_activations` whose training the method makes use of.
    requires
        The activation the network must have been trained with; ``None``: a ReLU network will do.
    exports
        Forms that give the method's runs exactly, where they can express the sites' neurons:
        ``nir``, ``event-network``, ``neurobench``, ``csr``.
    beyond
        What its runs do beyond the firing of neurons, for the message of a refused export.
    keeps_images
        Whether `finish` is given all calibration images, not the first batch alone.
    chooses_thresholds
        Whether `finish` chooses thresholds, so that none can be given.
    ranges
        The check of each option; ``None`` as a default (decided by the kind of site) passes.

    Raises
    ------
    ConfigError
        If an option is unknown or out of range.

    Examples
    --------
    >>> METHODS["dcgs"](levels=3).options()["levels"]
    3
    >>> METHODS["srp"](presimulation=0)
    Traceback (most recent call last):
    ...
    topospike.errors.ConfigError: presimulation is 0; a whole number of at least 1 is required.

    A method of one's own is known to `topospike.convert`, recipes and saved networks once it is
    registered (in every process that reads such a network):

    >>> from topospike.conversion.methods import QCFSMethod
    >>> @dataclass(frozen=True, kw_only=True)
    ... class MaximumMethod(QCFSMethod):
    ...     name, source = "maximum", "Rueckauer et al., 2017"
    ...     solver: str | None = "max"
    >>> _ = METHODS.register("maximum", MaximumMethod)
    """

    name: ClassVar[str]
    source: ClassVar[str]
    activations: ClassVar[str | None] = None
    requires: ClassVar[type[QCFS] | None] = None
    exports: ClassVar[frozenset[str]] = frozenset(EXPORTS)
    beyond: ClassVar[str] = ""

    keeps_images: ClassVar[bool] = False
    chooses_thresholds: ClassVar[bool] = False

    ranges: ClassVar[dict[str, Check]] = {
        "solver": one_of(SOLVERS),
        "granularity": one_of(UNITS),
        "quantisation_levels": whole(1),
        "percentile": number(0.0, 1.0),
        "scale": number(0.0),
    }

    solver: str | None = "optimal"
    granularity: Granularity | None = "layer"
    quantisation_levels: int | None = None
    percentile: float = 0.999
    scale: float | None = 1.0

    def __post_init__(self) -> None:
        for each in fields(self):
            value, check = getattr(self, each.name), self.ranges.get(each.name)
            if check is not None and not (value is None and each.default is None):
                check(each.name, value)

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """Return the method with these options; ``None`` stands for an option's default."""
        known = [each.name for each in fields(cls)]
        for given in options:
            if given not in known:
                having = [n for n, m in METHODS.items() if given in {f.name for f in fields(m)}]
                elsewhere = f" Methods that have it: {', '.join(having)}." if having else ""
                raise ConfigError(
                    f"method {cls.name!r} has no option {given!r}. Its options: "
                    f"{', '.join(known)}.{elsewhere or suggestion(given, known)}"
                )
        return cls(**{n: as_tuple(value) for n, value in options.items() if value is not None})

    def options(self) -> dict[str, Any]:
        """Return every option as plain values, for files and reports."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {k: neuron_to_plain(v) if isinstance(v, Neuron) else v for k, v in values.items()}

    @property
    def scheme_of_sites(self) -> str:
        """Where sites go: in the place of rectifiers, unless the method says otherwise."""
        return "relu"

    @property
    def sites_on_inputs(self) -> bool:
        """Whether the network's inputs pass a site as well, and so arrive as spikes."""
        return False

    def site_coding(self) -> Coding:
        """Return how spikes become values."""
        return CODINGS["rate"]

    def site_neuron(self, gated: bool) -> Neuron | None:
        """Return the firing rule of a ReLU site (gated) or an operand site, if it can have one."""
        return IntegrateAndFire() if gated else None

    def threshold_rule(self, timesteps: int, *, gated: bool) -> ThresholdRule:
        """Return how a ReLU site (gated) or an operand site gets its threshold."""
        neuron = self.site_neuron(gated)
        levels = neuron.levels if isinstance(neuron, MultiThreshold) else None
        return ThresholdRule(
            solver=self.solver or "optimal",
            granularity=self.granularity or "layer",
            quantisation_levels=self.quantisation_levels or decodable_levels(timesteps, levels),
            scale=1.0 if self.scale is None else self.scale,
            percentile=self.percentile,
        )

    def site(self, name: str, gated: bool) -> Site:
        """Build one site."""
        return Site(
            name, gated=gated, neuron=self.neuron_of(name, gated), coding=self.site_coding()
        )

    def neuron_of(self, name: str, gated: bool) -> Neuron:
        """Return the neuron of a site; `ConversionError` if there is none for its kind."""
        neuron = self.site_neuron(gated)
        if neuron is None:
            raise ConversionError(
                f"{name} needs neurons with spikes of both signs; method {self.name!r} has none. "
                "Use method='dcgs'."
            )
        return neuron

    def finish(self, snn: SpikingNetwork, images: tuple[Tensor, ...]) -> SpikingNetwork:
        """Do what the method does after calibration, or refuse the network.

        It may change neurons and thresholds of the sites: the report describes them afterwards.
        ``images`` is the first calibration batch, one tensor an input (all: ``keeps_images``).
        """
        return snn

    def remark(self) -> str:
        """Return what a reader of the results must know about the time steps; empty: nothing."""
        return ""


METHODS: Registry[type[Method]] = Registry("conversion method", {})
"""The conversion methods by name; ``METHODS.register`` adds one."""


def method_from(method: str | Method, options: Mapping[str, Any]) -> Method:
    """Return the method a name and options mean; an instance brings its own options."""
    if not isinstance(method, Method):
        return METHODS[method].of(options)
    if options:
        raise ConfigError(
            f"{', '.join(options)} given beside a method object, which holds its options itself; "
            "make it with them."
        )
    return method


def method_of(report: ConversionReport) -> Method:
    """Return the method that made a network, with its options, from the network's report."""
    options = dict(report.options)
    if isinstance(options.get("neuron"), Mapping):
        options["neuron"] = neuron_from_plain(options["neuron"])
    return METHODS[report.method].of(options)


def require_export(report: ConversionReport, form: str) -> None:
    """Raise `ConversionError` if a form cannot say what a network's method does.

    Networks of other origin (trained through time) have sites that say all there is.
    """
    method, delay = METHODS.get(report.method), report.readout_delay
    if delay and form != "csr":
        raise ConversionError(
            f"the answer of this network is read out late (readout_delay={delay}), which the form "
            f"{form!r} cannot express: its outputs are means from step 1 on. Convert with "
            "readout_delay=0 and leave out the first outputs there, or hand over weights and "
            "settings by export_csr."
        )
    if method is not None and form not in method.exports:
        raise ConversionError(
            f"a network of method {report.method!r} has {method.beyond or 'runs of its own'}, "
            f"which the form {form!r} cannot express: its outputs would differ. Convert by 'qcfs' "
            "(the same trained network will do), or hand over weights and settings by export_csr."
        )


def neuron_to_plain(neuron: Neuron) -> dict[str, Any]:
    """Write a neuron as its kind and settings."""
    known = dataclasses.fields(neuron) if dataclasses.is_dataclass(neuron) else ()
    settings = {each.name: getattr(neuron, each.name) for each in known if each.init}
    return {"kind": type(neuron).__name__, **settings}


def neuron_from_plain(plain: Mapping[str, Any]) -> Neuron:
    """Make the neuron that `neuron_to_plain` wrote."""
    settings = {name: as_tuple(value) for name, value in plain.items()}
    return NEURONS[settings.pop("kind")](**settings)


def as_tuple(value: Any) -> Any:
    """Return the tuple that a file holds as a list, and anything else as it is."""
    return tuple(value) if isinstance(value, list) else value

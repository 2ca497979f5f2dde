"""Stage direct: from the settings of a recipe to a spiking model and its structure rule."""

from __future__ import annotations

from topospike.direct.dpap import Dpap
from topospike.direct.network import SpikingModel
from topospike.direct.rule import StructureRule
from topospike.direct.sd_snn import SdSnn
from topospike.errors import ConfigError
from topospike.recipe import DirectSettings
from topospike.registry import suggestion

RULES = ("dense", "dpap", "evolve", "sd-snn")


def check_rule(name: str | None) -> None:
    """Raise `ConfigError` unless ``name`` is a structure rule, or ``None``.

    Examples
    --------
    >>> check_rule("dpat")
    Traceback (most recent call last):
    ...
    topospike.errors.ConfigError: unknown direct.rule 'dpat'. Known: dense, dpap, evolve, sd-snn. Did you mean 'dpap'?
    """  # noqa: E501
    if name is not None and name not in RULES:
        raise ConfigError(
            f"unknown direct.rule {name!r}. Known: {', '.join(RULES)}.{suggestion(name, RULES)}"
        )


def structure_rule(
    model: SpikingModel, settings: DirectSettings, *, epochs: int
) -> StructureRule | None:
    """Make the structure rule of the settings, which registers its masks in the model.

    Parameters
    ----------
    model
        Spiking model without masks.
    settings
        The rule and its options.
    epochs
        Length of the run.

    Returns
    -------
    StructureRule or None
        ``None`` for ``dense`` and ``evolve``: the masks of the latter are made by
        `topospike.sparsify` on the network before it becomes spiking.

    Raises
    ------
    ConfigError
        If the rule is unknown or finds nothing to prune.

    Examples
    --------
    >>> from torch import nn
    >>> from topospike.direct import spiking_model
    >>> net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    >>> structure_rule(spiking_model(net), DirectSettings(rule="dpap"), epochs=10).layers
    ('0',)
    """
    check_rule(settings.rule)
    if settings.rule == "dpap":
        return Dpap(
            model,
            epochs=epochs,
            scale_epochs=settings.scale_epochs,
            guard_constant=settings.guard_constant,
            mask_every_step=settings.mask_every_step,
        )
    if settings.rule == "sd-snn":
        return SdSnn(
            model,
            epochs=epochs,
            patience=settings.patience,
            range_layers=settings.range_layers,
            regrow=settings.regrow,
            scale_epochs=settings.scale_epochs,
            mask_every_step=settings.mask_every_step,
        )
    return None

"""Stage 2 (evolve): from a dense model to a sparse one under a rule, in one call.

Draws the initial links, sets the initial weights, and hands both to a `Sparsifier`. Everything a
run can choose about its topology is an argument here; the arithmetic is elsewhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor, nn

from topospike.errors import ConfigError
from topospike.evolve.plan import LayerPlan, PlanSettings, build_plan
from topospike.evolve.removal import REMOVAL_CRITERIA
from topospike.evolve.rules import RULES, Rule, derived_generator
from topospike.evolve.schedule import UpdateSchedule
from topospike.evolve.settings import EvolutionSettings
from topospike.evolve.sparsifier import Sparsifier
from topospike.topology import (
    WEIGHT_INITS,
    feature_correlation,
    init_weights,
    initial_mask,
    register_mask,
)


def sparsify(
    model: nn.Module,
    rule: str | Rule = "chts",
    *,
    sparsity: float | Mapping[str, float] = 0.99,
    epochs: int | None = None,
    steps: int | None = None,
    seed: int = 0,
    initial_sparsity: float | Mapping[str, float] | None = None,
    initial_topology: str | Mapping[str, str] = "er",
    weight_init: str = "swi",
    linear_score: str = "CH2-L3n",
    conv_score: str = "CH3-L3n",
    conv_unfold: str = "im2col",
    removal: str | None = None,
    removal_exponents: tuple[float, float] = (1.0, 3.0),
    exponent_schedule: str = "linear_exponent",
    zeta: float = 0.3,
    zeta_schedule: str = "cosine",
    density_decay: str | None = None,
    decay_k: float = 6.0,
    elastic: float = 0.0,
    update_interval: int = 1,
    start_fraction: float = 0.0,
    stop_fraction: float = 0.75,
    percolation: bool = True,
    early_stop: str | None = None,
    early_stop_overlap: float = 0.9,
    history: bool = False,
    csti_features: Float[Tensor, "sample feature"] | None = None,
    beta: float = 0.25,
    r: float = 0.25,
    degree: str = "fixed",
    example_input: Tensor | None = None,
) -> Sparsifier:
    """Make a model sparse and return the controller that evolves its links.

    The chosen layers get a bool buffer ``weight_mask``; their weights are set anew and are zero
    off the mask. Parameters stay plain and keep their names, the forward pass has no extra
    operation.

    Parameters
    ----------
    model
        Dense model, trained further by the user's own loop.
    rule
        ``cht``, ``chts``, ``chtss``, ``set``, ``rigl``, ``mest``, ``gmp``, ``granet``,
        ``static``, or a `Rule` of your own.
    sparsity
        Share of absent links in the end: one number for all layers, or a mapping from kind
        (``linear``, ``conv``) or layer name (``features.0``). Kinds not listed, and sparsity 0,
        are dense. The classifier stays dense unless listed by name; depthwise convolutions always.
    epochs, steps
        Length of the training in epochs or in optimizer steps; the schedules depend on it. Exactly
        one of them: with ``steps``, ``update_interval`` counts steps and `Sparsifier` is told, and
        asked about, the number of the step (from 0) instead of the epoch.
    seed
        Of everything random here. Results do not depend on the global generator or the device.
    initial_sparsity
        For rules whose density falls (``chtss``, ``granet``, ``gmp``): where it starts; in a
        mapping, kinds not listed start at their final sparsity. ``None`` starts at 0.5.
    initial_topology
        ``er``, ``bsw``, ``brf`` or ``csti`` (linear layers, needs ``csti_features``), or a
        mapping by kind or layer name.
    weight_init
        ``swi``, ``sparse_kaiming``, ``model`` (as the model came) or ``model_scaled``.
    linear_score, conv_score
        Link-prediction rules of `ch_scores`, for Cannistraci-Hebb growth.
    conv_unfold
        ``im2col``, ``spatial`` or ``position``, see `ch_scores_conv`.
    removal
        ``magnitude``, ``ri``, ``magnitude_soft``, ``ri_soft`` or ``mest``; ``None`` takes the
        rule's own (``magnitude``, and ``mest`` for MEST).
    removal_exponents, exponent_schedule
        Of soft removal, see `removal_exponent`.
    zeta, zeta_schedule
        Share of links replaced in an update, and how it shrinks: ``cosine`` (to 0 at the end of
        the window) or ``constant``.
    density_decay, decay_k
        ``sigmoid``, ``sigmoid_literal``, ``cubic`` or ``linear``, see
        `topospike.topology.sparsity_at`; ``None`` takes the rule's own (``sigmoid`` for CHTss,
        ``cubic`` for GraNet and GMP).
    elastic
        Surplus of elastic mutation (MEST's EM&S) as a share of all positions, 0.05 in the paper;
        it takes the place of ``zeta``. Every update removes down to the scheduled links and grows
        the surplus (half of it late in the evolution), the last one grows none. 0 is off.
    update_interval, start_fraction, stop_fraction
        Epochs (or steps) between updates and the window, see `UpdateSchedule`.
    percolation
        Remove links of dead neurons along chains of layers. Chains are found in the model's graph
        at the first update.
    history
        Start a link that is grown again from the weight it last had, instead of 0.
    early_stop, early_stop_overlap
        Stop evolving when more than this share of the grown links had just been removed, in
        ``all`` layers or ``layer`` by layer; ``off`` never stops. ``None`` takes the rule's own
        (``all`` for ``cht``).
    csti_features
        One flattened raw training image a row.
    beta, r, degree
        Options of ``bsw`` and ``brf``, see `topospike.topology.initial_mask`.
    example_input
        One input batch; without it the shape of the first forward input is remembered.

    Returns
    -------
    Sparsifier
        Call ``attach(optimizer)`` once and ``update_topology(epoch)`` after each epoch.

    Raises
    ------
    ConfigError
        For an unknown name, a number out of range, or a model with nothing to sparsify.

    Notes
    -----
    Bao et al. (2026): convolutions from 20 % to 78 %, linear layers at 99 %, updates every epoch
    in the first 75 % of training. Differences from the public code: link counts are exact
    integers, no optimizer step is skipped at updates, removed-and-regrown links restart at 0, and
    every optimizer slot is cleared, whatever the optimizer.

    Examples
    --------
    >>> import torch
    >>> model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    >>> sparsifier = sparsify(model, "chts", sparsity=0.9, epochs=4)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> sparsifier = sparsifier.attach(optimizer)
    >>> int(model[0].weight_mask.sum()), hasattr(model[2], "weight_mask")
    (205, False)
    >>> sparsifier.update_topology(0).layers["0"].removed
    46
    """
    chosen = RULES[rule] if isinstance(rule, str) else rule
    if elastic:
        chosen = dataclasses.replace(chosen, elastic=elastic)
    settings = EvolutionSettings(
        rule=chosen,
        schedule=schedule_for(
            epochs,
            steps,
            interval=update_interval,
            start_fraction=start_fraction,
            stop_fraction=stop_fraction,
        ),
        seed=seed,
        removal=removal_of(chosen, removal),
        removal_exponents=removal_exponents,
        exponent_schedule=exponent_schedule,
        zeta=zeta,
        zeta_schedule=zeta_schedule,
        density_decay=density_decay or chosen.decay or "sigmoid",
        decay_k=decay_k,
        percolation=percolation,
        conv_unfold=conv_unfold,
        early_stop=early_stop or chosen.early_stop,
        early_stop_overlap=early_stop_overlap,
        history=history,
    )
    _ = WEIGHT_INITS[weight_init]
    plan = build_plan(
        model,
        PlanSettings(
            sparsity=sparsity,
            initial_sparsity=initial_sparsity,
            initial_topology=initial_topology,
            linear_score=linear_score,
            conv_score=conv_score,
            decays=chosen.decay is not None,
        ),
        example=example_input,
    )
    correlation = correlation_for(plan, csti_features)
    masks = {
        name: initial_mask(
            layer.shape,
            layer.initial_topology,
            links=layer.initial_links,
            generator=derived_generator(seed, position, "topology"),
            groups=layer.groups,
            beta=beta,
            r=r,
            degree=degree,
            correlation=correlation,
        )
        for position, (name, layer) in enumerate(plan.items())
    }
    for position, (name, mask) in enumerate(masks.items()):
        module = model.get_submodule(name)
        init_weights(
            module,
            mask,
            kind=weight_init,
            sparsity=plan[name].initial_sparsity,
            generator=derived_generator(seed, position, "weights"),
        )
        register_mask(module, mask)
    return Sparsifier(model, plan, settings, example_input=example_input)


def schedule_for(
    epochs: int | None,
    steps: int | None,
    *,
    interval: int,
    start_fraction: float,
    stop_fraction: float,
) -> UpdateSchedule:
    """Return the schedule in the unit in which the length of the training is given."""
    if (epochs is None) == (steps is None):
        raise ConfigError(
            f"epochs={epochs!r}, steps={steps!r}; give the length of the training in exactly one "
            "of the two, the schedules count the same unit."
        )
    length, unit = (steps, "step") if epochs is None else (epochs, "epoch")
    return UpdateSchedule(length or 0, interval, start_fraction, stop_fraction, unit)


def removal_of(rule: Rule, removal: str | None) -> str:
    """Return the removal criterion; a rule defined by its own criterion keeps it."""
    name = removal or rule.removal
    _ = REMOVAL_CRITERIA[name]
    return name


def correlation_for(
    plan: Mapping[str, LayerPlan], features: Tensor | None
) -> Float[Tensor, "feature feature"] | None:
    """Return the correlation of the input features if a layer starts from it."""
    names = [name for name, layer in plan.items() if layer.initial_topology == "csti"]
    if not names:
        return None
    if features is None:
        raise ConfigError(
            f"layers {', '.join(names)} start from csti, which needs csti_features: raw training "
            "images, flattened, one a row. Pass them, or choose er, bsw or brf."
        )
    return feature_correlation(features.flatten(1))

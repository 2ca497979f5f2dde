"""Stage 2 (evolve): from a dense model to a sparse one under a rule, in one call.

Draws the initial links, sets the initial weights, and hands both to a `Sparsifier`; the arithmetic
is elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from topospike.errors import ConfigError
from topospike.evolve.plan import LayerPlan, build_plan
from topospike.evolve.rules import Rule, derived_generator
from topospike.evolve.settings import Evolution
from topospike.evolve.sparsifier import Sparsifier
from topospike.recipe import SparsitySettings
from topospike.topology import (
    Topology,
    feature_correlation,
    init_weights,
    initial_mask,
    masked_layers,
    original,
    register_mask,
)


def sparsify(
    model: nn.Module,
    rule: str | Rule | SparsitySettings = "chts",
    *,
    epochs: int | None = None,
    steps: int | None = None,
    seed: int = 0,
    csti_features: Float[Tensor, "sample feature"] | None = None,
    example_input: Tensor | None = None,
    **options: Any,
) -> Sparsifier:
    """Make a model sparse and return the controller that evolves its links.

    The chosen layers get a bool buffer ``weight_mask``; their weights are set anew and are zero
    off the mask. Parameters stay plain and keep their names, the forward pass has no extra
    operation.

    Parameters
    ----------
    model
        Dense model, trained further by the user's own loop. Of a compiled model the original is
        meant.
    rule
        ``cht``, ``chts``, ``chtss``, ``set``, ``rigl``, ``mest``, ``gmp``, ``granet``,
        ``static``, a `Rule` of your own, or whole `topospike.recipe.SparsitySettings`.
    epochs, steps
        Length of the training in epochs or in optimizer steps; the schedules depend on it. Exactly
        one of them: with ``steps``, ``update_interval`` counts steps and `Sparsifier` is told, and
        asked about, the number of the step (from 0) instead of the epoch.
    seed
        Of everything random here. Results do not depend on the global generator or the device.
    csti_features
        One flattened raw training image a row, for ``initial_topology="csti"``.
    example_input
        One input batch: it settles which layer is the classifier, and which layers feed which.
        Without it the shape of the first forward input is remembered.
    **options
        Fields of `topospike.recipe.SparsitySettings`, where they are described: ``removal``,
        ``zeta``, ``update_interval``, ``percolation``, ``initial_topology``, ``weight_init``, and
        so on. Besides, ``sparsity`` (default 0.99) and ``initial_sparsity`` give shares of absent
        links as one number for all layers, or as a mapping from kind (``linear``, ``conv``) or
        layer name (``features.0``). Kinds that are not listed, and sparsity 0, are dense. The
        classifier stays dense unless listed by name; depthwise convolutions always.

    Returns
    -------
    Sparsifier
        Call ``attach(optimizer)`` once and ``update_topology(epoch)`` after each epoch.

    Raises
    ------
    ConfigError
        For an unknown name or option, a number out of range, or a model with nothing to sparsify.

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
    if isinstance(rule, SparsitySettings):
        if options:
            raise ConfigError(
                f"sparsify got whole settings and {', '.join(options)} besides; put everything "
                "into the settings (dataclasses.replace)."
            )
    else:
        options.setdefault("sparsity", 0.99)
    model = original(model)
    evolution = Evolution.of(rule, options, epochs=epochs, steps=steps, seed=seed)
    settings = evolution.settings
    decays = evolution.rule.decay is not None
    plan = build_plan(model, settings, decays=decays, example=example_input)
    correlation = correlation_for(plan, csti_features)
    masks = {
        name: initial_mask(
            layer.shape,
            layer.initial_topology,
            links=layer.initial_links,
            generator=derived_generator(seed, position, "topology"),
            groups=layer.layer.groups,
            beta=settings.beta,
            r=settings.r,
            degree=settings.degree,
            correlation=correlation,
        )
        for position, (name, layer) in enumerate(plan.items())
    }
    for position, (name, mask) in enumerate(masks.items()):
        module = plan[name].layer.module
        init_weights(
            module,
            mask,
            kind=settings.weight_init,
            sparsity=plan[name].initial_sparsity,
            generator=derived_generator(seed, position, "weights"),
        )
        register_mask(module, mask)
    return Sparsifier(model, plan, evolution, example_input=example_input)


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


def keep_links(model: nn.Module) -> Sparsifier:
    """Return a controller that keeps the links a model has, for example after pruning.

    It is the rule ``static`` on the masks as they are, for a training of any length.

    Raises
    ------
    TopologyViolation
        If the model has no mask, or a weight off its mask is not zero.

    Examples
    --------
    >>> import torch
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> register_mask(model[0], torch.rand(8, 4) < 0.5)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> keeper = keep_links(model).attach(optimizer)
    >>> model(torch.rand(3, 4)).sum().backward()
    >>> optimizer.step()
    >>> bool(model[0].weight[~model[0].weight_mask].any())
    False
    """
    masks = Topology.from_model(model).masks
    plan: dict[str, LayerPlan] = {}
    for layer in masked_layers(model):
        name = layer.name if layer.attribute == "weight" else layer.parameter
        links, size = int(masks[layer.parameter].count_nonzero()), layer.weight.numel()
        share = 1.0 - links / size
        plan[name] = LayerPlan(layer, share, share, links, links, "kept", "none")
    evolution = Evolution.of("static", {"stop_fraction": 0.0}, epochs=1, steps=None, seed=0)
    return Sparsifier(original(model), plan, evolution)

"""Stage 2 (evolve): what the schedules ask of one update: how many links, how many replaced."""

from __future__ import annotations

from topospike.evolve.plan import LayerPlan
from topospike.evolve.settings import EvolutionSettings
from topospike.topology import active_count, sparsity_at, zeta_at


def target_links(plan: LayerPlan, settings: EvolutionSettings, *, epoch: int) -> int:
    """Return how many links a layer shall have after the update that follows ``epoch``."""
    schedule = settings.schedule
    if plan.initial_links == plan.links or epoch + 1 >= schedule.last:
        return plan.links
    sparsity = sparsity_at(
        epoch + 1,
        initial=plan.initial_sparsity,
        final=plan.sparsity,
        start=schedule.start,
        end=schedule.last,
        kind=settings.density_decay,
        k=settings.decay_k,
    )
    return active_count(plan.size, sparsity)


def replaced_share(settings: EvolutionSettings, *, epoch: int) -> float:
    """Return the share of its links a layer replaces in the update that follows ``epoch``."""
    return zeta_at(
        epoch + 1,
        zeta=settings.zeta,
        end=settings.schedule.stop,
        kind=settings.zeta_schedule,
    )

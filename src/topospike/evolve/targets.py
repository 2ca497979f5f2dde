"""Stage 2 (evolve): what the schedules ask of one update: how many links, which share replaced."""

from __future__ import annotations

from topospike.evolve.plan import LayerPlan
from topospike.evolve.removal import removal_exponent
from topospike.evolve.settings import EvolutionSettings
from topospike.evolve.update import UpdateSettings
from topospike.topology import active_count, share_count, sparsity_at, zeta_at

# Elastic mutation: until this share of the evolution the whole surplus is grown, then half of it.
FULL_SURPLUS_UNTIL = 0.6


def target_links(plan: LayerPlan, settings: EvolutionSettings, *, epoch: int) -> int:
    """Return how many links a layer shall have after the update that follows ``epoch``."""
    surplus = share_count(plan.size, surplus_share(settings, epoch=epoch))
    return min(scheduled_links(plan, settings, epoch=epoch) + surplus, plan.size)


def scheduled_links(plan: LayerPlan, settings: EvolutionSettings, *, epoch: int) -> int:
    """Return the links that the density schedule asks for, without any surplus."""
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


def surplus_share(settings: EvolutionSettings, *, epoch: int) -> float:
    """Return the share of all positions that is grown beyond the schedule (elastic mutation).

    Notes
    -----
    Yuan et al. (2021), as the public Cannistraci-Hebb training code has it: the whole surplus until
    0.6 of the evolution, half of it until the last update, none from there on.
    """
    schedule = settings.schedule
    if epoch + 1 >= schedule.last:
        return 0.0
    early = epoch + 1 <= FULL_SURPLUS_UNTIL * schedule.last
    return settings.rule.elastic * (1.0 if early else 0.5)


def replaced_share(settings: EvolutionSettings, *, epoch: int) -> float:
    """Return the share of its links a layer replaces in the update that follows ``epoch``.

    For a rule with elastic mutation it is the share of all positions that is grown anew.
    """
    if settings.rule.elastic:
        return surplus_share(settings, epoch=epoch)
    return zeta_at(
        epoch + 1,
        zeta=settings.zeta,
        end=settings.schedule.stop,
        kind=settings.zeta_schedule,
    )


def exponent_of_removal(settings: EvolutionSettings, *, epoch: int) -> float:
    """Return the exponent of soft removal in the update that follows ``epoch``."""
    start, end = settings.removal_exponents
    return removal_exponent(
        settings.schedule.progress(epoch),
        start=start,
        end=end,
        schedule=settings.exponent_schedule,
    )


def settings_of_update(
    settings: EvolutionSettings, *, epoch: int, update_index: int
) -> UpdateSettings:
    """Collect what all layers share in the update after ``epoch``."""
    return UpdateSettings(
        rule=settings.rule,
        removal=settings.removal,
        exponent=exponent_of_removal(settings, epoch=epoch),
        unfold=settings.conv_unfold,
        seed=settings.seed,
        update_index=update_index,
    )

"""Data of the figures about training: learning curves and topology updates; nothing drawn."""

from __future__ import annotations

from dataclasses import dataclass

from topospike.contracts import TopologyUpdate
from topospike.metrics_log import Epoch
from topospike.report.folder import Run


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """The training log of one network, one value an epoch; epochs count from 0 as in the log."""

    network: str
    epochs: tuple[int, ...]
    train_loss: tuple[float, ...]
    train_accuracy: tuple[float, ...]
    validation_accuracy: tuple[float | None, ...]
    validation_loss: tuple[float | None, ...] = ()


@dataclass(frozen=True, slots=True)
class TopologyHistory:
    """What every topology update did, in links summed over the layers, and where it led."""

    network: str
    epochs: tuple[int, ...]
    removed: tuple[int, ...]
    percolated: tuple[int, ...]
    grown: tuple[int, ...]
    links: tuple[int, ...]
    sparsity: tuple[float, ...]
    anp: tuple[float, ...]
    anp_hidden: tuple[float, ...]
    itop_rate: tuple[float, ...]


def learning_curves(run: Run) -> tuple[LearningCurve, ...]:
    """Return the learning curve of every network that has a training log."""
    return tuple(
        learning_curve(network.name, network.epochs) for network in run.networks if network.epochs
    )


def learning_curve(network: str, epochs: tuple[Epoch, ...]) -> LearningCurve:
    """Turn log lines into columns."""
    return LearningCurve(
        network=network,
        epochs=tuple(line.epoch for line in epochs),
        train_loss=tuple(line.train_loss for line in epochs),
        train_accuracy=tuple(line.train_accuracy for line in epochs),
        validation_accuracy=tuple(line.validation_accuracy for line in epochs),
        validation_loss=tuple(line.validation_loss for line in epochs),
    )


def topology_histories(run: Run) -> tuple[TopologyHistory, ...]:
    """Return the history of every network whose topology was updated."""
    return tuple(
        topology_history(network.name, network.updates)
        for network in run.networks
        if network.updates
    )


def topology_history(network: str, updates: tuple[TopologyUpdate, ...]) -> TopologyHistory:
    """Sum the changes over the layers of every update."""
    layers = [tuple(update.layers.values()) for update in updates]
    return TopologyHistory(
        network=network,
        epochs=tuple(update.epoch for update in updates),
        removed=tuple(sum(change.removed for change in row) for row in layers),
        percolated=tuple(sum(change.percolated for change in row) for row in layers),
        grown=tuple(sum(change.grown for change in row) for row in layers),
        links=tuple(sum(change.active_after for change in row) for row in layers),
        sparsity=tuple(update.sparsity for update in updates),
        anp=tuple(update.anp for update in updates),
        anp_hidden=tuple(update.anp_hidden for update in updates),
        itop_rate=tuple(update.itop_rate for update in updates),
    )

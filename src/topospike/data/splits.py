"""Data stage: cut a set of labelled images in two, class by class, reproducibly.

The validation split is cut from the training split, so the test split is read only once, at the
end of a run. Each class gives its proportional share (largest remainders, so the total is exact).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64

from topospike.errors import ConfigError

# Several of these meet in one signature with lengths of their own, hence the anonymous axis.
Rows = Int64[np.ndarray, "_"]


def class_shares(counts: Int64[np.ndarray, " class"], total: int) -> Int64[np.ndarray, " class"]:
    """Divide ``total`` over classes in proportion to ``counts``, without exceeding any of them.

    Notes
    -----
    Largest remainders: floor(total * counts / sum(counts)), then one more for the classes with
    the largest fractional parts; the lower class wins a tie.

    Examples
    --------
    >>> class_shares(np.array([5, 3, 2]), 5)
    array([3, 1, 1])
    """
    exact = counts * (total / max(int(counts.sum()), 1))
    shares = np.floor(exact + 1e-9).astype(np.int64)
    open_places = total - int(shares.sum())
    order = np.argsort(-(exact - shares), kind="stable")
    shares[order[:open_places]] += 1
    return shares


def stratified_choice(
    labels: Int64[np.ndarray, " image"], total: int, *, seed: int
) -> tuple[Rows, Rows]:
    """Choose ``total`` rows with the class proportions of ``labels``.

    Parameters
    ----------
    labels
        Class of every image, 0 or larger.
    total
        How many rows to choose, 0 to ``len(labels)``.
    seed
        Seed of this choice; nothing else influences it.

    Returns
    -------
    chosen, rest
        Sorted row numbers; together every row exactly once.

    Raises
    ------
    ConfigError
        If ``total`` is outside 0..``len(labels)``.

    Examples
    --------
    >>> chosen, rest = stratified_choice(np.array([0, 0, 0, 0, 1, 1]), 3, seed=0)
    >>> np.array([0, 0, 0, 0, 1, 1])[chosen]
    array([0, 0, 1])
    """
    if not 0 <= total <= len(labels):
        raise ConfigError(
            f"cannot choose {total} of {len(labels)} images; choose that many or less"
        )
    generator = np.random.default_rng(seed)
    counts = np.bincount(labels) if len(labels) else np.zeros(1, np.int64)
    chosen = np.zeros(len(labels), dtype=bool)
    for label, share in enumerate(class_shares(counts, total)):
        members = np.flatnonzero(labels == label)
        chosen[generator.permutation(members)[:share]] = True
    return np.flatnonzero(chosen), np.flatnonzero(~chosen)


def train_validation_rows(
    labels: Int64[np.ndarray, " image"],
    validation_fraction: float,
    *,
    seed: int,
    limit: int | None = None,
) -> tuple[Rows, Rows]:
    """Rows of the training split used for training, and those held back for validation.

    Parameters
    ----------
    labels
        Class of every image of the training split.
    validation_fraction
        Share held back, in [0, 1).
    seed
        Seed of the run.
    limit
        Use only this many images, training and validation together (all of them if there are
        fewer); ``None`` uses all.

    Returns
    -------
    train, validation
        Sorted and disjoint row numbers.

    Raises
    ------
    ConfigError
        If the fraction leaves nothing to train on.

    Notes
    -----
    The validation split has round(fraction * images) images, at least 1 if the fraction is
    positive.
    """
    rows = limited_rows(labels, limit, seed=seed)
    total = round(validation_fraction * len(rows))
    if validation_fraction > 0:
        total = max(total, 1)
    if total >= len(rows):
        raise ConfigError(
            f"data.validation_fraction = {validation_fraction} of {len(rows)} images leaves none "
            "to train on; use a smaller fraction or more images"
        )
    validation, train = stratified_choice(labels[rows], total, seed=seed)
    return rows[train], rows[validation]


def limited_rows(labels: Int64[np.ndarray, " image"], limit: int | None, *, seed: int) -> Rows:
    """Row numbers of a stratified, seeded subset of at most ``limit`` images (all for ``None``)."""
    if limit is None or limit >= len(labels):
        return np.arange(len(labels))
    chosen, _ = stratified_choice(labels, limit, seed=seed)
    return chosen

"""Stage topology: links where input features correlate (CSTI), for layers fed by data.

The strength is the absolute value of Pearson's r over the samples, with an empty diagonal; constant
features correlate with nothing. Raw features are expected: images before normalisation and
augmentation.
"""

from __future__ import annotations

import warnings

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from topospike.errors import NonFiniteError, ShapeError
from topospike.topology.bipartite import mask_of, require_links

CHUNK = 4096


def feature_correlation(
    features: Float[Tensor, "sample feature"],
) -> Float[Tensor, "feature feature"]:
    """Return the absolute Pearson correlation of every pair of features.

    Parameters
    ----------
    features : float, shape (sample, feature)
        One flattened training image a row; at least two rows.

    Returns
    -------
    float64, shape (feature, feature)
        Exactly symmetric, in [0, 1], 0 on the diagonal and at constant features. No unit.

    Raises
    ------
    ShapeError
        If there are not two axes or fewer than two samples.
    NonFiniteError
        If a feature is NaN or infinite.

    Notes
    -----
    Two passes in double precision, over blocks of samples so that no double copy of the whole data
    is made. Constant features are found by their range: their variance can be a rounding error
    above zero.

    Examples
    --------
    >>> features = torch.tensor([[0.0, 0.0, 5.0], [1.0, -2.0, 5.0]])
    >>> feature_correlation(features).round(decimals=6).tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    if features.dim() != 2 or features.shape[0] < 2:
        raise ShapeError(
            f"features have shape {tuple(features.shape)}; (sample, feature) with at least two "
            "samples is required. Flatten images with .flatten(1)."
        )
    low, high = features.amin(dim=0), features.amax(dim=0)
    if not bool((low.isfinite() & high.isfinite()).all()):
        raise NonFiniteError("the features hold NaN or infinity; remove these samples.")
    mean = features.mean(dim=0, dtype=torch.float64)
    product = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=features.device)
    for block in features.split(CHUNK):
        centred = block.double() - mean
        product.addmm_(centred.T, centred)
    scale = product.diagonal().sqrt()
    correlation = (product / scale[:, None] / scale).abs_()
    constant = low == high
    correlation[constant] = 0.0
    correlation[:, constant] = 0.0
    correlation = torch.maximum(correlation, correlation.T).clamp_(max=1.0)
    return correlation.fill_diagonal_(0.0)


def csti_mask(
    shape: tuple[int, int],
    *,
    links: int,
    correlation: Float[Tensor, "feature feature"],
    generator: Generator,
) -> Bool[Tensor, "n_out n_in"]:
    """Put links where input features correlate most (correlated sparse topological initialisation).

    Parameters
    ----------
    shape
        (n_out, n_in); any size. The correlation matrix is tiled and cropped to it, so a hidden
        layer of 2 x feature nodes repeats the pattern twice.
    links
        Exact number of links.
    correlation : float, shape (feature, feature)
        Correlation of the input features with an empty diagonal, as
        `feature_correlation` returns it. A sign does not count.
    generator
        Breaks ties: tiling makes every value appear several times.

    Raises
    ------
    ConfigError
        If ``links`` is outside 1..n_out * n_in.
    ShapeError
        If ``correlation`` is not a square matrix.
    NonFiniteError
        If ``correlation`` holds NaN or infinity.

    Warns
    -----
    UserWarning
        If fewer pairs correlate than links are needed; the rest is placed at random.

    Notes
    -----
    Zhang et al. (2024). The public code returns the links above or equal to the (K+1)-th value,
    at least one link too many; here there are exactly ``links``.

    Examples
    --------
    >>> correlation = torch.tensor([[0.0, 0.9, 0.1], [0.9, 0.0, 0.2], [0.1, 0.2, 0.0]])
    >>> generator = torch.Generator().manual_seed(0)
    >>> csti_mask((3, 3), links=4, correlation=correlation, generator=generator).int().tolist()
    [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    """
    require_links(shape, links)
    if correlation.dim() != 2 or correlation.shape[0] != correlation.shape[1]:
        raise ShapeError(
            f"correlation has shape {tuple(correlation.shape)}; (feature, feature) is required."
        )
    if not bool(correlation.isfinite().all()):
        raise NonFiniteError("correlation holds NaN or infinity; give constant features a 0.")
    features = correlation.shape[0]
    row = torch.arange(shape[0], device=correlation.device) % features
    column = torch.arange(shape[1], device=correlation.device) % features
    strength = correlation.abs()[row[:, None], column].flatten().to(generator.device)
    threshold = strength.topk(links).values[-1]
    if threshold == 0 and links < len(strength):
        warnings.warn(
            f"only {int((strength > 0).sum())} cells of a {shape[0]} x {shape[1]} layer have "
            f"correlated features but {links} links are required; the rest is placed at random.",
            stacklevel=2,
        )
    certain = (strength > threshold).nonzero().flatten()
    tied = (strength == threshold).nonzero().flatten()
    order = torch.randperm(tied.numel(), generator=generator, device=generator.device)
    return mask_of(torch.cat([certain, tied[order[: links - certain.numel()]]]), shape)

r"""Stage 2 (evolve): Cannistraci-Hebb scores of convolution kernels.

A convolution becomes a bipartite graph by unfolding. ``im2col``: one column for every weight
position (channel, kernel row, kernel column), the graph of the im2col matrix product. ``spatial``:
one node for every (channel, position) of an infinite map; all translated copies of a weight have
the same score, so the graph reduces to correlations over shifts s,

.. math:: DD_{oo's} = \sum_{i,d} K_{oid} K_{o'i,d-s}, \qquad
          TT_{ii's} = \sum_{o,a} K_{oia} K_{oi',a+s},

four convolutions in all. ``position``: one channel graph for each kernel position, independent of
each other. Scores of linear layers are in `link_prediction`.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from topospike.errors import ConfigError, ShapeError
from topospike.evolve.link_prediction import ch_scores
from topospike.evolve.precision import exact_float32
from topospike.evolve.score_rules import SCORE_RULES, ScoreRule

UNFOLDINGS = ("im2col", "spatial", "position")


def ch_scores_conv(
    mask: Bool[Tensor, "n_out n_in height width"],
    rule: str = "CH3-L3n",
    unfold: str = "im2col",
    *,
    groups: int = 1,
) -> Float[Tensor, "n_out n_in height width"]:
    """Score every absent weight of a convolution kernel by a Cannistraci-Hebb rule.

    Parameters
    ----------
    mask : bool, shape (n_out, n_in / groups, height, width)
        Present weights, in the layout of ``torch.nn.Conv2d.weight``.
    rule
        A rule of `ch_scores`; ``spatial`` takes node-based rules only.
    unfold
        ``im2col``, ``spatial`` or ``position``, see the module text.
    groups
        Groups of the convolution; each is a graph of its own.

    Returns
    -------
    same shape as ``mask``
        Scores as `ch_scores` returns them. A depthwise kernel (one output channel a group) has no
        path of length 3 under ``im2col``, so all its scores are 0.

    Raises
    ------
    ShapeError
        If ``mask`` is not a four-dimensional bool tensor or ``groups`` does not divide n_out.
    ConfigError
        If ``unfold`` or ``rule`` is unknown, or a path-based rule meets ``spatial``.

    Notes
    -----
    The text of Bao et al. (2026) says only that the layer is unfolded and scored with CH3-L3n, and
    no code for convolutions is public; ``im2col`` is our reading (each weight is exactly one link),
    ``spatial`` the literal one.

    Examples
    --------
    >>> mask = torch.ones(4, 3, 3, 3, dtype=torch.bool)
    >>> mask[0, 0, 1, 1] = False
    >>> float(ch_scores_conv(mask, "CH3-L3n")[0, 0, 1, 1])
    29.0
    """
    check_kernel_mask(mask, groups)
    if unfold not in UNFOLDINGS:
        raise ConfigError(f"unknown unfolding {unfold!r}. Known: {', '.join(UNFOLDINGS)}.")
    score = {"im2col": im2col_scores, "spatial": spatial_scores, "position": position_scores}
    parts = [score[unfold](part, SCORE_RULES[rule]) for part in mask.chunk(groups)]
    return torch.cat(parts)


def check_kernel_mask(mask: Tensor, groups: int) -> None:
    """Raise `ShapeError` unless ``mask`` is a four-dimensional bool tensor that groups divide."""
    if mask.ndim != 4 or mask.dtype != torch.bool:
        raise ShapeError(
            f"the mask has shape {tuple(mask.shape)} and dtype {mask.dtype}; a bool tensor "
            "(n_out, n_in / groups, height, width) is required. For linear layers call ch_scores."
        )
    if groups < 1 or mask.shape[0] % groups:
        raise ShapeError(
            f"groups={groups} does not divide the {mask.shape[0]} output channels of the mask; "
            "pass the groups of the convolution."
        )


def im2col_scores(mask: Bool[Tensor, "n_out n_in height width"], rule: ScoreRule) -> Tensor:
    """Score the im2col matrix: each weight is one link."""
    return ch_scores(mask.flatten(1), rule.name).view(mask.shape)


def position_scores(mask: Bool[Tensor, "n_out n_in height width"], rule: ScoreRule) -> Tensor:
    """Score the channel graph of every kernel position by itself."""
    positions = mask.flatten(2).unbind(2)
    return torch.stack([ch_scores(part, rule.name) for part in positions], 2).view(mask.shape)


def spatial_scores(mask: Bool[Tensor, "n_out n_in height width"], rule: ScoreRule) -> Tensor:
    """Score translation classes of weights on an infinite map, by correlations over shifts."""
    if rule.paths:
        raise ConfigError(
            f"unfold='spatial' has no path-based form (rule {rule.name!r}); use CH2-L3n or "
            "CH3-L3n, or unfold='im2col'."
        )
    margin = (mask.shape[2] - 1, mask.shape[3] - 1)
    with exact_float32(mask.device):
        kernel = mask.float()
        swapped = kernel.transpose(0, 1)
        # Shift s sits at index s + margin of the last two axes.
        row_shared = functional.conv2d(kernel, kernel, padding=margin)
        column_shared = functional.conv2d(swapped, swapped, padding=margin).transpose(0, 1)
        by_row = shift_weights(row_shared, kernel.sum((1, 2, 3)), rule)
        by_column = shift_weights(column_shared, kernel.sum((0, 2, 3)), rule)
        from_rows = functional.conv2d(by_row, swapped.flip(2, 3))
        from_columns = functional.conv2d(by_column, kernel).transpose(0, 1).flip(2, 3)
        scores = from_rows + from_columns
        # Convolution algorithms may leave rounding residue where the exact sum is zero.
        unreachable = functional.conv2d((by_row > 0).float(), swapped.flip(2, 3)) < 0.5
        return scores.masked_fill_(unreachable | mask, 0.0)


def shift_weights(shared: Tensor, degree: Tensor, rule: ScoreRule) -> Tensor:
    """Weigh the second channel at each shift; shared counts are integers, so rounding is safe."""
    shared = shared.round()
    return rule.weight(shared, degree.view(1, -1, 1, 1)).masked_fill_(shared < 0.5, 0.0)

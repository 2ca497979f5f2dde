r"""Stage 2 (evolve): Cannistraci-Hebb scores of the absent links of a layer.

Legend: B mask (n_out, n_in); DD = B B^T, TT = B^T B shared neighbours of rows and of columns;
d degrees; f the weight of a common neighbour; S scores. Row = output neuron, column = input
neuron. The node-based form is

.. math:: S = P B + B Q^T, \quad P_{uz} = [DD_{uz} > 0] f(DD_{uz}, d_z), \quad
          Q_{vc} = [TT_{vc} > 0] f(TT_{vc}, d_c),

that is one function (`nodes`), applied to B and to its transpose. Path-based forms are here.

A convolution becomes a bipartite graph by unfolding. ``im2col``: one column for every weight
position (channel, kernel row, kernel column), the graph of the im2col matrix product. ``spatial``:
one node for every (channel, position) of an infinite map; all translated copies of a weight have
the same score, so the graph reduces to correlations over shifts s,

.. math:: DD_{oo's} = \sum_{i,d} K_{oid} K_{o'i,d-s}, \qquad
          TT_{ii's} = \sum_{o,a} K_{oia} K_{oi',a+s},

four convolutions in all. ``position``: one channel graph for each kernel position, independent of
each other. This module scores; it does not choose links.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from topospike.errors import ConfigError, ShapeError
from topospike.evolve.nodes import METHODS, SCORE_RULES, ScoreRule, node_scores

UNFOLDINGS = ("im2col", "spatial", "position")
PRECISION_SWITCHES: tuple[Any, ...] = (
    torch.backends.cuda.matmul,
    torch.backends.cudnn.conv,  # pyright: ignore[reportAttributeAccessIssue]
    torch.backends.mkldnn.matmul,  # pyright: ignore[reportAttributeAccessIssue]
    torch.backends.mkldnn.conv,  # pyright: ignore[reportAttributeAccessIssue]
)


def ch_scores(
    mask: Bool[Tensor, "n_out n_in"], rule: str = "CH2-L3n", *, method: str = "auto"
) -> Float[Tensor, "n_out n_in"]:
    r"""Score every absent link of one bipartite layer by a Cannistraci-Hebb rule.

    Parameters
    ----------
    mask : bool, shape (n_out, n_in)
        Present links. Row = output neuron, column = input neuron.
    rule
        ``CH2-L3n``, ``CH3-L3n`` (node-based), ``CH2-L3p``, ``CH3-L3p``, ``CH1-L3p`` or ``RA-L3p``
        (path-based, for small layers: time grows with the number of paths of length 3).
    method
        How node-based scores are computed; the result does not depend on it beyond rounding.
        ``dense`` matrix products on the mask's device; ``gather`` sparse-dense products (CPU);
        ``sparse`` sparse-sparse products (CPU, ultra-sparse layers); ``auto`` picks for each side
        of the layer by its density.

    Returns
    -------
    shape (n_out, n_in)
        float32 for node-based, float64 for path-based rules, on the mask's device. Zero where no
        path of length 3 exists and on present links. Dimensionless.

    Raises
    ------
    ShapeError
        If ``mask`` is not a two-dimensional bool tensor.
    ConfigError
        If ``rule`` or ``method`` is unknown.

    Notes
    -----
    With DD and TT the shared neighbours of rows and columns, ``Z`` the rows on a path between u and
    v and ``K`` the columns on one,

    .. math:: CH2\text{-}L3n(u, v) = \sum_{z \in Z} \frac{1 + DD_{uz}}{d_z - DD_{uz}}
              + \sum_{c \in K} \frac{1 + TT_{vc}}{d_c - TT_{vc}},

    CH3-L3n the same with numerator 1; CH2-L3p sums
    :math:`\sqrt{(1+i_c)(1+i_z)} / \sqrt{(1+e_c)(1+e_z)}` over paths u-c-z-v, CH3-L3p the same with
    numerator 1, CH1-L3p :math:`\sqrt{i_c i_z}/\sqrt{d_c d_z}`, RA-L3p
    :math:`1/\sqrt{d_c d_z}`. Ties are not broken here. Cost of the dense form:
    4 n_out n_in (n_out + n_in) operations.

    Differs from the public reference code: present links get 0 (there: undefined values), and no
    integer model numbers select the rule.

    References
    ----------
    .. [1] Zhang et al., "Brain network science modelling of sparse neural networks enables
       Transformers and LLMs to perform as fully connected", 2025, equation 3.
    .. [2] Bao et al., 2026, equations A3 and A4.
    .. [3] Muscoloni, Michieli, Cannistraci, "Adaptive network automata modelling of complex
       networks", 2020 (path-based forms).

    Examples
    --------
    All links of a 5 x 7 layer but one: four rows of weight 7 / 1, six columns of weight 5 / 1.

    >>> mask = torch.ones(5, 7, dtype=torch.bool)
    >>> mask[1, 2] = False
    >>> float(ch_scores(mask, "CH2-L3n")[1, 2])
    58.0
    """
    require_bool_matrix(mask)
    chosen = SCORE_RULES[rule]
    if method not in METHODS:
        raise ConfigError(f"unknown method {method!r} of ch_scores. Known: {', '.join(METHODS)}.")
    with exact_float32(mask.device):
        scores = path_scores(mask, chosen) if chosen.paths else node_scores(mask, chosen, method)
        return scores.masked_fill_(mask, 0.0)


def require_bool_matrix(mask: Tensor) -> None:
    """Raise `ShapeError` unless ``mask`` is a two-dimensional bool tensor."""
    if mask.ndim != 2 or mask.dtype != torch.bool:
        raise ShapeError(
            f"the mask has shape {tuple(mask.shape)} and dtype {mask.dtype}; a bool matrix "
            "(n_out, n_in) is required. Convert with .bool(); for convolutions call "
            "ch_scores_conv."
        )


def path_scores(mask: Bool[Tensor, "n_out n_in"], rule: ScoreRule) -> Float[Tensor, "n_out n_in"]:
    """Return the sum over paths u-c-z-v of the geometric mean of the two weights, in float64.

    Only common neighbours are enumerated: for each u the product runs over the columns c of u and
    the rows z that share one with it.
    """
    if mask.shape[0] > mask.shape[1]:
        return path_scores(mask.T, rule).T.contiguous()
    links = mask.double()
    row_shared = links @ links.T
    by_row = rule.weight(row_shared, links.sum(1)).sqrt_()
    by_column = rule.weight(links.T @ links, links.sum(0)).sqrt_().T
    scores = torch.zeros_like(links)
    for u in range(mask.shape[0]):
        columns = mask[u].nonzero().squeeze(1)
        rows = row_shared[u].nonzero().squeeze(1)
        steps = links[rows][:, columns] * by_row[u, rows].unsqueeze(1)
        scores[u] = (links[rows] * (steps @ by_column[columns])).sum(0)
    return scores


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


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Run a block without gradients, autocast and reduced-precision float32 products.

    Scores are sums of small rationals and ties decide which links are grown, so the products behind
    them must not be rounded to TF32 or bfloat16, whatever precision training itself uses.
    The previous settings are restored on the way out, also after an error.

    Examples
    --------
    >>> with exact_float32(torch.device("cpu")):
    ...     torch.backends.mkldnn.matmul.fp32_precision
    'ieee'
    """
    previous = [switch.fp32_precision for switch in PRECISION_SWITCHES]
    try:
        for switch in PRECISION_SWITCHES:
            switch.fp32_precision = "ieee"
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        for switch, precision in zip(PRECISION_SWITCHES, previous, strict=True):
            switch.fp32_precision = precision

r"""Stage 2 (evolve): Cannistraci-Hebb scores of the absent links of one bipartite layer.

Legend: B mask (n_out, n_in); DD = B B^T, TT = B^T B shared neighbours of rows and of columns;
d degrees; f the weight of a common neighbour; S scores. Row = output neuron, column = input
neuron. The node-based form is

.. math:: S = P B + B Q^T, \quad P_{uz} = [DD_{uz} > 0] f(DD_{uz}, d_z), \quad
          Q_{vc} = [TT_{vc} > 0] f(TT_{vc}, d_c),

that is one function (`common_neighbours`), applied to B and to its transpose. Path-based forms are
here. This module scores; it does not choose links.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from topospike.errors import ConfigError, ShapeError
from topospike.evolve.common_neighbours import METHODS, node_scores
from topospike.evolve.precision import exact_float32
from topospike.evolve.score_rules import SCORE_RULES, ScoreRule


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

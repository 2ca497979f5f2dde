r"""Stage 2 (evolve): the link-prediction rules as data, and the node-based scores.

Every rule weighs a common neighbour z of the absent pair (u, v) by a function of two integers:
``shared``, the number of neighbours z has in common with the seed on its own side, and ``degree``,
the degree of z. With iLCL = shared and eLCL = degree - shared - 1 (the -1 is z's own link to the
other seed), the Cannistraci-Hebb weights are

.. math:: CH2: (1 + iLCL) / (1 + eLCL), \quad CH3: 1 / (1 + eLCL).

A node-based rule (suffix ``n``) adds these weights over common neighbours; a path-based rule
(suffix ``p``) adds the geometric mean of the two weights over paths of length 3 (in `scores`).

One side of a layer with mask L (n, m) contributes to a node-based score, with D = L L^T the shared
neighbours of its rows, d their degrees and the rule's weight f = numerator / denominator,

.. math:: (P L)_{uv} = \sum_z [D_{uz} > 0] f(D_{uz}, d_z) L_{zv};

the layer's score is that of B plus, transposed, that of B^T. D is symmetric and never exists as a
whole: each tile above its diagonal is counted once and serves both triangles. Counts are whole
numbers, so they may be taken in 8-bit arithmetic; the second product is in float32. Nothing here
checks input or chooses links.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from topospike.registry import Registry

METHODS = ("auto", "dense", "gather", "sparse")
# Elements of a tile of D: small enough for a core's cache, large enough to fill an accelerator.
CPU_TILE = 2**20
DEVICE_TILE = 2**24
# Matrix products like whole blocks.
TILE_MULTIPLE = 64
# Measured on one x86 core. Below this share of filled entries in D a sparse-sparse product wins;
# below this density a sparse-dense product beats the dense one.
SPARSE_FILL = 0.03
GATHER_DENSITY = 0.06
# Instruction sets with 8-bit dot products; without one, counting in float32 is faster.
INT8_INSTRUCTIONS = ("avx512_vnni", "avx_vnni", "amx_int8")
# A torch tensor or a NumPy array: the formulas below are written once and serve both.
Array = Any


@dataclass(frozen=True, slots=True)
class ScoreRule:
    """A link-prediction rule: the weight of one common neighbour, and what is summed.

    Attributes
    ----------
    numerator
        ``numerator(shared)``, element by element; 0 where ``shared`` is 0.
    denominator
        ``denominator(shared, degree)``, at least 1, a new array.
    paths
        ``True`` sums over paths of length 3, ``False`` over common neighbours.
    """

    name: str
    numerator: Callable[[Array], Array]
    denominator: Callable[[Array, Array], Array]
    paths: bool

    def weight(self, shared: Array, degree: Array) -> Array:
        """Return the weight of a common neighbour; 0 where nothing is shared."""
        return self.numerator(shared) / self.denominator(shared, degree)


def one(shared: Array) -> Array:
    """Return 1 where something is shared, else 0 (shared neighbours are whole numbers)."""
    return shared.clip(max=1)


def one_and_internal(shared: Array) -> Array:
    """Return 1 + iLCL where something is shared, else 0."""
    return shared + one(shared)


def internal(shared: Array) -> Array:
    """Return iLCL."""
    return shared


def one_and_external(shared: Array, degree: Array) -> Array:
    """Return 1 + eLCL; the clip only meets pairs that are never absent links."""
    return (degree - shared).clip(1)


def degree_alone(shared: Array, degree: Array) -> Array:
    """Return the degree, at least 1."""
    return degree.clip(1)


SCORE_RULES: Registry[ScoreRule] = Registry(
    "score rule",
    {
        rule.name: rule
        for rule in (
            ScoreRule("CH2-L3n", one_and_internal, one_and_external, paths=False),
            ScoreRule("CH3-L3n", one, one_and_external, paths=False),
            ScoreRule("CH2-L3p", one_and_internal, one_and_external, paths=True),
            ScoreRule("CH3-L3p", one, one_and_external, paths=True),
            ScoreRule("CH1-L3p", internal, degree_alone, paths=True),
            ScoreRule("RA-L3p", one, degree_alone, paths=True),
        )
    },
)


def node_scores(
    mask: Bool[Tensor, "n_out n_in"], rule: ScoreRule, method: str
) -> Float[Tensor, "n_out n_in"]:
    """Return the sum over common neighbours: the row side plus the column side."""
    by_rows = one_side(mask.contiguous(), rule, method)
    return by_rows.add_(one_side(mask.T.contiguous(), rule, method).T)


def one_side(mask: Bool[Tensor, "n m"], rule: ScoreRule, method: str) -> Float[Tensor, "n m"]:
    """Return P L of the module formula, by the chosen or the cheapest method."""
    if method == "auto":
        method = cheapest_method(mask)
    if method == "dense":
        return one_side_dense(mask, rule)
    if method == "gather":
        return one_side_gather(mask.cpu(), rule).to(mask.device)
    return one_side_sparse(mask.cpu(), rule).to(mask.device)


def cheapest_method(mask: Bool[Tensor, "n m"]) -> str:
    """Choose how to compute one side from the expected fill of D and from the density."""
    if mask.device.type != "cpu":
        return "dense"
    density = int(mask.count_nonzero()) / max(mask.numel(), 1)
    if mask.shape[1] * density**2 < SPARSE_FILL:
        return "sparse"
    return "gather" if density < GATHER_DENSITY else "dense"


def row_tiles(n: int, length: int, elements: int) -> list[slice]:
    """Cut n rows so that a tile of them, each of this length, stays below ``elements``."""
    step = max(1, elements // max(length, 1))
    if step > TILE_MULTIPLE:
        step -= step % TILE_MULTIPLE
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]


def one_side_dense(mask: Bool[Tensor, "n m"], rule: ScoreRule) -> Float[Tensor, "n m"]:
    """Return P L with dense products on the mask's device, the upper tiles of D serving both."""
    n = mask.shape[0]
    links = mask.float()
    degree = links.sum(1)
    scores = torch.zeros_like(links)
    count = Counts(mask, links)
    for rows in row_tiles(n, n, CPU_TILE if links.is_cpu else DEVICE_TILE):
        shared = count.tile(rows)
        numerator = rule.numerator(shared)
        denominator = rule.denominator(shared, degree[rows.start :])
        weight = torch.div(numerator, denominator, out=denominator)
        scores[rows].addmm_(weight, links[rows.start :])
        behind = rows.stop - rows.start
        if rows.stop < n:
            below = rule.denominator(shared[:, behind:], degree[rows].unsqueeze(1))
            weight = torch.div(numerator[:, behind:], below, out=below)
            scores[rows.stop :].addmm_(weight.T, links[rows])
    return scores


class Counts:
    """Tiles of D = L L^T, exact, in 8-bit arithmetic where the processor has it."""

    def __init__(self, mask: Bool[Tensor, "n m"], links: Float[Tensor, "n m"]) -> None:
        self.narrow = mask.is_cpu and has_int8_products()
        self.left = bytes_of(mask) if self.narrow else links
        self.right = bytes_of(mask.T) if self.narrow else links.T

    def tile(self, rows: slice) -> Float[Tensor, "tile rest"]:
        """Return the rows of a tile from the diagonal on."""
        left, right = self.left[rows], self.right[:, rows.start :]
        if self.narrow:
            # No public name yet; torch 2.11 to 2.13 have it on every device.
            return torch._int_mm(left, right).float()  # pyright: ignore[reportPrivateImportUsage]
        return left @ right


def bytes_of(mask: Bool[Tensor, "n m"]) -> Tensor:
    """Copy a mask to bytes row by row; a mere cast may keep odd strides of axes of length 1."""
    return torch.empty(mask.shape, dtype=torch.int8).copy_(mask)


@cache
def has_int8_products() -> bool:
    """Say whether this processor multiplies bytes faster than floats."""
    capabilities: Any = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in INT8_INSTRUCTIONS)


def one_side_gather(mask: Bool[Tensor, "n m"], rule: ScoreRule) -> Float[Tensor, "n m"]:
    """Return P L with L in CSR form and dense tiles of D: each link adds a row to a row."""
    from scipy import sparse

    links: Any = sparse.csr_matrix(mask.numpy(), dtype="float32")
    by_column = links.T.tocsr()
    dense = mask.T.float()
    degree = mask.sum(1).float().unsqueeze(1)
    scores = torch.empty(mask.shape)
    for rows in row_tiles(mask.shape[0], mask.shape[0], CPU_TILE // 4):
        # D is symmetric: a tile of its columns, so that both products read rows.
        shared = torch.from_numpy(links @ dense[:, rows].contiguous().numpy())
        weight = rule.weight(shared, degree)
        scores[rows] = torch.from_numpy(by_column @ weight.numpy()).T
    return scores


def one_side_sparse(mask: Bool[Tensor, "n m"], rule: ScoreRule) -> Float[Tensor, "n m"]:
    """Return P L with L and D in CSR form."""
    from scipy import sparse

    links: Any = sparse.csr_matrix(mask.numpy(), dtype="float32")
    by_column = links.T.tocsr()
    degree = mask.sum(1).numpy().astype("float32")
    scores = torch.empty(mask.shape)
    for rows in row_tiles(mask.shape[0], max(mask.shape), DEVICE_TILE):
        shared: Any = links[rows] @ by_column
        shared.data = rule.weight(shared.data, degree[shared.indices])
        scores[rows] = torch.from_numpy((shared @ links).toarray())
    return scores

"""The shapes that public functions state are those they take."""

import torch
from beartype import beartype
from jaxtyping import jaxtyped

from topospike.evolve import active_hidden_neurons, active_neurons, percolate, percolate_network
from topospike.topology import relative_importance


def test_masks_of_different_layers_have_different_shapes():
    masks = [torch.ones(3, 2, 3, 3).bool(), torch.ones(4, 3, 1, 1).bool(), torch.ones(5, 4).bool()]
    named = dict(zip("abc", masks, strict=True))
    check = jaxtyped(typechecker=beartype)
    assert len(check(percolate)(masks)) == 3
    assert check(active_neurons)(masks) == 1.0
    assert check(percolate_network)(named, [("a", "b", "c")]).keys() == named.keys()
    assert check(active_hidden_neurons)(named, [("a", "b", "c")]) == 1.0
    assert check(relative_importance)(torch.ones(4, 2, 3, 3), groups=2).shape == (4, 2, 3, 3)

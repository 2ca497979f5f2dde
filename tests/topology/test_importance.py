from pathlib import Path

import numpy as np
import torch

from topospike.topology import bipartite_graphs, relative_importance

ORACLE = Path(__file__).parent.parent / "oracles" / "cht" / "removal_40x30.npz"


def test_relative_importance_equals_the_reference_to_1e_6():
    stored = np.load(ORACLE, allow_pickle=False)
    ours = relative_importance(torch.from_numpy(stored["weight"])).numpy()
    assert np.abs(ours - stored["ri_score"]).max() <= 1e-6 * stored["ri_score"].max()


def test_relative_importance_of_a_kernel_is_that_of_its_im2col_matrix():
    weight = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    expected = relative_importance(weight.flatten(1)).view(weight.shape)
    assert torch.equal(relative_importance(weight), expected)


def test_relative_importance_of_an_empty_layer_is_zero():
    assert not relative_importance(torch.zeros(3, 4)).any()


def test_relative_importance_of_a_grouped_kernel_is_that_of_each_group():
    weight = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    parts = [relative_importance(part) for part in weight.chunk(2)]
    assert torch.equal(relative_importance(weight, groups=2), torch.cat(parts))
    assert bipartite_graphs(weight, groups=2).shape == (2, 2, 12)

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from topospike.errors import ConfigError, ShapeError
from topospike.topology import bipartite_graphs, matrix_shape, to_bipartite
from topospike.topology.bipartite import mask_of, require_links

SHAPES = st.lists(st.integers(1, 5), min_size=2, max_size=5).map(tuple)


def test_unfolded_convolution_is_the_im2col_product():
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 3, 6, 7, generator=generator, dtype=torch.float64)
    weight = torch.randn(4, 3, 3, 2, generator=generator, dtype=torch.float64)
    columns = nn.functional.unfold(image, kernel_size=(3, 2))
    direct = nn.functional.conv2d(image, weight)
    product = (to_bipartite(weight) @ columns).view_as(direct)
    torch.testing.assert_close(product, direct, rtol=0, atol=1e-12)


def test_grouped_convolution_is_independent_graphs():
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 6, 5, 5, generator=generator, dtype=torch.float64)
    weight = torch.randn(4, 3, 3, 3, generator=generator, dtype=torch.float64)
    direct = nn.functional.conv2d(image, weight, groups=2)
    parts = [
        graph @ nn.functional.unfold(half, kernel_size=3)
        for graph, half in zip(bipartite_graphs(weight, groups=2), image.chunk(2, 1), strict=True)
    ]
    torch.testing.assert_close(torch.cat(parts, 1).view_as(direct), direct, rtol=0, atol=1e-12)


def test_column_order_is_channel_then_row_then_column():
    weight = torch.arange(12).reshape(1, 2, 2, 3)
    assert to_bipartite(weight).tolist() == [list(range(12))]


def test_linear_weights_are_the_matrix_itself():
    weight = torch.zeros(3, 5)
    to_bipartite(weight)[1, 2] = 1.0
    assert weight[1, 2] == 1.0
    assert matrix_shape(weight.shape) == (3, 5)


@settings(deadline=None, derandomize=True, max_examples=25)
@given(shape=SHAPES)
def test_folding_undoes_unfolding(shape):
    weight = torch.arange(torch.Size(shape).numel()).reshape(shape)
    matrix = to_bipartite(weight)
    assert tuple(matrix.shape) == matrix_shape(shape)
    for groups in (g for g in range(1, shape[0] + 1) if shape[0] % g == 0):
        graphs = bipartite_graphs(weight, groups=groups)
        assert len(graphs) == groups
        assert torch.equal(graphs.reshape(shape), weight)


def test_channels_last_weights_unfold_to_the_same_matrix():
    weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(1))
    last = weight.to(memory_format=torch.channels_last)
    assert torch.equal(to_bipartite(last), to_bipartite(weight))


def test_mask_of_positions():
    assert mask_of(torch.tensor([0, 5]), (2, 3)).tolist() == [
        [True, False, False],
        [False, False, True],
    ]


def test_errors_name_the_shapes():
    with pytest.raises(ShapeError, match=r"\(7,\) is not a bipartite graph"):
        to_bipartite(torch.zeros(7))
    with pytest.raises(ShapeError, match=r"\(4, 0\) has no links"):
        matrix_shape((4, 0))
    with pytest.raises(ShapeError, match=r"4 output channels .* 3 groups"):
        bipartite_graphs(torch.zeros(4, 2), groups=3)
    with pytest.raises(ConfigError, match=r"7 links .* 2 x 3 layer; 1 to 6"):
        require_links((2, 3), 7)

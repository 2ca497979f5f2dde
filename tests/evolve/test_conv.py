import numpy as np
import pytest
import torch

from topospike.errors import ConfigError, ShapeError
from topospike.evolve import ch_scores, ch_scores_conv

UNFOLDINGS = {"im2col": "im2col", "perposition": "position", "spatial_circular": "spatial"}


def random_kernel(*shape, density=0.4, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < density


@pytest.mark.parametrize("name", ["conv_8x3x3x3", "conv_16x12x3x3"])
@pytest.mark.parametrize("rule", ["CH2-L3n", "CH3-L3n"])
@pytest.mark.parametrize("stored_as", UNFOLDINGS)
def test_kernels_equal_the_reference_to_1e_5(oracle, name, rule, stored_as):
    stored = oracle(name)
    key = f"{stored_as}_{rule.replace('-', '_')}"
    if stored_as == "spatial_circular" and name == "conv_16x12x3x3":
        assert key not in stored
        return
    mask = torch.from_numpy(stored["mask"]).bool()
    scores = ch_scores_conv(mask, rule, UNFOLDINGS[stored_as])
    assert np.abs(scores.numpy() - stored[key]).max() <= 1e-5 * stored[key].max()


def unrolled(mask, side):
    """The circular convolution as one big linear layer over (channel, position)."""
    c_out, c_in, height, width = mask.shape
    big = torch.zeros(c_out, side, side, c_in, side, side, dtype=torch.bool)
    for y in range(side):
        for x in range(side):
            for dy in range(height):
                for dx in range(width):
                    big[:, y, x, :, (y + dy) % side, (x + dx) % side] = mask[:, :, dy, dx]
    return big


@pytest.mark.parametrize("shape", [(3, 2, 3, 3), (2, 3, 1, 2), (4, 1, 2, 3)])
@pytest.mark.parametrize("rule", ["CH2-L3n", "CH3-L3n"])
def test_spatial_scores_equal_the_unrolled_graph(shape, rule):
    mask = random_kernel(*shape, seed=5)
    side = 7
    big = unrolled(mask, side)
    scores = ch_scores(big.reshape(shape[0] * side**2, -1), rule).view(big.shape)
    ours = ch_scores_conv(mask, rule, "spatial")
    for dy in range(shape[2]):
        for dx in range(shape[3]):
            expected = scores[:, 0, 0, :, dy, dx]
            torch.testing.assert_close(ours[:, :, dy, dx], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("unfold", ["im2col", "spatial", "position"])
def test_a_1x1_kernel_is_a_linear_layer(unfold):
    mask = random_kernel(9, 7, 1, 1)
    expected = ch_scores(mask[:, :, 0, 0], "CH3-L3n")
    scores = ch_scores_conv(mask, "CH3-L3n", unfold)[:, :, 0, 0]
    torch.testing.assert_close(scores, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("unfold", ["im2col", "spatial", "position"])
def test_groups_are_independent_graphs(unfold):
    mask = random_kernel(6, 4, 3, 3)
    parts = [ch_scores_conv(mask[rows], "CH2-L3n", unfold) for rows in (slice(0, 3), slice(3, 6))]
    assert torch.equal(ch_scores_conv(mask, "CH2-L3n", unfold, groups=2), torch.cat(parts))


def test_a_depthwise_kernel_has_no_path():
    assert not ch_scores_conv(random_kernel(5, 1, 3, 3), groups=5).any()


@pytest.mark.parametrize("unfold", ["im2col", "spatial", "position"])
def test_present_weights_score_zero(unfold):
    mask = random_kernel(6, 5, 3, 3)
    assert not ch_scores_conv(mask, unfold=unfold)[mask].any()


def test_spatial_scores_are_exactly_zero_where_no_path_exists():
    mask = torch.zeros(3, 3, 3, 3, dtype=torch.bool)
    mask[0, 0, 0, 0] = mask[1, 1, 2, 2] = True
    assert not ch_scores_conv(mask, unfold="spatial").any()


def test_path_rules_work_on_im2col_and_not_on_spatial():
    mask = random_kernel(4, 3, 2, 2)
    expected = ch_scores(mask.flatten(1), "CH3-L3p").view(mask.shape)
    assert torch.equal(ch_scores_conv(mask, "CH3-L3p"), expected)
    with pytest.raises(ConfigError, match="no path-based form"):
        ch_scores_conv(mask, "CH3-L3p", "spatial")


def test_errors_name_what_was_given():
    mask = random_kernel(4, 3, 2, 2)
    with pytest.raises(ConfigError, match=r"'unroll'.*im2col, spatial, position"):
        ch_scores_conv(mask, unfold="unroll")
    with pytest.raises(ShapeError, match="groups=3 does not divide the 4 output channels"):
        ch_scores_conv(mask, groups=3)
    with pytest.raises(ShapeError, match="call ch_scores"):
        ch_scores_conv(mask[:, :, 0, 0])

"""Closed forms and invariants of the weight update."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from topospike.errors import NonFiniteError
from topospike.pruning.methods import keep_largest
from topospike.pruning.moments import Geometry, InputMoments
from topospike.pruning.reconstruction import output_error, reconstruct


def problem(outputs, inputs, seed, rows=64):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(1, outputs, inputs, generator=generator, dtype=torch.float64)
    mixing = torch.randn(inputs, inputs, generator=generator, dtype=torch.float64)
    x = torch.randn(rows, inputs, generator=generator, dtype=torch.float64) @ mixing
    moments = InputMoments("layer", Geometry(), products=True, dtype=torch.float64)
    moments.add(x)
    return weight, moments.values


def test_pruning_the_first_column_alone_has_a_closed_form():
    weight, moments = problem(5, 12, seed=0)
    mask = torch.ones_like(weight, dtype=torch.bool)
    mask[:, :, 0] = False
    done = reconstruct(weight, moments, mask=mask)
    damped = moments[0] + 0.01 * moments[0].diagonal().mean() * torch.eye(12, dtype=torch.float64)
    inverse = torch.linalg.inv(damped)
    expected = weight[0] - (weight[0, :, :1] / inverse[0, 0]) * inverse[:1]
    expected[:, 0] = 0.0
    torch.testing.assert_close(done.weight[0], expected, rtol=0, atol=1e-9)


@settings(deadline=None, derandomize=True, max_examples=20)
@given(
    outputs=st.integers(1, 6),
    inputs=st.integers(2, 20),
    sparsity=st.floats(0.1, 0.8),
    block=st.sampled_from([1, 3, 7]),
    seed=st.integers(0, 50),
)
def test_the_block_width_does_not_matter_under_a_given_mask(outputs, inputs, sparsity, block, seed):
    weight, moments = problem(outputs, inputs, seed)
    mask = keep_largest(weight.abs(), sparsity)
    whole = reconstruct(weight, moments, mask=mask)
    blocks = reconstruct(weight, moments, mask=mask, block=block)
    torch.testing.assert_close(blocks.weight, whole.weight, rtol=0, atol=1e-8)
    assert not whole.weight[~mask].any()


def test_scaling_the_inputs_changes_nothing_and_permuting_rows_permutes():
    weight, moments = problem(6, 15, seed=3)
    mask = keep_largest(weight.abs(), 0.6, comparison="row")
    done = reconstruct(weight, moments, mask=mask)
    scaled = reconstruct(weight, moments * 49.0, mask=mask)
    torch.testing.assert_close(scaled.weight, done.weight, rtol=0, atol=1e-9)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    permuted = reconstruct(weight[:, order], moments, mask=mask[:, order])
    torch.testing.assert_close(permuted.weight, done.weight[:, order], rtol=0, atol=1e-9)


def test_groups_of_a_convolution_are_independent():
    parts = [problem(4, 9, seed=seed) for seed in (1, 2)]
    weight, moments = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    mask = keep_largest(weight.abs(), 0.5)
    together = reconstruct(weight, moments, mask=mask, block=4)
    for group, (alone, seen) in enumerate(parts):
        single = reconstruct(alone, seen, mask=mask[group : group + 1], block=4)
        torch.testing.assert_close(together.weight[group], single.weight[0], rtol=0, atol=1e-12)


def test_every_block_loses_its_own_share():
    weight, moments = problem(6, 10, seed=5)
    done = reconstruct(weight, moments, sparsity=0.3, block=4)
    assert [int((~part).sum()) for part in done.mask.split(4, dim=2)] == [7, 7, 3]
    assert not done.weight[~done.mask].any()


def test_an_input_that_was_never_active_loses_its_weights():
    weight, moments = problem(3, 6, seed=6)
    moments[:, 2] = moments[:, :, 2] = 0.0
    done = reconstruct(weight, moments, mask=torch.ones_like(weight, dtype=torch.bool))
    assert not done.weight[:, :, 2].any()
    assert done.mask.all()
    torch.testing.assert_close(done.weight[:, :, 3:], weight[:, :, 3:])


def test_the_output_error_is_that_of_the_outputs():
    weight, _ = problem(4, 5, seed=7)
    x = torch.randn(30, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    moments = InputMoments("layer", Geometry(), products=True, dtype=torch.float64)
    moments.add(x)
    change = weight * (weight.abs() < 0.5)
    expected = float((x @ change[0].T).norm() / (x @ weight[0].T).norm())
    assert output_error(change, weight, moments.values) == pytest.approx(expected, rel=1e-9)


def test_more_damping_is_tried_before_giving_up():
    moments = torch.tensor([[[1.0, 1.0], [1.0, 1.0 - 0.03]]], dtype=torch.float64)
    weight = torch.ones(1, 1, 2, dtype=torch.float64)
    done = reconstruct(weight, moments, sparsity=0.5)
    assert done.damping == pytest.approx(0.1)
    with pytest.raises(NonFiniteError, match=r"fc1: the second moment .* even with damping 1"):
        reconstruct(weight, -10 * moments, sparsity=0.5, layer="fc1")

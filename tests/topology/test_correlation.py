from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from topospike.errors import ConfigError, NonFiniteError, ShapeError
from topospike.topology import csti_mask, feature_correlation
from topospike.topology.correlation import CHUNK

ORACLE = np.load(Path(__file__).parents[1] / "oracles" / "cht" / "csti_24.npz", allow_pickle=False)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def oracle_correlation():
    return feature_correlation(torch.from_numpy(ORACLE["features_MxN"].T.copy()))


@pytest.mark.parametrize(
    ("key", "size"), [("dim1_24x24", "24x24"), ("dim2_48x24", "48x24"), ("dim2_48x48", "48x48")]
)
def test_csti_is_exact_and_within_the_reference(key, size):
    reference = torch.from_numpy(ORACLE[f"mask_{key}"]).bool()
    links = int(ORACLE[f"requested_{size}"])
    mask = csti_mask(
        tuple(reference.shape), links=links, correlation=oracle_correlation(), generator=seeded()
    )
    assert int(mask.sum()) == links
    # The reference keeps one link more, and every tie of it.
    assert not (mask & ~reference).any()
    assert links < int(reference.sum()) <= links + 4


def test_correlation_equals_numpy_to_1e_12():
    features = ORACLE["features_MxN"]
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = np.nan_to_num(np.abs(np.corrcoef(features)))
    np.fill_diagonal(expected, 0.0)
    np.testing.assert_allclose(oracle_correlation().numpy(), expected, rtol=0, atol=1e-12)
    assert not oracle_correlation()[3].any()


def test_blocks_of_samples_do_not_change_the_result():
    features = torch.rand(CHUNK + 100, 5, generator=seeded())
    expected = torch.corrcoef(features.T.double()).abs().fill_diagonal_(0)
    torch.testing.assert_close(feature_correlation(features), expected, rtol=0, atol=1e-10)


def test_a_constant_feature_correlates_with_nothing_whatever_its_value():
    # The mean of many 0.1 is not exactly 0.1: their variance is above zero by rounding.
    features = torch.rand(1000, 4, generator=seeded())
    features[:, 1] = 0.1
    features[:, 2] = 1e6 / 3
    correlation = feature_correlation(features)
    assert not correlation[1:3].any()
    assert not correlation[:, 1:3].any()
    assert correlation[0, 3] > 0


@settings(deadline=None, derandomize=True, max_examples=25)
@given(samples=st.integers(2, 20), features=st.integers(1, 10), seed=st.integers(0, 1000))
def test_correlation_is_symmetric_bounded_and_empty_on_the_diagonal(samples, features, seed):
    correlation = feature_correlation(torch.rand(samples, features, generator=seeded(seed)))
    assert torch.equal(correlation, correlation.T)
    assert not correlation.diagonal().any()
    assert bool(((correlation >= 0) & (correlation <= 1)).all())


@settings(deadline=None, derandomize=True, max_examples=25)
@given(rows=st.integers(1, 15), columns=st.integers(1, 15), data=st.data())
def test_tiled_and_cropped_masks_keep_the_strongest_cells(rows, columns, data):
    correlation = feature_correlation(torch.rand(30, 6, generator=seeded()))
    strength = torch.stack([correlation[i % 6, torch.arange(columns) % 6] for i in range(rows)])
    assume(bool(strength.any()))
    links = data.draw(st.integers(1, int((strength > 0).sum())))
    mask = csti_mask((rows, columns), links=links, correlation=correlation, generator=seeded())
    assert int(mask.sum()) == links
    assert mask.all() or strength[mask].min() >= strength[~mask].max()


def test_hubs_repeat_in_a_layer_twice_as_wide():
    correlation = oracle_correlation()
    once = csti_mask((24, 24), links=56, correlation=correlation, generator=seeded())
    twice = csti_mask((48, 48), links=4 * 56, correlation=correlation, generator=seeded())
    assert torch.equal(twice, once.repeat(2, 2))


def test_too_few_correlated_pairs_warn_and_still_give_the_exact_count():
    correlation = torch.zeros(6, 6)
    correlation[0, 1] = correlation[1, 0] = 0.5
    with pytest.warns(UserWarning, match="only 2 cells of a 6 x 6 layer .* 10 links"):
        mask = csti_mask((6, 6), links=10, correlation=correlation, generator=seeded())
    assert int(mask.sum()) == 10
    assert mask[0, 1]
    assert mask[1, 0]


def test_the_sign_of_a_correlation_does_not_count():
    signed = torch.tensor([[0.0, -0.9], [0.2, 0.0]])
    mask = csti_mask((2, 2), links=1, correlation=signed, generator=seeded())
    assert mask.tolist() == [[False, True], [False, False]]


def test_errors():
    with pytest.raises(ShapeError, match=r"\(3, 2, 2\); \(sample, feature\)"):
        feature_correlation(torch.zeros(3, 2, 2))
    with pytest.raises(ShapeError, match="at least two samples"):
        feature_correlation(torch.zeros(1, 4))
    with pytest.raises(NonFiniteError, match="features hold NaN"):
        feature_correlation(torch.tensor([[0.0, 1.0], [float("nan"), 2.0]]))
    with pytest.raises(ShapeError, match=r"correlation has shape \(2, 3\)"):
        csti_mask((2, 3), links=1, correlation=torch.zeros(2, 3), generator=seeded())
    with pytest.raises(NonFiniteError, match="correlation holds NaN"):
        csti_mask((2, 2), links=1, correlation=torch.full((2, 2), torch.nan), generator=seeded())
    with pytest.raises(ConfigError, match=r"5 links .* 2 x 2 layer"):
        csti_mask((2, 2), links=5, correlation=torch.zeros(2, 2), generator=seeded())

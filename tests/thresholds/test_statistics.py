"""Calibration statistics: golden vectors, exact merging, and what they refuse."""

from functools import reduce
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from topospike.errors import ConfigError, ConversionError, NonFiniteError, ShapeError
from topospike.thresholds.statistics import SiteObserver, merge, observe, quantile

ORACLES = Path(__file__).parents[1] / "oracles" / "dcgs"
PROPERTY = settings(deadline=None, derandomize=True, max_examples=25)
GRANULARITIES = ["layer", "channel", "feature", "neuron"]


@pytest.fixture(scope="module")
def reference():
    with np.load(ORACLES / "thr_stats.npz", allow_pickle=False) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays}


def collect(reference, prefix, **options):
    observer = SiteObserver("site", **options)
    for i in range(3):
        observer(reference[f"{prefix}{i}"])
    return observer.statistics


@pytest.mark.parametrize("granularity", ["layer", "channel", "neuron"])
@pytest.mark.parametrize(
    ("kind", "source", "values"),
    [
        ("relu", "conv_in", "rectified"),
        ("conv", "conv_in", "signed"),
        ("linear_tok", "tok_in", "signed"),
    ],
)
def test_statistics_equal_the_reference(reference, kind, source, values, granularity):
    """Batches of 6, 6 and 3 images; tolerance 1e-5. ReLU sites: percentile of the output."""
    for mode, level in (("99.9", 0.999), ("Max", 1.0)):
        seen = collect(
            reference, source, granularity=granularity, values=values, quantile_level=level
        )
        expected = reference[f"{kind}_{granularity}_{mode}_scale"]
        assert seen.quantile.shape == expected.shape
        torch.testing.assert_close(seen.quantile.float(), expected, rtol=1e-5, atol=1e-5)
    assert seen.images == 15
    for name, value in (("mean", seen.mean), ("var", seen.variance)):
        expected = reference[f"{kind}_{granularity}_var_{name}"]
        assert value.shape == expected.shape
        torch.testing.assert_close(value.float(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("granularity", ["layer", "channel"])
def test_matmul_operands_equal_the_reference(reference, granularity):
    """Axis 1 of an operand [batch, head, ., .] is the head."""
    first, second = (SiteObserver("qk", granularity=granularity, quantile_level=0.999)
                     for _ in range(2))  # fmt: skip
    for i in range(3):
        tokens, maps = reference[f"tok_in{i}"], reference[f"conv_in{i}"]
        first(tokens[:, None].expand(-1, 2, -1, -1))
        second(maps.flatten(2)[:, None, :, :5].expand(-1, 2, -1, -1))
    for observer, key in ((first, "scale"), (second, "scale2")):
        expected = reference[f"matmul_{granularity}_{key}"]
        torch.testing.assert_close(
            observer.statistics.quantile.float(), expected, rtol=1e-5, atol=1e-5
        )


@PROPERTY
@given(
    seed=st.integers(0, 2**31 - 1),
    cuts=st.lists(st.integers(1, 19), max_size=4, unique=True),
    granularity=st.sampled_from(GRANULARITIES),
    shift=st.sampled_from([0.0, 100.0]),
)
def test_any_split_and_order_gives_the_statistics_of_the_whole(seed, cuts, granularity, shift):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(20, 3, 4, generator=generator, dtype=torch.float64) + shift
    pieces = [part for part in x.tensor_split(sorted(cuts)) if len(part)]
    seen = [observe(part, site="a", granularity=granularity) for part in pieces]
    for parts in (seen, seen[::-1]):
        whole = reduce(merge, parts)
        axes = {"layer": (0, 1, 2), "channel": (0, 2), "feature": (0, 1), "neuron": (0,)}
        over = axes[granularity]
        assert whole.images == 20
        assert whole.count == x.numel() // whole.mean.numel()
        for value, expected in (
            (whole.mean, x.mean(over, keepdim=True)),
            (whole.variance, x.var(over, keepdim=True, correction=0)),
            (whole.maximum, x.amax(over, keepdim=True)),
        ):
            torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)


def test_quantiles_average_over_batches_by_images():
    few, many = torch.full((1, 2), 1.0), torch.full((3, 2), 5.0)
    parts = [observe(x, site="a", granularity="layer", quantile_level=0.9) for x in (few, many)]
    assert merge(*parts).quantile.item() == pytest.approx(4.0)
    assert merge(*parts[::-1]).quantile.item() == pytest.approx(4.0)


def test_values_choose_what_maximum_and_quantile_see_but_not_the_moments():
    x = torch.tensor([[-5.0, 1.0, 2.0]])
    results = {}
    for values in ("signed", "absolute", "rectified"):
        seen = observe(x, site="a", granularity="layer", values=values, quantile_level=0.5)
        results[values] = (seen.maximum.item(), seen.quantile.item())
        assert seen.mean.item() == pytest.approx(-2 / 3)
    assert results == {"signed": (2.0, 1.0), "absolute": (5.0, 2.0), "rectified": (2.0, 1.0)}


def test_single_precision_survives_a_large_offset():
    """The sums are centred first: 1e4 +- 0.1 keeps its variance in float32."""
    x = torch.randn(64, 8, 400, generator=torch.Generator().manual_seed(0)) * 0.1 + 1e4
    seen = observe(x, site="a", granularity="channel")
    exact = x.double().var((0, 2), keepdim=True, correction=0)
    torch.testing.assert_close(seen.variance, exact, rtol=1e-4, atol=0)
    precise = observe(x, site="a", granularity="channel", dtype=torch.float64)
    torch.testing.assert_close(precise.variance, exact, rtol=1e-10, atol=0)


def test_half_precision_is_summed_in_single():
    x = torch.full((200, 4), 100.0, dtype=torch.float16)
    seen = observe(x, site="a", granularity="layer")
    assert (seen.mean.item(), seen.variance.item()) == (100.0, 0.0)


@PROPERTY
@given(
    seed=st.integers(0, 2**31 - 1),
    size=st.integers(1, 300),
    level=st.one_of(st.floats(0, 1), st.sampled_from([0.999, 0.99, 1.0, 0.0])),
)
def test_quantile_equals_the_sorting_one(seed, size, level):
    x = torch.randn(3, size, 2, generator=torch.Generator().manual_seed(seed)).double()
    expected = torch.quantile(x.permute(1, 0, 2).reshape(size, -1), level, dim=1)
    result = quantile(x, level, axes=(0, 2))
    assert result.shape == (1, size, 1)
    torch.testing.assert_close(result.flatten(), expected, rtol=1e-9, atol=1e-9)


def test_the_observed_batch_is_left_alone():
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    kept = x.clone()
    observe(x, site="a", values="absolute", quantile_level=0.9)
    assert torch.equal(x, kept)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_a_value_that_is_not_finite_names_the_site_and_the_place(bad, granularity):
    x = torch.ones(2, 3, 4)
    x[1, 2, 0] = bad
    with pytest.raises(NonFiniteError, match=r"layer1\.0: 1 of 24 .* at index \(1, 2, 0\)"):
        observe(x, site="layer1.0", granularity=granularity)


def test_values_too_large_to_square_are_refused():
    with pytest.raises(NonFiniteError, match=r"fc: calibration values up to 1e\+30 are too large"):
        observe(torch.tensor([[1e30], [-1e30]]), site="fc")


def test_impossible_input_is_refused():
    with pytest.raises(ShapeError, match=r"fc: .*shape \(0, 3\) is empty"):
        observe(torch.ones(0, 3), site="fc")
    with pytest.raises(ShapeError, match=r"fc: granularity 'channel' needs .* at least 2 axes"):
        observe(torch.ones(3), site="fc")
    with pytest.raises(ConfigError, match=r"unknown granularity 'chanel'.*Did you mean 'channel'"):
        observe(torch.ones(2, 3), site="fc", granularity="chanel")
    with pytest.raises(ConfigError, match=r"unknown values 'abs'"):
        observe(torch.ones(2, 3), site="fc", values="abs")
    with pytest.raises(ConfigError, match=r"quantile_level is 99\.9; it must lie in \[0, 1\]"):
        observe(torch.ones(2, 3), site="fc", quantile_level=99.9)


def test_incompatible_statistics_do_not_merge():
    a = observe(torch.ones(2, 3), site="fc")
    with pytest.raises(ConfigError, match=r"fc: .* granularity is 'channel' and 'layer'"):
        merge(a, observe(torch.ones(2, 3), site="fc", granularity="layer"))
    with pytest.raises(ConfigError, match=r"quantile_level is None and 0\.5"):
        merge(a, observe(torch.ones(2, 3), site="fc", quantile_level=0.5))
    with pytest.raises(ShapeError, match=r"fc: channel .* \(1, 3\) and \(1, 4\)"):
        merge(a, observe(torch.ones(2, 4), site="fc"))


def test_an_observer_without_batches_says_so():
    with pytest.raises(ConversionError, match="conv3: no calibration batch reached this site"):
        _ = SiteObserver("conv3").statistics

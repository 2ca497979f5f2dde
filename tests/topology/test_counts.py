import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topospike.errors import ConfigError
from topospike.topology import active_count, share_count, sparsity_of

PROPERTY = settings(deadline=None, derandomize=True, max_examples=50)


@pytest.mark.parametrize(
    ("n", "sparsity", "expected"),
    [
        (614_656, 0.99, 6147),
        (100, 0.29, 71),
        (100, 0.57, 43),
        (100, 0.58, 42),
        (1, 0.0, 1),
        (1, 0.99, 1),
        (3, 0.9999, 1),
        (10, 0.0, 10),
        (512 * 512, 0.9, 26_215),
    ],
)
def test_hand_computed_counts(n, sparsity, expected):
    assert active_count(n, sparsity) == expected


@pytest.mark.parametrize("n", [100, 1000, 10_000, 4_574_592, 28_901_376])
def test_every_whole_percentage_is_exact(n):
    for percent in range(100):
        assert active_count(n, percent / 100) == n - n * percent // 100


@PROPERTY
@given(n=st.integers(1, 10**8), data=st.data())
def test_sparsity_of_a_count_gives_the_count_back(n, data):
    active = data.draw(st.integers(1, n))
    assert active_count(n, sparsity_of(active, n)) == active


@PROPERTY
@given(n=st.integers(1, 10**7), low=st.floats(0, 0.999999), high=st.floats(0, 0.999999))
def test_more_sparsity_never_gives_more_links(n, low, high):
    low, high = sorted((low, high))
    assert 1 <= active_count(n, high) <= active_count(n, low) <= n


@PROPERTY
@given(n=st.integers(0, 10**7), share=st.floats(0, 1))
def test_a_share_and_what_it_leaves_add_up(n, share):
    taken = share_count(n, share)
    assert 0 <= taken <= n
    assert share * n - 1 < taken <= share * n + 1e-6


@pytest.mark.parametrize("sparsity", [1.0, -0.1, float("nan"), 99.0])
def test_impossible_sparsity_is_refused_with_its_value(sparsity):
    with pytest.raises(ConfigError, match=rf"sparsity is {sparsity}.*\[0, 1\)"):
        active_count(10, sparsity)


def test_impossible_counts_are_refused():
    with pytest.raises(ConfigError, match="n is 0"):
        active_count(0, 0.5)
    with pytest.raises(ConfigError, match="n is -1"):
        share_count(-1, 0.5)
    with pytest.raises(ConfigError, match=r"share is 1\.5"):
        share_count(4, 1.5)
    with pytest.raises(ConfigError, match="5 active of 4"):
        sparsity_of(5, 4)

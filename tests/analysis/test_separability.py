"""Angular separation against the golden vectors and tiny cases."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topospike.analysis import angular_separation
from topospike.errors import ConfigError

ORACLES = Path(__file__).parents[1] / "oracles" / "topology"
METHODS = [
    f"{weighting}_{reduction}_original"
    for weighting in ("RA1", "RA2", "EBC")
    for reduction in ("ISO", "ncISO", "LE", "MCE", "ncMCE")
]


@pytest.mark.parametrize("name", ["karate", "chain60", "chainpl90", "npso100"])
@pytest.mark.parametrize("method", METHODS)
def test_index_matches_the_reference_on_its_own_angles(name, method):
    with np.load(ORACLES / f"net_{name}.npz", allow_pickle=False) as stored:
        result = angular_separation(stored[f"theta_{method}"], stored["labels"])
        expected = stored[f"m_asi_{method}"]
    np.testing.assert_allclose([result.index, *result.groups], expected, atol=1e-12)
    assert result.p_value is None


def test_two_arcs_separate_perfectly_and_significantly():
    theta = np.linspace(0, 6, 40)
    labels = np.repeat([0, 1], 20)
    result = angular_separation(theta, labels, permutations=199, seed=3)
    assert result.index == 1.0
    assert result.p_value == pytest.approx(1 / 200)


def test_a_group_of_one_has_no_index():
    result = angular_separation(np.arange(5.0), np.array([0, 0, 1, 1, 2]))
    assert result.groups == (1.0, 1.0, None)


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.integers(0, 10_000), st.integers(5, 30), st.integers(2, 4))
def test_rotating_the_circle_changes_nothing(seed, n, groups):
    rng = np.random.default_rng(seed)
    theta = rng.permutation(n) * 2 * np.pi / n
    labels = np.arange(n) % groups
    turned = (theta + 2 * np.pi * rng.integers(n) / n + 1e-3) % (2 * np.pi)
    one, two = angular_separation(theta, labels), angular_separation(turned, labels)
    assert one == two
    assert 0 <= one.index <= 1


@pytest.mark.parametrize("labels", [np.zeros(5, int), np.arange(5), np.array([0, 1, 1])])
def test_groups_that_cannot_be_separated_are_refused(labels):
    with pytest.raises(ConfigError, match="at least 4 nodes, at least 2 groups"):
        angular_separation(np.arange(float(len(labels))), labels)

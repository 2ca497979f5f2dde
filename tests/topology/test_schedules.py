import itertools
import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topospike.errors import ConfigError
from topospike.topology import DENSITY_SCHEDULES, sparsity_at, zeta_at

ORACLE = json.loads((Path(__file__).parents[1] / "oracles" / "cht" / "schedules.json").read_text())
KIND = {"s_shape": "sigmoid", "granet": "cubic", "linear": "linear"}
MOVING = sorted(set(DENSITY_SCHEDULES) - {"constant"})


@pytest.mark.parametrize("row", ORACLE["density"], ids=lambda row: f"{row['kind']}-k{row['k']}")
def test_density_schedules_equal_the_reference_to_1e_12(row):
    for step, expected in zip(row["steps"], row["sparsity"], strict=True):
        ours = sparsity_at(
            step,
            initial=row["s_init"],
            final=row["s_final"],
            end=row["prune_end_step"],
            kind=KIND[row["kind"]],
            k=row["k"],
        )
        assert abs(ours - expected) <= 1e-12


@pytest.mark.parametrize("row", ORACLE["zeta"], ids=lambda row: f"zeta{row['zeta']}")
def test_cosine_zeta_equals_the_reference_to_1e_12(row):
    for step, expected in zip(row["steps"], row["fraction"], strict=True):
        assert abs(zeta_at(step, zeta=row["zeta"], end=row["T_end"]) - expected) <= 1e-12


@pytest.mark.parametrize(
    ("t", "sparsity"),
    [(0, 0.2), (108, 0.206), (110, 0.244), (115, 0.736), (118, 0.778), (225, 0.78)],
)
def test_literal_sigmoid_is_nearly_a_step(t, sparsity):
    # The paper's setting read literally: 20 % to 78 % in 225 epochs with k = 1 per epoch.
    ours = sparsity_at(t, initial=0.2, final=0.78, end=225, kind="sigmoid_literal", k=1.0)
    assert ours == pytest.approx(sparsity, abs=5e-4)


@pytest.mark.parametrize(
    ("progress", "k1", "k6"),
    [(0.1, 0.252, 0.203), (0.25, 0.336, 0.226), (0.5, 0.490, 0.490), (0.75, 0.644, 0.754)],
)
def test_rescaled_sigmoid_at_hand_computed_points(progress, k1, k6):
    for k, expected in ((1.0, k1), (6.0, k6)):
        ours = sparsity_at(progress, initial=0.2, final=0.78, end=1.0, k=k)
        assert ours == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize("kind", MOVING)
@settings(deadline=None, derandomize=True, max_examples=25)
@given(
    initial=st.floats(0, 1),
    final=st.floats(0, 1),
    start=st.floats(0, 50),
    length=st.floats(0, 100),
    k=st.floats(0.1, 50),
)
def test_schedules_move_one_way_and_end_exactly(kind, initial, final, start, length, k):
    end = start + length
    times = [start - 1, *(start + length * i / 20 for i in range(21)), end + 1]
    values = [
        sparsity_at(t, initial=initial, final=final, start=start, end=end, kind=kind, k=k)
        for t in times
    ]
    sign = 1 if final >= initial else -1
    assert all(sign * (b - a) >= -1e-12 for a, b in itertools.pairwise(values))
    assert all(
        min(initial, final) - 1e-12 <= value <= max(initial, final) + 1e-12 for value in values
    )
    assert values[0] == initial
    assert values[-1] == final


def test_constant_schedules_do_not_move():
    assert {sparsity_at(t, initial=0.7, final=0.7, end=9, kind="constant") for t in range(12)} == {
        0.7
    }
    assert {zeta_at(t, zeta=0.2, end=9, kind="constant") for t in range(12)} == {0.2}
    with pytest.raises(ConfigError, match=r"constant schedule cannot go from 0\.5 to 0\.9"):
        sparsity_at(1, initial=0.5, final=0.9, end=9, kind="constant")


def test_cosine_zeta_at_the_borders():
    assert zeta_at(0, zeta=0.3, end=10) == 0.3
    assert zeta_at(5, zeta=0.3, end=10) == pytest.approx(0.15)
    assert zeta_at(11, zeta=0.3, end=10) == 0.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "sigmod"}, "Did you mean 'sigmoid'"),
        ({"k": 0.0}, r"k is 0\.0"),
        ({"start": 20.0}, r"ends at 10\.0 before it starts at 20\.0"),
        ({"initial": -0.1}, r"initial is -0\.1"),
        ({"final": math.nan}, "final is nan"),
    ],
)
def test_impossible_schedules_are_refused(change, message):
    given = {"initial": 0.1, "final": 0.9, "start": 0.0, "end": 10.0} | change
    with pytest.raises(ConfigError, match=message):
        sparsity_at(5, **given)


def test_impossible_zeta_is_refused():
    with pytest.raises(ConfigError, match=r"zeta is 1\.2"):
        zeta_at(1, zeta=1.2, end=10)
    with pytest.raises(ConfigError, match="end is 0"):
        zeta_at(1, end=0)
    with pytest.raises(ConfigError, match="Did you mean 'cosine'"):
        zeta_at(1, end=10, kind="cosin")

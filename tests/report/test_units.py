"""Numbers with prefixes: what a reader reads off must be the number that was written."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topospike.report.units import (
    MINUS,
    NARROW,
    NO_VALUE,
    PREFIXES,
    count,
    duration,
    energy,
    percent,
    plain,
    points,
    round_energy,
    si,
)

EXPONENTS = {prefix: -15 + 3 * place for place, prefix in enumerate(PREFIXES)}
same = settings(deadline=None, derandomize=True, max_examples=25)


@same
@given(st.floats(1e-14, 1e13))
def test_si_reads_back_within_its_three_digits(value):
    number, unit = si(value, "J").split(NARROW)
    assert float(number) * 10.0 ** EXPONENTS[unit[:-1]] == pytest.approx(value, rel=0.5001e-2)


@same
@given(st.floats(1e-14, 1e13))
def test_si_keeps_one_to_three_digits_before_the_point(value):
    number = float(si(value, "J").split(NARROW)[0])
    assert 1 <= number < 1000


@pytest.mark.parametrize(
    ("joules", "text"),
    [
        (1.3919e-4, "139 µJ"),
        (4.627e-5, "46.3 µJ"),
        (0.02907, "29.1 mJ"),
        (9.996e-7, "1.00 µJ"),
        (9.994e-7, "999 nJ"),
        (0.0, "0 J"),
    ],
)
def test_energy_by_hand(joules, text):
    assert energy(joules) == text.replace(" ", NARROW)


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_what_is_no_number_is_shown_as_no_value(value):
    assert {energy(value), percent(value), plain(value), duration(value)} == {NO_VALUE}


def test_negative_numbers_use_the_minus_sign():
    assert percent(-0.012) == f"{MINUS}1.20{NARROW}%"
    assert plain(-7.81, 2) == f"{MINUS}7.8"
    assert count(-1200) == f"{MINUS}1{NARROW}200"


def test_percent_does_not_round_an_imperfect_accuracy_up_to_hundred():
    assert percent(9999 / 10000) == f"99.99{NARROW}%"


def test_points_have_no_sign():
    assert points(-0.0028) == points(0.0028) == "0.28 points"


def test_durations_change_unit_at_a_minute_and_an_hour():
    assert duration(59.0) == f"59.0{NARROW}s"
    assert duration(60.0) == f"1{NARROW}min 0{NARROW}s"
    assert duration(3600.0) == f"1{NARROW}h 0{NARROW}min"


def test_axis_ticks_carry_no_needless_zeros():
    assert [round_energy(value) for value in (1e-6, 5e-7)] == [f"1{NARROW}µJ", f"500{NARROW}nJ"]

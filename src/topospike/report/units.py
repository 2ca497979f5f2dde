"""Numbers as a reader wants them: SI prefixes, percentages, durations.

The rest of the library speaks joules, shares and seconds; this is the one place that rounds.
"""

from __future__ import annotations

import math

NO_VALUE = "–"  # noqa: RUF001 - an en dash is what a table shows for "no value"
NARROW = "\N{NARROW NO-BREAK SPACE}"
GAMMA = "\N{GREEK SMALL LETTER GAMMA}"
SIGMA = "\N{GREEK SMALL LETTER SIGMA}"
MINUS = "\N{MINUS SIGN}"
PREFIXES = ("f", "p", "n", "µ", "m", "", "k", "M", "G", "T")
SMALLEST_EXPONENT = -15


def significant(value: float, digits: int = 3) -> str:
    """Write ``value`` with ``digits`` significant digits and no exponent.

    Examples
    --------
    >>> significant(41.2345), significant(0.0123), significant(999.6), significant(5, 2)
    ('41.2', '0.0123', '1000', '5.0')
    """
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")
    exponent = math.floor(math.log10(abs(rounded)))
    return f"{rounded:.{max(0, digits - 1 - exponent)}f}".replace("-", MINUS)


def si(value: float | None, unit: str, digits: int = 3) -> str:
    r"""Write a quantity with the SI prefix that leaves one to three digits before the point.

    Examples
    --------
    >>> si(4.125e-08, "J"), si(9.996e-07, "J"), si(None, "J")
    ('41.2\u202fnJ', '1.00\u202fµJ', '–')
    """
    if value is None or not math.isfinite(value):
        return NO_VALUE
    if value == 0:
        return f"0{NARROW}{unit}" if unit else "0"
    scaled, prefix = with_prefix(value, digits)
    suffix = f"{prefix}{unit}"
    number = significant(scaled, digits)
    return f"{number}{NARROW}{suffix}" if suffix else number


def with_prefix(value: float, digits: int) -> tuple[float, str]:
    """Split a value other than 0 into a number of at most three digits and its SI prefix."""
    rounded = float(f"{value:.{digits - 1}e}")
    step = math.floor((math.floor(math.log10(abs(rounded))) - SMALLEST_EXPONENT) / 3)
    step = min(max(step, 0), len(PREFIXES) - 1)
    return value / 10.0 ** (SMALLEST_EXPONENT + 3 * step), PREFIXES[step]


def round_energy(joules: float) -> str:
    r"""Write an energy that is a round number, as the ticks of an axis are.

    Examples
    --------
    >>> round_energy(2e-7), round_energy(1.5e-6)
    ('200\u202fnJ', '1.5\u202fµJ')
    """
    scaled, prefix = with_prefix(joules, 6)
    return f"{scaled:.6g}{NARROW}{prefix}J"


def energy(joules: float | None) -> str:
    r"""Write an energy given in joules.

    Examples
    --------
    >>> energy(0.07306), energy(1.3919e-4)
    ('73.1\u202fmJ', '139\u202fµJ')
    """
    return si(joules, "J")


def percent(share: float | None, decimals: int = 2) -> str:
    r"""Write a share in [0, 1] as a percentage.

    Examples
    --------
    >>> percent(0.97222), percent(0.99, 0), percent(None)
    ('97.22\u202f%', '99\u202f%', '–')
    """
    if share is None or not math.isfinite(share):
        return NO_VALUE
    return f"{100 * share:.{decimals}f}{NARROW}%".replace("-", MINUS)


def points(difference: float) -> str:
    """Write the distance between two shares in percentage points, without its sign.

    Examples
    --------
    >>> points(-0.0034), points(0.01)
    ('0.34 points', '1.00 points')
    """
    return f"{abs(100 * difference):.2f} points"


def count(value: int | None) -> str:
    r"""Write an integer with its thousands set apart.

    Examples
    --------
    >>> count(1234567), count(12)
    ('1\u202f234\u202f567', '12')
    """
    return NO_VALUE if value is None else f"{value:,}".replace(",", NARROW).replace("-", MINUS)


def plain(value: float | None, digits: int = 3) -> str:
    """Write a number without a unit, very small and very large ones with a power of ten.

    Examples
    --------
    >>> plain(2.194), plain(0.38), plain(1.5e-5), plain(None)
    ('2.19', '0.380', '1.50e−5', '–')
    """
    if value is None or not math.isfinite(value):
        return NO_VALUE
    if value != 0 and not 1e-3 <= abs(value) < 1e6:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa}e{int(exponent)}".replace("-", MINUS)
    return significant(value, digits)


def duration(seconds: float | None) -> str:
    r"""Write a time span.

    Examples
    --------
    >>> duration(0.4213), duration(72.4), duration(7384)
    ('421\u202fms', '1\u202fmin 12\u202fs', '2\u202fh 3\u202fmin')
    """
    if seconds is None or not math.isfinite(seconds):
        return NO_VALUE
    if seconds < 60:
        return si(seconds, "s")
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}{NARROW}min {whole % 60}{NARROW}s"
    return f"{whole // 3600}{NARROW}h {whole % 3600 // 60}{NARROW}min"

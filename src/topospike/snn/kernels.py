"""Simulate: the compiled loop over the neurons of a site, one pass over memory.

``site_loop`` does for one site and step what `topospike.snn.coding` and `topospike.snn.neurons` do
in five to ten tensor operations, with the same roundings: the results are equal bit for bit. One
loop serves every coding (``gains`` holds g, g-1, 1/g and 1, and ``averages`` tells the two kinds
apart) and every rule (by the length of ``numbers``).

Importing this module imports numba; only `topospike.snn.fused` does so, when a simulation asks.
Machine code is kept on disk between processes. Nothing here checks its arguments.
"""

# The functions below are compiled; the decorators of numba carry no types, and an intrinsic is
# called without its first parameter.
# pyright: reportCallIssue=false

from __future__ import annotations

import numpy as np
from numba import njit
from numba.core import types
from numba.core.errors import TypingError
from numba.extending import intrinsic, overload

# Threads run several calls at once (nogil); a quotient by zero is an infinity, as in torch.
kernel = njit(cache=True, nogil=True, error_model="numpy")

FRACTION_BITS = {types.float32: (types.int32, 23), types.float64: (types.int64, 52)}


@intrinsic
def fma(context, a, b, c):
    """Return a b + c with one rounding, as torch's ``alpha`` and ``lerp`` do."""

    def generate(_context, builder, _signature, values):
        return builder.fma(*values)

    return a(a, a, a), generate


@intrinsic
def power_of_two(context, q):
    """Return the largest power of two not above the size of q, with the sign of q."""
    # a float without its mantissa
    if q not in FRACTION_BITS:
        raise TypingError(f"power_of_two needs a float, not {q}")
    integer, bits = FRACTION_BITS[q]

    def generate(context, builder, _signature, values):
        as_integer = builder.bitcast(values[0], context.get_value_type(integer))
        kept = builder.and_(as_integer, context.get_constant(integer, -(1 << bits)))
        return builder.bitcast(kept, context.get_value_type(q))

    return q(q), generate


def spike(u, available, first, second, theta, numbers, gated):
    """Return the spike of a neuron: `ladder` or `single`, as ``numbers`` are four or two."""


@overload(spike)
def _spike(u, available, first, second, theta, numbers, gated):
    return ladder if len(numbers) == 4 else single


def ladder(u, available, first, second, theta, numbers, gated):
    """Return the spike of a multi-threshold neuron.

    ``first`` divides the membrane, ``second`` is -1 / theta; ``numbers`` are 0, 1, the gate's
    tolerance and the lowest level.
    """
    q = u / first
    floor = -numbers[1]
    if gated:
        floor = available * second - numbers[2]
        floor = -numbers[1] if floor < -numbers[1] else floor
        floor = numbers[0] if floor > numbers[0] else floor
    # written so that NaN passes through
    q = floor if q < floor else q
    q = numbers[1] if q > numbers[1] else q
    q = power_of_two(q)
    return (numbers[0] if abs(q) <= numbers[3] else q) * theta


def single(u, available, first, second, theta, numbers, gated):
    """Return the spike of an integrate-and-fire neuron; ``numbers`` are 0 and 1.

    ``first`` is the initial membrane. Where ``gated``, a spike may be taken back if the membrane is
    not positive and ``second``, the threshold less a tolerance, has been emitted.
    """
    u = u + first
    s = numbers[1] if u >= theta else numbers[0]
    if gated and u <= numbers[0] and available >= second:
        s = s - numbers[1]
    return s * theta


def at(values, i):
    """Return a number that a whole row shares, or the row's own."""


@overload(at)
def _at(values, i):
    if isinstance(values, types.Array):
        return lambda values, i: values[i]
    return lambda values, i: values


@kernel
def row_loop(x, r, out, first, second, theta, gains, numbers, gated, averages):
    """Run one step along a row; return how many neurons fired."""
    factor = gains[1] if averages else gains[0]
    fired = 0
    for i in range(x.size):
        u = fma(r[i], -gains[1], x[i] * gains[0]) if averages else (x[i] - r[i]) * gains[0]
        th = at(theta, i)
        s = spike(u, r[i] * factor, at(first, i), at(second, i), th, numbers, gated)
        fired += s != 0
        out[i] = s
        if not averages:
            r[i] = fma(s, gains[2], r[i])
        elif gains[2] < 0.5:  # as torch.lerp rounds
            r[i] = fma(gains[2], s - r[i], r[i])
        else:
            r[i] = fma(gains[2] - gains[3], s - r[i], s)
    return fired


@kernel
def site_loop(r_in, r_out, spikes, first, second, theta, gains, numbers, gated, averages):
    """Run one step of a site in place; return how many neurons fired.

    ``r_in`` and ``r_out`` are (outer, middle, inner); what depends on the thresholds is
    (middle, 1) or (middle, inner). ``spikes`` has the states' shape, or is one row that is
    overwritten when nobody asks for them.
    """
    outer, middle, _ = r_in.shape
    fired = 0
    for o in range(outer):
        for c in range(middle):
            x, r = r_in[o, c], r_out[o, c]
            out = spikes[o % spikes.shape[0], c % spikes.shape[1]]
            a, b, th = first[c], second[c], theta[c]
            if theta.shape[1] == 1:
                fired += row_loop(x, r, out, a[0], b[0], th[0], gains, numbers, gated, averages)
            else:
                fired += row_loop(x, r, out, a, b, th, gains, numbers, gated, averages)
    return fired


@kernel
def codes_loop(x, unit, shift, codes):
    """Write ``x * unit + shift``, cut off, into the 8-bit ``codes``.

    ``x`` and ``codes`` are (outer, middle, inner), ``unit`` is (middle, 1) or (middle, inner).
    """
    outer, middle, inner = x.shape
    for o in range(outer):
        for c in range(middle):
            row, out, factor = x[o, c], codes[o, c], unit[c]
            if factor.size == 1:
                for i in range(inner):
                    out[i] = np.uint8(np.int32(row[i] * factor[0] + shift))
            else:
                for i in range(inner):
                    out[i] = np.uint8(np.int32(row[i] * factor[i] + shift))

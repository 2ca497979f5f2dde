"""Simulate: compiled loops over neurons and links, one pass over memory each.

``multi_threshold`` and ``integrate_and_fire`` do for one site and step what `topospike.snn.coding`
and `topospike.snn.neurons` do in five to ten tensor operations, with the same roundings: the
results are equal bit for bit. ``collect`` lists events; ``scatter_rows`` and ``scatter_links`` add
W s of the neurons that fired to the output of a layer.

Importing this module imports numba; only `topospike.snn.fused` does so, when a simulation asks.
Machine code is kept on disk between processes. Nothing here checks its arguments.
"""

# The functions below are compiled; the decorators of numba carry no types, and an intrinsic is
# called without its first parameter.
# pyright: reportCallIssue=false

from __future__ import annotations

from numba import njit
from numba.core import types
from numba.core.errors import TypingError
from numba.extending import intrinsic

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


@kernel
def membrane(x, r, times, differential):
    """Return u without the initial membrane; ``times`` holds t, t-1, 1/t and 1."""
    if differential:
        return (x - r) * times[0]
    return fma(r, -times[1], x * times[0])


@kernel
def decoded(r, s, times, differential):
    """Return r_out after the spike s."""
    if differential:
        return fma(s, times[2], r)
    if times[2] < 0.5:
        return fma(times[2], s - r, r)
    return fma(times[2] - times[3], s - r, s)


@kernel
def ladder(u, available, divisor, per_theta, theta, rule, gated):
    """Return the spike of a multi-threshold neuron; ``rule`` is 0, 1, tolerance, lowest level."""
    q = u / divisor
    floor = -rule[1]
    if gated:
        floor = available * per_theta - rule[2]
        floor = -rule[1] if floor < -rule[1] else floor
        floor = rule[0] if floor > rule[0] else floor
    # written so that NaN passes through
    q = floor if q < floor else q
    q = rule[1] if q > rule[1] else q
    q = power_of_two(q)
    return (rule[0] if abs(q) <= rule[3] else q) * theta


@kernel
def single(u, available, theta, afford, bounds, signed):
    """Return the spike of an integrate-and-fire neuron; ``bounds`` is 0 and 1."""
    s = bounds[1] if u >= theta else bounds[0]
    if signed and u <= bounds[0] and available >= afford:
        s = s - bounds[1]
    return s * theta


@kernel
def multi_threshold(
    r_in, r_out, spikes, divisor, per_theta, theta, times, rule, gated, differential
):
    """Run one step of a site in place; return how many neurons fired.

    ``r_in`` and ``r_out`` are (outer, middle, inner), thresholds (middle, 1) or (middle, inner);
    ``spikes`` has the states' shape, or one row that is overwritten when nobody asks for them.
    """
    outer, middle, inner = r_in.shape
    factor = times[0] if differential else times[1]
    fired = 0
    for o in range(outer):
        for c in range(middle):
            x, r = r_in[o, c], r_out[o, c]
            out = spikes[o % spikes.shape[0], c % spikes.shape[1]]
            row = 0
            if theta.shape[1] == 1:
                a, b, th = divisor[c, 0], per_theta[c, 0], theta[c, 0]
                for i in range(inner):
                    u = membrane(x[i], r[i], times, differential)
                    s = ladder(u, r[i] * factor, a, b, th, rule, gated)
                    row += s != 0
                    out[i] = s
                    r[i] = decoded(r[i], s, times, differential)
            else:
                a, b, th = divisor[c], per_theta[c], theta[c]
                for i in range(inner):
                    u = membrane(x[i], r[i], times, differential)
                    s = ladder(u, r[i] * factor, a[i], b[i], th[i], rule, gated)
                    row += s != 0
                    out[i] = s
                    r[i] = decoded(r[i], s, times, differential)
            fired += row
    return fired


@kernel
def integrate_and_fire(
    r_in, r_out, spikes, initial, theta, afford, times, bounds, signed, differential
):
    """Run one step of a site in place, as `multi_threshold`; ``initial`` is the first membrane.

    ``signed``: a spike may be taken back where the membrane is not positive and ``afford``, the
    threshold less a tolerance, has been emitted.
    """
    outer, middle, inner = r_in.shape
    factor = times[0] if differential else times[1]
    fired = 0
    for o in range(outer):
        for c in range(middle):
            x, r = r_in[o, c], r_out[o, c]
            out = spikes[o % spikes.shape[0], c % spikes.shape[1]]
            row = 0
            if theta.shape[1] == 1:
                v0, th, least = initial[c, 0], theta[c, 0], afford[c, 0]
                for i in range(inner):
                    u = membrane(x[i], r[i], times, differential) + v0
                    s = single(u, r[i] * factor, th, least, bounds, signed)
                    row += s != 0
                    out[i] = s
                    r[i] = decoded(r[i], s, times, differential)
            else:
                v0, th, least = initial[c], theta[c], afford[c]
                for i in range(inner):
                    u = membrane(x[i], r[i], times, differential) + v0[i]
                    s = single(u, r[i] * factor, th[i], least[i], bounds, signed)
                    row += s != 0
                    out[i] = s
                    r[i] = decoded(r[i], s, times, differential)
            fired += row
    return fired

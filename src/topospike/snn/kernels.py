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
# Sums of whole numbers, which are the same in any order.
sums_kernel = njit(cache=True, nogil=True, fastmath={"reassoc"})

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
def sum_row(x, total, offset, scale, bias, share, mean):
    """Add the sums of one step to what a layer held, and write its output over them."""
    # of few arrays each: a loop that could overwrite what it reads is vectorised only then
    for i in range(x.size):
        total[i] = fma(x[i] - offset[i], scale[i] * share, total[i])
    for i in range(x.size):
        x[i] = fma(total[i], mean, bias[i])


@kernel
def code_row(spikes, unit, shift, codes):
    """Write ``spikes * unit + shift``, cut off, in 8 bits."""
    for i in range(spikes.size):
        codes[i] = np.uint8(np.int32(spikes[i] * at(unit, i) + shift))


def taken(values, t):
    """Return entry t of each of some arrays."""


@overload(taken)
def _taken(values, t):
    if len(values) == 2:
        return lambda values, t: (values[0][t], values[1][t])
    return lambda values, t: (values[0][t], values[1][t], values[2][t], values[3][t])


@kernel
def site_loop(x, r_out, kept, of_rule, gains, numbers, shift, kind, begin, end):
    """Take some steps of the rows ``begin`` to ``end`` of a site; return what fired at the last.

    ``x`` is (steps, outer, middle, inner), or one step that is the input of all; ``r_out`` is one
    step, updated in place. ``kept``
    are decoded outputs, spikes and codes of all steps; one of no steps is not wanted. What depends
    on the thresholds (``of_rule``) is (middle, 1) or (middle, inner).
    """
    decoded, spikes, codes = kept
    first, second, theta, unit = of_rule
    (_, _, middle, inner), steps = x.shape, len(gains)
    unseen = np.empty(inner, x.dtype)
    fired = 0
    for o in range(begin, end):
        for c in range(middle):
            r = r_out[o, c]
            a, b, th, un = first[c], second[c], theta[c], unit[c]
            for t in range(steps):
                now = x[t if x.shape[0] > 1 else 0, o, c]
                out = spikes[t, o, c] if spikes.shape[0] else unseen
                g, n = (gains[t, 0], gains[t, 1], gains[t, 2], gains[t, 3]), taken(numbers, t)
                if theta.shape[1] == 1:
                    count = row_loop(now, r, out, a[0], b[0], th[0], g, n, kind[0], kind[1])
                else:
                    count = row_loop(now, r, out, a, b, th, g, n, kind[0], kind[1])
                if codes.shape[0]:
                    if theta.shape[1] == 1:
                        code_row(out, un[0], shift, codes[t, o, c])
                    else:
                        code_row(out, un, shift, codes[t, o, c])
                if decoded.shape[0]:
                    decoded[t, o, c, :] = r
                if t == steps - 1:
                    fired += count
    return fired


@kernel
def sums_loop(x, total, of_layer, shares, means, begin, end):
    """Turn the sums ``x`` of some steps of a layer into its outputs, in place.

    ``x`` is (steps, rows, inner), ``total`` one step of that; of what belongs to the layer the
    offset is (places, inner), the rest (inner,). The rows ``begin`` to ``end`` are done.
    """
    offset, scale, bias = of_layer
    for o in range(begin, end):
        known = offset[o % offset.shape[0]]
        for t in range(len(shares)):
            sum_row(x[t, o], total[o], known, scale, bias, shares[t], means[t])
    return 0


@kernel
def codes_loop(x, unit, shift, codes):
    """Write ``x * unit + shift``, cut off, into the 8-bit ``codes``.

    ``x`` and ``codes`` are (outer, middle, inner), ``unit`` is (middle, 1) or (middle, inner).
    """
    outer, middle, _ = x.shape
    for o in range(outer):
        for c in range(middle):
            if unit.shape[1] == 1:
                code_row(x[o, c], unit[c, 0], shift, codes[o, c])
            else:
                code_row(x[o, c], unit[c], shift, codes[o, c])


@sums_kernel
def firing_loop(sent, silent, links, counts, sums, begin, end):
    """Add to ``sums``, (1 + layers, steps), how many fired, and over how many ``links``.

    ``sent`` is (steps, images, neurons), of which the neurons ``begin`` to ``end`` are counted,
    ``links`` (layers, neurons). So many neurons as ``counts`` holds are counted together; it holds
    up to 255.
    """
    images, most = sent.shape[1], 255
    for t in range(sent.shape[0]):
        for first in range(begin, end, counts.size):
            row = counts[: min(counts.size, end - first)]
            for start in range(0, images, most):
                row[:] = 0
                for image in range(start, min(start + most, images)):
                    now = sent[t, image, first : first + row.size]
                    for i in range(row.size):
                        row[i] += now[i] != silent
                total = 0.0
                for i in range(row.size):
                    total += np.float64(row[i])
                sums[0, t] += total
                for layer in range(links.shape[0]):
                    weights, total = links[layer, first : first + row.size], 0.0
                    for i in range(row.size):
                        total += row[i] * weights[i]
                    sums[1 + layer, t] += total


@kernel
def above_loop(x, least, counts, begin, end):
    """Add to ``counts``, (neurons,), in how many rows of ``x`` the size is above ``least``."""
    row, bounds = counts[begin:end], least[begin:end]
    for image in range(x.shape[0]):
        now = x[image, begin:end]
        for i in range(now.size):
            row[i] += abs(now[i]) > bounds[i]
    return 0

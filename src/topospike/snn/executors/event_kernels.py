"""Simulate: compiled loops over events, y += W s on the neurons that fired and the links there are.

``collect`` lists the events of a map, ``by_channel`` sorts them so that each weight row is fetched
once, ``scatter_rows`` adds whole rows of output channels (best where many links exist) and
``scatter_links`` single links (best where few do). A linear layer is a 1 x 1 map here. Maps are
(image, height, width, channel) in memory, so that a row of output channels is contiguous.

Importing this module imports numba. Nothing here checks its arguments.
"""

# The functions below are compiled; the decorators of numba carry no types, and an intrinsic is
# called without its first parameter.
# pyright: reportCallIssue=false

from __future__ import annotations

import numpy as np

from topospike.snn.kernels import fma, kernel

BLOCK = 16
"""Elements looked at together: a block without an event is passed over in a few instructions."""

STRETCH = 128
"""Columns of a batch done together by `add_links`, so that its operand stays in cache."""


@kernel
def collect(events, bits, channels, position, channel, value):
    """List the non-zero elements of (positions x channels, flat); return how many there are.

    ``bits`` is the same memory read as integers: a block is silent if all of them together are 0.
    The three lists must have room for one entry more than there are events.
    """
    whole = events.size // BLOCK
    blocks = events[: whole * BLOCK].reshape(whole, BLOCK)
    words = bits[: whole * BLOCK].reshape(whole, BLOCK)
    found = 0
    for b in range(whole):
        row = words[b]
        present = bits.dtype.type(0)
        for i in range(BLOCK):  # a constant length: a few wide instructions
            present |= row[i]
        if present != 0:
            block = blocks[b]
            for i in range(BLOCK):
                # written always, kept if it counts: no branch to mispredict
                position[found], value[found] = b * BLOCK + i, block[i]
                found += block[i] != 0
    for i in range(whole * BLOCK, events.size):
        position[found], value[found] = i, events[i]
        found += events[i] != 0
    for k in range(found):
        channel[k] = position[k] % channels
        position[k] //= channels
    return found


@kernel
def by_channel(position, channel, value, found, channels):
    """Return the first ``found`` events in the order of their channels (counting sort, stable)."""
    start = np.zeros(channels + 1, np.int64)
    for k in range(found):
        start[channel[k] + 1] += 1
    for c in range(channels):
        start[c + 1] += start[c]
    places = np.empty(found, position.dtype)
    sources = np.empty(found, channel.dtype)
    values = np.empty(found, value.dtype)
    for k in range(found):
        to = start[channel[k]]
        start[channel[k]] += 1
        places[to], sources[to], values[to] = position[k], channel[k], value[k]
    return places, sources, values


@kernel
def landing(place, tap, stride, padding, dilation, size):
    """Return the output coordinate that input ``place`` reaches through ``tap``, or -1."""
    shifted = place + padding - tap * dilation
    if shifted < 0 or shifted % stride:
        return -1
    landed = shifted // stride
    return landed if landed < size else -1


@kernel
def scatter_rows(position, channel, value, found, y, w, extent, geometry, groups):
    """Add v w[c] to y around each event, all output channels of a tap at once.

    ``y`` is (images, height, width, out); ``w`` is (in, taps down, taps across *reversed*, out per
    group); ``extent`` the height and width of the input; ``geometry`` stride, padding and dilation,
    down and across.
    """
    high, wide = extent
    stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w = geometry
    _, out_high, out_wide, out_channels = y.shape
    channels, taps_h, taps_w, width = w.shape
    per_group = channels // groups
    # then the taps across land side by side, as they lie in w: one long row
    joined = stride_w == 1 and dilation_w == 1 and groups == 1
    lines = y.reshape(y.shape[0], out_high, out_wide * out_channels)
    rows = w.reshape(channels, taps_h, taps_w * width)
    for k in range(found):
        c, v = channel[k], value[k]
        image, place = position[k] // (high * wide), position[k] % (high * wide)
        down, across = place // wide, place % wide
        offset = (c // per_group) * width
        for i in range(taps_h):
            oh = landing(down, i, stride_h, padding_h, dilation_h, out_high)
            if oh < 0:
                continue
            if joined:
                left = across + padding_w - taps_w + 1
                first, last = max(left, 0), min(left + taps_w, out_wide)
                line = lines[image, oh, first * width : last * width]
                row = rows[c, i, (first - left) * width : (last - left) * width]
                for o in range(line.size):
                    line[o] = fma(v, row[o], line[o])
                continue
            for j in range(taps_w):
                ow = landing(across, j, stride_w, padding_w, dilation_w, out_wide)
                if ow >= 0:
                    line = y[image, oh, ow, offset : offset + width]
                    row = w[c, i, taps_w - 1 - j]
                    for o in range(line.size):
                        line[o] = fma(v, row[o], line[o])


@kernel
def scatter_links(
    position, channel, value, found, y, start, target, weight, extent, geometry, taps
):
    """Add v w to y for each existing link of each event.

    Links are in compressed rows, one for each (input channel, tap down, tap across): ``start``
    bounds a row in ``target`` (the output channel) and ``weight``. The rest as in `scatter_rows`.
    """
    high, wide = extent
    stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w = geometry
    _, out_high, out_wide, _ = y.shape
    taps_h, taps_w = taps
    for k in range(found):
        c, v = channel[k], value[k]
        image, place = position[k] // (high * wide), position[k] % (high * wide)
        down, across = place // wide, place % wide
        for i in range(taps_h):
            oh = landing(down, i, stride_h, padding_h, dilation_h, out_high)
            if oh < 0:
                continue
            for j in range(taps_w):
                ow = landing(across, j, stride_w, padding_w, dilation_w, out_wide)
                if ow < 0:
                    continue
                out = y[image, oh, ow]
                row = (c * taps_h + i) * taps_w + j
                for link in range(start[row], start[row + 1]):
                    out[target[link]] = fma(v, weight[link], out[target[link]])


@kernel
def add_links(start, source, weight, x, y):
    """Add w x[source] to y for each link; x is (in, batch) and y (out, batch)."""
    batch = x.shape[1]
    for begin in range(0, batch, STRETCH):
        end = min(begin + STRETCH, batch)
        for r in range(y.shape[0]):
            out = y[r, begin:end]
            for link in range(start[r], start[r + 1]):
                row, w = x[source[link], begin:end], weight[link]
                for b in range(out.size):
                    out[b] = fma(w, row[b], out[b])

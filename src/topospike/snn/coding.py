"""Simulate: how decoded values and spikes drive each other, one time step at a time.

Every site keeps one number per neuron, the decoded output r_out: what the activation is believed
to be after t steps. Its input r_in is the ordinary ANN expression of the r_out of earlier sites.

    differential   u = t (r_in - r_out) + v0          s = Q(u)    r_out += s / t
    rate           u = t r_in - (t-1) r_out + v0      s = Q(u)    r_out = ((t-1) r_out + s) / t

This equals membrane dynamics on spike trains (r_in, r_out are the means of the encoded input and
output), needs no bias handling and no time axis, and gives the outputs of all t in one run. The
arithmetic is pure; r_out starts at zero and belongs to the engine. t counts from 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from topospike.registry import Registry


@runtime_checkable
class Coding(Protocol):
    """The three expressions that differ between codings; see the module's formulas.

    ``out`` receives the result; it may be ``r_in`` in `drive` and ``r_out`` in `decode`.
    """

    @property
    def name(self) -> str:
        """See the class."""
        ...

    def drive(
        self,
        t: int,
        r_in: Float[Tensor, "*shape"],
        r_out: Float[Tensor, "*shape"],
        v0: Float[Tensor, "*#shape"] | None = None,
        *,
        out: Tensor | None = None,
    ) -> Float[Tensor, "*shape"]:
        """Return the membrane u at step t from r_in[t], r_out[t-1] and the initial membrane."""
        ...

    def decode(
        self,
        t: int,
        r_out: Float[Tensor, "*shape"],
        s: Float[Tensor, "*shape"],
        *,
        out: Tensor | None = None,
    ) -> Float[Tensor, "*shape"]:
        """Return r_out[t] from r_out[t-1] and the spike of step t."""
        ...

    def available(
        self, t: int, r_out: Float[Tensor, "*shape"], *, out: Tensor | None = None
    ) -> Float[Tensor, "*shape"]:
        """Return the largest negative spike allowed at step t that keeps r_out[t] >= 0."""
        ...


@dataclass(frozen=True, slots=True)
class Differential:
    """Differential coding: a spike corrects the decoded value, silence keeps it.

    Notes
    -----
    With e the encoded value, ``e[t] = r[t-1] + s[t]`` and ``r[t] = mean(e[1..t])``, so that
    ``r[t] = r[t-1] + s[t] / t`` (Huang et al., ICML 2025). The largest value that can be reached
    is theta (1 + 1/2 + ... + 1/T). The reference code runs an extra zero-input frame to learn the
    constant part of every tensor; in decoded values no such frame is needed.

    Examples
    --------
    A constant input that is one spike high is exact after the first step and silent from then on.

    >>> coding, r_in, r_out = Differential(), torch.tensor(0.5), torch.tensor(0.0)
    >>> r_out = coding.decode(1, r_out, coding.drive(1, r_in, r_out))
    >>> coding.drive(2, r_in, r_out)
    tensor(0.)
    """

    @property
    def name(self) -> str:
        """Name used in settings and reports."""
        return "differential"

    def drive(
        self,
        t: int,
        r_in: Float[Tensor, "*shape"],
        r_out: Float[Tensor, "*shape"],
        v0: Float[Tensor, "*#shape"] | None = None,
        *,
        out: Tensor | None = None,
    ) -> Float[Tensor, "*shape"]:
        """Return ``t (r_in - r_out) + v0``."""
        u = torch.sub(r_in, r_out, out=out)
        if t != 1:
            u.mul_(t)
        return u if v0 is None else u.add_(v0)

    def decode(
        self,
        t: int,
        r_out: Float[Tensor, "*shape"],
        s: Float[Tensor, "*shape"],
        *,
        out: Tensor | None = None,
    ) -> Float[Tensor, "*shape"]:
        """Return ``r_out + s / t``."""
        return torch.add(r_out, s, alpha=1.0 / t, out=out)

    def available(
        self, t: int, r_out: Float[Tensor, "*shape"], *, out: Tensor | None = None
    ) -> Float[Tensor, "*shape"]:
        """Return ``t r_out``."""
        return torch.mul(r_out, t, out=out)


@dataclass(frozen=True, slots=True)
class Rate:
    """Rate coding: the decoded value is the mean of the spikes so far.

    Examples
    --------
    A constant input that is one spike high needs that spike at every step.

    >>> coding, r_in, r_out = Rate(), torch.tensor(0.5), torch.tensor(0.0)
    >>> r_out = coding.decode(1, r_out, coding.drive(1, r_in, r_out))
    >>> coding.drive(2, r_in, r_out)
    tensor(0.5000)
    """

    @property
    def name(self) -> str:
        """Name used in settings and reports."""
        return "rate"

    def drive(
        self,
        t: int,
        r_in: Float[Tensor, "*shape"],
        r_out: Float[Tensor, "*shape"],
        v0: Float[Tensor, "*#shape"] | None = None,
        *,
        out: Tensor | None = None,
    ) -> Float[Tensor, "*shape"]:
        """Return ``t r_in - (t-1) r_out + v0``."""
        u = torch.mul(r_in, t, out=out)
        if t != 1:
            u.sub_(r_out, alpha=t - 1)
        return u if v0 is None else u.add_(v0)

    def decode(
        self,
        t: int,
        r_out: Float[Tensor, "*shape"],
        s: Float[Tensor, "*shape"],
        *,
        out: Tensor | None = None,
    ) -> Float[Tensor, "*shape"]:
        """Return ``((t-1) r_out + s) / t``."""
        return torch.lerp(r_out, s, 1.0 / t, out=out)

    def available(
        self, t: int, r_out: Float[Tensor, "*shape"], *, out: Tensor | None = None
    ) -> Float[Tensor, "*shape"]:
        """Return ``(t-1) r_out``."""
        return torch.mul(r_out, t - 1, out=out)


CODINGS: Registry[Coding] = Registry("coding", {"differential": Differential(), "rate": Rate()})
"""The codings by their names in settings."""

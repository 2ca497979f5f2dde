"""What exactly is counted. The paper leaves some of it open, so every choice has a name."""

from __future__ import annotations

from dataclasses import dataclass, replace

from topospike.errors import ConfigError
from topospike.registry import suggestion

CHOICES: dict[str, dict[str, str]] = {
    "first_layer": {
        "mac_once": "one MAC per existing link of the first layer, once an image (or frame): its "
        "input is constant, so its result can be kept",
        "mac_per_step": "one MAC per existing link of the first layer, at every time step (while a "
        "frame is shown)",
        "ac": "one accumulate per existing link and non-zero pixel: at t = 1 in differential "
        "coding, at every step in rate coding (the DCGS reference code); of frames, once a frame",
    },
    "input_events": {
        "count": "events that enter the first layer cost one accumulate for each existing link "
        "that leaves their pixel, an entry of 3 being three events; once a frame, or at every step "
        "it is shown with first_layer mac_per_step",
        "nonzero": "as count, but an entry of a frame is one event, whatever its size",
    },
    "pooled": {
        "fold": "an average pool is folded into the next layer: a spike costs one accumulate for "
        "each existing link of each pooled cell it belongs to",
        "nonzero": "one accumulate per existing link of each pooled value that receives a "
        "non-zero sum (the DCGS reference code)",
        "mac": "as nonzero, but a pooled value is a real number and costs MACs",
    },
    "products": {
        "auto": "a product of two spiking operands: two_term under sigma-delta, else three_term",
        "two_term": "a product of two spiking operands costs an accumulate where the left one "
        "fires and the right one holds a value after it, and where the right one fires and the "
        "left one held a value before (s_A B_t + A_(t-1) s_B)",
        "three_term": "a product of two spiking operands costs an accumulate where both fire, and "
        "where one fires and the other holds a value (the DCGS reference code)",
        "single": "a product of two spiking operands costs an accumulate where both fire",
    },
    "padding": {
        "left_out": "of sentences filled up to one length, real tokens alone are counted (where "
        "attention_mask is not 0), in the ANN as well",
        "counted": "tokens of padding are counted like real ones",
    },
    "links": {
        "existing": "links of the topology only (mask true)",
        "dense": "every position of the weight tensor, as if no link were missing",
    },
}


@dataclass(frozen=True, slots=True)
class Conventions:
    """The counting conventions of one evaluation.

    Attributes
    ----------
    first_layer : {"mac_once", "mac_per_step", "ac"}
    input_events : {"count", "nonzero"}
        Of networks whose input is events; the first layer is then no MAC.
    pooled : {"fold", "nonzero", "mac"}
    products : {"auto", "two_term", "three_term", "single"}
    padding : {"left_out", "counted"}
        Of networks of tokens that take an ``attention_mask``.
    links : {"existing", "dense"}

    Raises
    ------
    ConfigError
        For a value that is none of these.

    Examples
    --------
    >>> Conventions(pooled="fould")
    Traceback (most recent call last):
    ...
    topospike.errors.ConfigError: pooled='fould' is not a counting convention. Known: fold, nonzero, mac. Did you mean 'fold'?
    """  # noqa: E501

    first_layer: str = "mac_once"
    pooled: str = "fold"
    products: str = "auto"
    links: str = "existing"
    input_events: str = "count"
    padding: str = "left_out"

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            value = getattr(self, name)
            if value not in known:
                raise ConfigError(
                    f"{name}={value!r} is not a counting convention. Known: {', '.join(known)}."
                    f"{suggestion(value, known)}"
                )

    def resolved(self, *, settles: bool) -> Conventions:
        """Return the conventions with ``auto`` settled for a network."""
        if self.products != "auto":
            return self
        return replace(self, products="two_term" if settles else "three_term")

    def in_words(self) -> dict[str, str]:
        """Return each convention with the sentence that defines it."""
        return {name: CHOICES[name][getattr(self, name)] for name in CHOICES}

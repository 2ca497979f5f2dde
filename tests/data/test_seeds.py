import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from topospike.data.seeds import (
    AUGMENT,
    MIX,
    borrowed_global_generator,
    order_seed,
    sample_seed,
    split_seed,
    stream_seed,
)
from topospike.errors import ConfigError

KEYS = st.lists(
    st.sampled_from([0, 1, 2, 100, 101, 2**32, 2**32 + 1, 2**63]) | st.integers(0, 2**64 - 1),
    max_size=6,
)


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=200)
@given(KEYS, KEYS)
def test_different_keys_have_different_streams(one, other):
    """Of any length and size: zeros at the end count, and no large number is two small ones."""
    for key in (other, [*one, 0], [0, *one], [*one, 2**32]):
        assert (stream_seed(*one) == stream_seed(*key)) == (one == key)


def test_no_two_uses_of_a_run_share_a_stream():
    epochs = range(300)
    seeds = [split_seed(0), sample_seed(0), *(order_seed(0, epoch) for epoch in epochs)]
    seeds += [stream_seed(0, e, use, n) for e in epochs for use in (AUGMENT, MIX) for n in range(9)]
    assert len(set(seeds)) == len(seeds)


def test_seed_fits_a_torch_generator():
    for key in range(50):
        assert 0 <= stream_seed(key) < 2**63
        torch.Generator().manual_seed(stream_seed(key))


def test_negative_part_is_refused():
    with pytest.raises(ConfigError, match=r"\(-1, 2\).*non-negative"):
        stream_seed(-1, 2)


def test_borrowed_generator_is_given_back_after_an_error():
    before = torch.get_rng_state()
    drawn = []

    def fail() -> None:
        with borrowed_global_generator(5):
            drawn.append(torch.rand(3))
            raise RuntimeError

    for _ in range(2):
        with pytest.raises(RuntimeError):
            fail()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*drawn)

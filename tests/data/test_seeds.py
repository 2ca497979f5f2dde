import pytest
import torch

from topospike.data.seeds import borrowed_global_generator, stream_seed
from topospike.errors import ConfigError


def test_every_key_has_its_own_stream():
    keys = [(seed, epoch, batch) for seed in range(5) for epoch in range(5) for batch in range(5)]
    assert len({stream_seed(*key) for key in keys}) == len(keys)
    assert stream_seed(3) != stream_seed(3, 0, 1)


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

import pytest
import torch

from topospike.evolve.scores import PRECISION_SWITCHES, exact_float32


@pytest.fixture
def restored():
    before = [switch.fp32_precision for switch in PRECISION_SWITCHES]
    yield
    for switch, precision in zip(PRECISION_SWITCHES, before, strict=True):
        switch.fp32_precision = precision


@pytest.mark.usefixtures("restored")
def test_reduced_precision_is_off_inside_and_back_after_an_error():
    for switch in PRECISION_SWITCHES:
        switch.fp32_precision = "tf32"

    def fail_inside():
        with exact_float32(torch.device("cpu")):
            assert [switch.fp32_precision for switch in PRECISION_SWITCHES] == ["ieee"] * 4
            assert not torch.is_grad_enabled()
            raise KeyError

    with pytest.raises(KeyError):
        fail_inside()
    assert [switch.fp32_precision for switch in PRECISION_SWITCHES] == ["tf32"] * 4
    assert torch.is_grad_enabled()


def test_autocast_is_off_inside():
    with torch.autocast("cpu", dtype=torch.bfloat16), exact_float32(torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32

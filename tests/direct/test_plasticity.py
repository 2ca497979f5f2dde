import pytest
import torch

from topospike.direct.dpap import Plasticity, Trace, min_max, neuron_importance
from topospike.errors import ShapeError

# reference index of a prunable layer -> index of the layer before it
BEFORE = {0: -1, 1: 0, 3: 2, 4: 3, 6: 5, 7: 6, 9: 8}
CLOSE = {"rtol": 3e-5, "atol": 3e-5}


def signal(stored, batch, index, t):
    """Output of a layer of the reference at a step; 8 is the last map flattened, 9 fc1."""
    if index == 9:
        return torch.from_numpy(stored[f"b{batch}/fc"][t]).float()
    if index == -1:
        return torch.from_numpy(stored[f"b{batch}/layer0"]).float()
    a = torch.from_numpy(stored[f"b{batch}/layer{min(index + 1, 8)}"][t]).float()
    return a.flatten(1) if index == 8 else a


def rates(stored, batch):
    found = {}
    for index in range(-1, 10):
        trace = Trace(channels_first=True)
        for t in range(int(stored["T"])):
            trace.add(signal(stored, batch, index, t))
        found[index] = trace.rate()
    return found


def test_traces_and_plasticity_equal_the_reference(oracle):
    stored = oracle("dpap_trace")
    gathered = {index: Plasticity() for index in BEFORE}

    def check(found, name):
        torch.testing.assert_close(found, torch.from_numpy(stored[name]), **CLOSE, msg=name)

    for batch in range(int(stored["NUM"])):
        found = rates(stored, batch)
        for index, rate in found.items():
            check(rate, f"b{batch}/out/rate_{'fc' if index >= 8 else 'conv'}_idx{index}")
        for index, own in gathered.items():
            own.add(found[index], found[BEFORE[index]], layer=str(index))
            check(own.threshold, f"b{batch}/out/theta_idx{index}")
            check(own.strength, f"b{batch}/out/bcm_idx{index}")
            check(own.activity, f"b{batch}/out/epochtrace_idx{index}")
    for index, own in gathered.items():
        check(neuron_importance(own.strength, own.activity), f"out/spine_idx{index}")


def test_a_trace_halves_each_step():
    trace = Trace(channels_first=True)
    for a in (4.0, 0.0, 0.0):
        trace.add(torch.full((1, 1, 2, 2), a))
    assert trace.rate().item() == pytest.approx(16 / 4 / 3)


def test_positions_of_tokens_are_summed_over_the_middle_axis():
    trace = Trace(channels_first=False)
    trace.add(torch.ones(2, 5, 3))
    assert trace.rate().tolist() == [[5.0] * 3] * 2


def test_a_layer_that_did_not_run_has_no_rate():
    with pytest.raises(ShapeError, match="did not run"):
        Trace(channels_first=True).rate()


def test_a_batch_of_another_size_is_refused():
    own = Plasticity()
    own.add(torch.ones(4, 2), torch.ones(4, 3), layer="fc1")
    with pytest.raises(ShapeError, match=r"'fc1'.*\(3, 2\).*\(4, 2\).*whole\s+batches"):
        own.add(torch.ones(3, 2), torch.ones(3, 3), layer="fc1")


def test_equal_values_scale_to_one_half():
    assert min_max(torch.full((3,), 7.0)).tolist() == [0.5] * 3

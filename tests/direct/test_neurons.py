import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from topospike.direct import SURROGATES, SpikingNeuron
from topospike.errors import ConfigError
from topospike.recipe import NeuronSettings

PLIF = NeuronSettings(train_width=True)
LIF = NeuronSettings("lif", threshold=0.5, surrogate="triangular")
CASES = {
    "plif_default": PLIF,
    "plif_th05_tau4": dataclasses.replace(PLIF, threshold=0.5, tau=4.0),
    "lif_default": LIF,
    "lif_th1_tau3": dataclasses.replace(LIF, threshold=1.0, tau=3.0),
    "if_default": NeuronSettings("if", threshold=0.5),
}


def run(neuron, x):
    """Spikes and membranes after the reset, stacked over time."""
    neuron.reset()
    steps = [(neuron(frame), neuron.membrane) for frame in x]
    return torch.stack([s for s, _ in steps]), torch.stack([v for _, v in steps])


@pytest.mark.parametrize("case", CASES)
def test_spikes_membranes_and_gradients_equal_the_reference(oracle, case):
    stored = {name: torch.as_tensor(value) for name, value in oracle("nodes").items()}
    neuron, x = SpikingNeuron(CASES[case]), stored["x"].clone().requires_grad_()
    spikes, membranes = run(neuron, x)
    assert torch.equal(spikes.to(torch.int8), stored[f"{case}__spikes"])
    (spikes * stored["g"]).sum().backward()
    close = {"atol": 2e-6, "rtol": 0}
    torch.testing.assert_close(membranes.detach(), stored[f"{case}__v_after_reset"], **close)
    torch.testing.assert_close(x.grad, stored[f"{case}__grad_x"], **close)
    if neuron.w is not None:
        torch.testing.assert_close(neuron.w.detach(), stored[f"{case}__w"], **close)
        torch.testing.assert_close(neuron.w.grad, stored[f"{case}__grad_w"], **close)
        torch.testing.assert_close(neuron.width.grad, stored[f"{case}__grad_alpha"], **close)


def by_autograd(x, chosen, neuron):
    """The same neuron in plain operations, with the surrogate put in by a detached difference."""
    v, spikes = torch.zeros_like(x[0]), []
    surrogate = SURROGATES[chosen.surrogate]
    for frame in x:
        if chosen.kind == "if":
            m = v + frame
        else:
            gain = 1 / chosen.tau if neuron.gain is None else neuron.gain
            m = v + (frame - v) * gain
        u = m - chosen.threshold
        slope = surrogate.slope(u.detach(), neuron.width.detach())
        s = (u > 0).to(m) + slope * (u - u.detach())
        held = s.detach() if chosen.detach_reset else s
        v = m * (1 - held) if chosen.reset == "hard" else m - chosen.threshold * held
        spikes.append(s)
    return torch.stack(spikes), v


@pytest.mark.parametrize("kind", ["if", "lif", "plif"])
@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize("detach_reset", [True, False])
def test_the_backward_pass_is_that_of_the_formulas(kind, reset, detach_reset):
    chosen = NeuronSettings(kind, threshold=0.6, reset=reset, detach_reset=detach_reset)
    neuron = SpikingNeuron(chosen).double()
    generator = torch.Generator().manual_seed(1)
    draw = torch.randn(6, 3, 4, generator=generator, dtype=torch.float64)
    weights = torch.randn(6, 3, 4, generator=generator, dtype=torch.float64)
    gradients = []
    for simulate in (lambda x: run(neuron, x), lambda x: by_autograd(x, chosen, neuron)):
        x = draw.clone().requires_grad_()
        neuron.zero_grad()
        spikes, v = simulate(x)
        last = v[-1] if v.ndim == 3 else v
        ((spikes * weights).sum() + last.sum()).backward()
        gradients.append((x.grad, None if neuron.w is None else neuron.w.grad.clone()))
    torch.testing.assert_close(gradients[0], gradients[1])


def test_a_neuron_on_the_threshold_fires_unless_it_is_strict():
    on_it = torch.tensor([0.5])
    strict = NeuronSettings("if", threshold=0.5)
    assert SpikingNeuron(strict)(on_it).item() == 0
    assert SpikingNeuron(dataclasses.replace(strict, strict=False))(on_it).item() == 1


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.floats(0.01, 3.0), st.integers(1, 12))
def test_a_soft_reset_loses_no_charge(charge, steps):
    neuron = SpikingNeuron(NeuronSettings("if", threshold=1.0, reset="soft")).double()
    spikes, membranes = run(neuron, torch.full((steps, 1), charge, dtype=torch.float64))
    assert float(spikes.sum() + membranes[-1]) == pytest.approx(charge * steps)


def test_state_is_not_part_of_the_model():
    neuron = SpikingNeuron(PLIF)
    neuron(torch.ones(2, 3))
    assert sorted(neuron.state_dict()) == ["w", "width"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "izhikevich"}, "kind='izhikevich' is unknown. Known: if, lif, plif"),
        ({"reset": "hrad"}, "Did you mean 'hard'"),
        ({"threshold": 0.0}, "threshold=0.0"),
        ({"tau": 1.0}, "above 1 for a plif neuron"),
        ({"tau": 0.5, "kind": "lif"}, "1 or more"),
        ({"surrogate_width": -1.0}, "above 0"),
        ({"train_width": True, "surrogate": "sigmoid"}, "only the arctan"),
    ],
)
def test_impossible_neurons_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        SpikingNeuron(dataclasses.replace(NeuronSettings(), **changes))

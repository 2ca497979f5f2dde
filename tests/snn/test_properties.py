"""The exact properties of differential coding, where each is asserted, and the rest of them.

====  =============================================================  ==============================
P     says                                                           asserted in
====  =============================================================  ==============================
1     conservation: m[t] = t (r_in - r_out) + m[0]                   here; test_coding (recursion)
2     what is left in the membrane after a spike                     test_neurons (p2)
3     a constant on a level: exact at once, then silent              test_coding (p3)
4     a ReLU site never decodes below 0; negative drive is silent    test_coding (p4), here
5     reach: theta H_T (differential), theta (rate)                  test_coding (p5)
6     graded units; max-pool for any kernel, stride and padding      test_coding (graded), here
7     identity sites return the ANN's logits at every step           test_coding (p7); networks:
                                                                     convert/test_foreign_models,
                                                                     convert/test_zoo,
                                                                     convert/test_hugging_face
8     the error falls as O(1/T)                                      test_coding (p8); networks: P7
9     scaling thresholds and inputs scales the spikes, bit by bit    test_neurons (p9), test_network
10    one more level only adds a finer one                           test_neurons (p10)
11    a longer run begins like a shorter one                         test_coding (p11), test_network
12    images do not influence each other                             test_network
13    fewer links never cost more; an empty layer costs nothing;     measure/test_evaluate (also the
      counts equal a literal event loop                              loop), here (empty layer)
14    the optimal threshold: fixed point, least error, covariance    convert/test_thresholds (p14)
15    mean output of an integrate-and-fire neuron                    test_coding (p15)
====  =============================================================  ==============================
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from topospike.conversion import convert
from topospike.measure import evaluate
from topospike.snn.coding import CODINGS, Differential
from topospike.snn.neurons import (
    IntegrateAndFire,
    MultiThreshold,
    Neuron,
    SignedIntegrateAndFire,
)
from topospike.snn.site import START, Site, site_step
from topospike.topology import register_mask

PROPERTY = settings(deadline=None, derandomize=True, max_examples=25)
SEEDS = st.integers(0, 2**31 - 1)
NEURONS = st.one_of(
    st.builds(MultiThreshold, st.integers(1, 8), gated=st.booleans()),
    st.sampled_from([IntegrateAndFire(), SignedIntegrateAndFire()]),
)


def random(seed: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def run(site: Site, r_in: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the decoded outputs and the spikes of a site driven by r_in[0..T-1]."""
    decoded, spikes, state = [], [], START
    for t, value in enumerate(r_in, start=1):
        state = site_step(site, t, value, state)
        assert state.decoded is not None
        assert state.spikes is not None
        decoded.append(state.decoded.clone())
        spikes.append(state.spikes.clone())
    return torch.stack(decoded), torch.stack(spikes)


def site_of(neuron: Neuron, coding: str, theta: torch.Tensor) -> Site:
    site = Site("a", gated=neuron.gated, neuron=neuron, coding=CODINGS[coding])
    site.threshold = theta
    return site


@PROPERTY
@given(seed=SEEDS, neuron=NEURONS, coding=st.sampled_from(list(CODINGS)), steps=st.integers(1, 9))
def test_p1_what_came_in_and_did_not_go_out_is_the_membrane(
    seed: int, neuron: Neuron, coding: str, steps: int
) -> None:
    """The membrane is integrated here step by step, as the spikes of both sides say."""
    theta, r_in = random(seed, 1, 20).abs() + 0.2, 2 * random(seed + 1, steps, 4, 20)
    decoded, spikes = run(site_of(neuron, coding, theta), r_in)
    start = neuron.initial_membrane * theta
    before_in = torch.cat([torch.zeros_like(r_in[:1]), r_in[:-1]])
    time = torch.arange(1, steps + 1).double().reshape(-1, 1, 1)
    if coding == "rate":
        incoming = time * r_in - (time - 1) * before_in
        membrane = start + (incoming - spikes).cumsum(0)
    elif coding == "sigma-delta":
        time = torch.ones_like(time)
        membrane = start + (r_in - before_in - spikes).cumsum(0)
    else:
        # encoded input: e_in[t] = r_in[t-1] + x[t], and x[t] = t (r_in[t] - r_in[t-1])
        before_out = torch.cat([torch.zeros_like(decoded[:1]), decoded[:-1]])
        encoded_in = before_in + time * (r_in - before_in)
        membrane = start + (encoded_in - before_out - spikes).cumsum(0)
    torch.testing.assert_close(membrane, time * (r_in - decoded) + start, rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("coding", list(CODINGS))
def test_p4_a_constant_negative_input_never_emits(coding: str) -> None:
    theta = random(0, 1, 30).abs() + 0.1
    for neuron in (MultiThreshold(4, gated=True), IntegrateAndFire()):
        drive = (-random(1, 30).abs() - 1.0).expand(20, 3, 30)
        decoded, spikes = run(site_of(neuron, coding, theta), drive)
        assert not spikes.any()
        assert not decoded.any()


@PROPERTY
@given(
    seed=SEEDS, kernel=st.integers(2, 4), stride=st.integers(1, 3), data=st.data(),
    ceil=st.booleans(),
)  # fmt: skip
def test_p6_a_max_pool_of_events_decodes_to_the_pool_of_decoded_values(
    seed: int, kernel: int, stride: int, data: st.DataObject, ceil: bool
) -> None:
    """The pool's own stream is t (F(r[t]) - F(r[t-1])), from 0; its decoded sum is F(r[t])."""
    padding = data.draw(st.integers(0, kernel // 2))
    site = site_of(MultiThreshold(3, gated=False), "differential", torch.ones(()).double())
    decoded, _ = run(site, random(seed, 5, 1, 2, 9, 8))

    def pool(r: torch.Tensor) -> torch.Tensor:
        return functional.max_pool2d(r, kernel, stride, padding, ceil_mode=ceil)

    out = before = torch.zeros_like(pool(decoded[0]))
    for t, r in enumerate(decoded, start=1):
        event = t * (pool(r) - before)
        out, before = Differential().decode(t, out, event), pool(r)
        torch.testing.assert_close(out, pool(r), rtol=0, atol=1e-12)


def test_p13_a_layer_without_links_costs_nothing() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)
    )  # fmt: skip
    register_mask(model[2], torch.zeros(8, 8, dtype=torch.bool))
    nn.init.ones_(model[2].bias)
    x = torch.randn(16, 6)
    result = evaluate(convert(model, calibration=[x]), [(x, torch.arange(16) % 3)], 5)
    layers = {layer.name: layer for layer in result.layers}
    assert layers["2"].sops == (0.0,) * 5
    assert layers["2"].macs == 0
    assert layers["4"].sops[-1] > 0

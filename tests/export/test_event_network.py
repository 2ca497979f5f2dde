"""The event form computes what the network computes, or is refused with the place."""

import pytest
import torch
from torch import nn

import topospike as ts
from topospike.errors import ConversionError
from topospike.export import event_form, event_network, fold


@pytest.mark.parametrize("method", ["qcfs", "cs-qcfs", "dcgs"])
def test_the_event_network_repeats_logits_and_spikes_at_every_step(spiking, method):
    snn, x = spiking(method)
    with torch.no_grad():
        network = event_network(snn, 6)
        for step, (s, theirs, spikes) in zip(snn.watch(x, 6), network.steps(x), strict=True):
            assert step.t == s
            assert torch.allclose(step.logits, theirs, atol=1e-12)
            for name, held in step.sites.items():
                theta = snn.sites[name].threshold.expand_as(held.spikes)
                ours = torch.where(theta > 0, held.spikes / theta, 0.0).reshape(spikes[name].shape)
                assert torch.equal(ours.round(decimals=9), spikes[name])


def test_integrate_and_fire_spikes_are_ones_and_weights_keep_their_zeros(spiking):
    snn, x = spiking("cs-qcfs")
    for _, _, spikes in event_network(snn, 4).steps(x):
        assert {float(v) for s in spikes.values() for v in s.unique()} <= {0.0, 1.0}
    plain, folded = event_form(snn), fold(event_form(snn))
    for before, after in zip(plain.populations, folded.populations, strict=True):
        for old, new in zip(before.pathways, after.pathways, strict=True):
            for one, other in zip(old.steps, new.steps, strict=False):
                if hasattr(one, "weight"):
                    assert torch.equal(one.weight == 0, other.weight == 0)


def test_first_layer_every_step_changes_no_logit(spiking):
    snn, x = spiking("qcfs")
    once, again = (event_network(snn, 5, first_layer=f)(x) for f in ("once", "per_step"))
    assert torch.equal(once, again)


def refused(model: nn.Module, shape: tuple[int, ...], **options: object) -> str:
    x = torch.randn(4, *shape)
    with pytest.raises(ConversionError) as caught:
        fold(event_form(ts.convert(model.eval(), "qcfs", [x], **options)))
    return str(caught.value)


def test_what_no_weights_express_is_refused_by_name():
    def net(*middle: nn.Module) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), *middle, nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(),
            nn.LazyLinear(3),
        )  # fmt: skip

    image = (2, 8, 8)
    for middle, message in [
        ((nn.ReLU(), nn.MaxPool2d(2)), "2: a max-pool cannot be written as weights"),
        ((nn.ReLU6(),), "1: a ceiling"),
        ((nn.ReLU(), nn.AvgPool2d(3, 2, 1, count_include_pad=False)), "partial windows"),
        ((nn.ReLU(), nn.AdaptiveAvgPool2d(5)), "windows differ in size"),
    ]:
        model = net(*middle)
        model(torch.zeros(1, *image))
        assert message in refused(model, image)
    model = net(nn.ReLU())
    model(torch.zeros(1, *image))
    text = refused(model, image, granularity="neuron")
    assert "threshold for each of its 256 neurons" in text
    assert "granularity='channel'" in text


def test_overlapping_pools_cannot_be_merged_with_a_layer():
    model = nn.Sequential(
        nn.Conv2d(2, 4, 1), nn.ReLU(), nn.AvgPool2d(3, 2), nn.Flatten(), nn.Linear(36, 3)
    )
    snn = ts.convert(model.eval(), "qcfs", [torch.randn(4, 2, 7, 7)])
    with pytest.raises(ConversionError, match="4: overlapping or padded pools"):
        event_network(snn, 2)

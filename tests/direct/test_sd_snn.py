import math

import numpy as np
import pytest
import torch
from torch import nn

from topospike.direct import SdSnn, spiking_model
from topospike.direct.sd_snn import SdSnnLayer, Stages, growth_level, pruned_rows
from topospike.errors import ConfigError
from topospike.recipe import DirectSettings

WIDTHS = (128, 128, 256, 256, 512, 512)
FAN_IN = (27, 1152, 1152, 2304, 2304, 4608)
FLAT, HIDDEN = 32_768, 512


class Steps:
    """The rule on weights given epoch by epoch, as the reference numbers were made."""

    def __init__(self, weights, *, adapts):
        self.weights = weights
        self.masks = [torch.ones(w.shape[1:], dtype=torch.bool) for w in weights]
        self.layers = [SdSnnLayer(m, adapts=a) for m, a in zip(self.masks, adapts, strict=True)]
        self.stages = Stages(18)

    def epoch(self, epoch):
        """Take one epoch; return the clipped weights and how much grew in each layer."""
        current = [torch.from_numpy(w[epoch]).float() for w in self.weights]
        for layer, weight, mask in zip(self.layers, current, self.masks, strict=True):
            layer.follow(weight, mask, epoch, self.stages)
        grown = [0] * len(current)
        if epoch < self.stages.first_pruning:
            return current, grown
        for k, (layer, weight) in enumerate(zip(self.layers, current, strict=True)):
            after = layer.regrown(weight, self.masks[k], epoch, self.stages)
            grown[k] = int((after & ~self.masks[k]).sum())
            self.masks[k] = after
        for k, layer in enumerate(self.layers):
            self.masks[k] = layer.pruned(self.masks[k])
            following = self.masks[k + 1] if k + 1 < len(self.masks) else None
            layer.grow_percent(self.masks[k], following, epoch, self.stages, reference_width=HIDDEN)
        return current, grown


@pytest.mark.parametrize("variant", ["all", "code"])
def test_ranges_regrowth_and_pruning_equal_the_reference(oracle, variant):
    stored = oracle("sdsnn_steps")
    adapts = [variant == "all", variant == "all", True]
    steps = Steps([stored[f"w_in_{k}"] for k in range(3)], adapts=adapts)
    looked_at = {int(e): i for i, e in enumerate(stored["range_epochs"])}
    first_growth = {
        k: next((e for e, n in enumerate(stored[f"{variant}/grown_{k}"]) if n), 99)
        for k in range(3)
    }
    for epoch in range(int(stored["n_epochs"])):
        weights, grown = steps.epoch(epoch)
        for k in range(3):
            rows = steps.masks[k].flatten(1).sum(1).numpy()
            expected = stored[f"{variant}/live_rows_{k}"][epoch]
            if not adapts[k]:
                # all filters tie, so the reference's choice is arbitrary: only their number counts
                if epoch < min(first_growth.values()):
                    assert (rows == 0).sum() == (expected == 0).sum()
                continue
            assert np.array_equal(rows, expected), (epoch, k)
            assert grown[k] == stored[f"{variant}/grown_{k}"][epoch]
            percent = steps.layers[k].percent
            assert percent == pytest.approx(stored[f"{variant}/pct_{k}"][epoch], abs=1e-9)
            clipped = float(weights[k].double().abs().sum())
            assert clipped == pytest.approx(stored[f"{variant}/clipped_abs_sum_{k}"][epoch])
            if epoch in looked_at:
                ranges, i = steps.layers[k].ranges, looked_at[epoch]
                for end, name in ((ranges.upper, "pos"), (ranges.lower, "neg")):
                    reference = torch.from_numpy(stored[f"{variant}/range_{name}_{k}"][i])
                    torch.testing.assert_close(end.flatten(), reference, atol=1e-6, rtol=0)
    for k in range(3):
        if adapts[k]:
            expected = stored[f"{variant}/alive_last_{k}"].astype(bool)
            assert np.array_equal(steps.masks[k].numpy(), expected)


def test_without_regrowth_6conv2fc_shrinks_as_published():
    masks = [torch.ones(c, 3, 3, 3, dtype=torch.bool) for c in WIDTHS]
    masks.append(torch.ones(HIDDEN, 64, dtype=torch.bool))  # only its 512 rows play a part
    layers = [SdSnnLayer(mask, adapts=False) for mask in masks]
    stages, seen = Stages(18), {}
    for epoch in range(stages.first_pruning, 600):
        for k, layer in enumerate(layers):
            masks[k] = layer.pruned(masks[k])
            following = masks[k + 1] if k + 1 < len(masks) else None
            layer.grow_percent(masks[k], following, epoch, stages)
        seen[epoch] = [int((~mask.flatten(1).any(1)).sum()) for mask in masks]
    links = sum(c * f for c, f in zip(WIDTHS, FAN_IN, strict=True))
    shares = {
        epoch: (
            round(100 * sum(d * f for d, f in zip(dead, FAN_IN, strict=False)) / links, 3),
            round(100 * dead[-1] * FLAT / (HIDDEN * FLAT + HIDDEN * 10), 2),
        )
        for epoch, dead in seen.items()
    }
    assert {e: shares[e] for e in (37, 42, 57, 97, 299, 599)} == {
        37: (0.378, 1.95),
        42: (3.982, 37.29),
        57: (6.199, 37.49),
        97: (6.325, 38.07),
        299: (6.325, 41.20),
        599: (6.325, 45.49),
    }
    assert seen[599] == [7, 4, 15, 8, 30, 39, 233]
    assert round(100 * 233 * FLAT / (HIDDEN * FLAT + HIDDEN * 100), 2) == 45.37
    hidden = {epoch: dead[-1] for epoch, dead in seen.items()}
    for rows, first, last in ((191, 42, 43), (200, 157, 168), (210, 284, 296), (221, 429, 441)):
        assert [e for e, n in hidden.items() if n == rows] == list(range(first, last + 1))
    assert [e for e, n in hidden.items() if n == 233] == list(range(593, 600))
    percents = [round(layer.percent, 2) for layer in layers]
    assert percents == [5.94, 3.28, 5.94, 3.28, 6.01, 7.74, 45.62]


def test_a_neuron_ever_pruned_keeps_its_place_among_the_lowest():
    ever = torch.tensor([False, True, False, False])
    chosen = pruned_rows(torch.tensor([5.0, 0.0, 1.0, 2.0]), ever, 50.0)
    assert chosen.tolist() == [False, False, True, False]


def test_no_neuron_goes_below_one_whole_place():
    assert not pruned_rows(torch.zeros(10), torch.zeros(10, dtype=torch.bool), 9.9).any()


def test_the_level_of_regrowth_rises_to_99_percent():
    assert growth_level(0, is_conv=True) == 66
    assert growth_level(0, is_conv=False) == 61
    assert growth_level(36, is_conv=True) < 99 == growth_level(37, is_conv=True)
    assert growth_level(38, is_conv=False) < 99 == growth_level(39, is_conv=False)


def test_nothing_is_pruned_before_its_time_and_whole_neurons_go_after(net):
    net.conv2, net.fc1 = nn.Conv2d(6, 300, 3, padding=1), nn.Linear(300 * 16, 100)
    net.fc2 = nn.Linear(100, 3)
    model = spiking_model(net, DirectSettings(timesteps=2))
    rule = SdSnn(model, patience=2, regrow=False)
    assert rule.layers == ("conv1", "conv2", "fc1")
    sparsities = []
    for epoch in range(30):
        with torch.no_grad():
            for layer in rule.layers:
                rule.weight(layer).add_(0.01 * torch.randn_like(rule.weight(layer)))
        sparsities.append(rule.update_topology(epoch).sparsity)
    assert sparsities[4] == 0.0 < sparsities[-1]
    for layer in ("conv2", "fc1"):
        rows = rule.mask(layer).flatten(1)
        assert torch.equal(rows.any(1), rows.all(1))
        assert not rows.all()
        assert (rule.weight(layer)[~rule.mask(layer)] == 0).all()


def test_a_run_of_60_epochs_can_go_through_every_stage(net):
    rule = SdSnn(spiking_model(net), epochs=60, scale_epochs=True)
    assert rule.stages == Stages(patience=2, scale=0.1)
    assert rule.stages.first_pruning == 5
    assert rule.stages.published_since(6) == range(10, 20)


def test_a_percentage_grows_as_far_in_30_epochs_as_in_600():
    ends = {}
    for epochs in (600, 30):
        stages = Stages.of_run(18, epochs)
        layer = SdSnnLayer(torch.ones(100, 60, dtype=torch.bool), adapts=False)
        for epoch in range(stages.first_pruning, epochs):
            layer.grow_percent(torch.ones(100, 60, dtype=torch.bool), None, epoch, stages)
        ends[epochs] = layer.percent
    assert ends[600] == pytest.approx(2 + 0.5 / (1 - math.exp(-1)) * 10 + 0.0005 * 10 * 539, 1e-3)
    assert ends[30] == pytest.approx(ends[600], rel=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"patience": 0}, "patience is 0"), ({"range_layers": "fc"}, "Known: all, linear")],
)
def test_impossible_options_are_refused(spiking, options, message):
    with pytest.raises(ConfigError, match=message):
        SdSnn(spiking, **options)

"""Evaluation takes steps together where a run does: to the digit what single steps count."""

from collections.abc import Callable
from functools import cache

import pytest
import torch
from tests.snn.networks import converted
from torch import nn

import topospike as ts
from topospike.contracts import Evaluation
from topospike.measure import Conventions, evaluate_conventions, tally
from topospike.snn import SpikingNetwork
from topospike.snn.executors import EXECUTORS

STEPS = 7
METHODS = [{}, {"coding": "rate"}, {"coding": "sigma-delta"}, {"method": "qcfs"}]


@pytest.fixture
def by_single_steps(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], object]:
    """Call a function while nothing is divided or taken together."""

    def call(function: Callable[[], object]) -> object:
        with monkeypatch.context() as patch:
            patch.setattr(tally, "division", lambda snn, shown, *_: (len(shown.first[0]), 1))
            return function()

    return call


def steps_at_once(snn: SpikingNetwork, x: torch.Tensor, executor: str) -> int:
    """Return how many steps an evaluation takes together."""
    counts = tally.Tally(snn, STEPS, (Conventions(),), ())
    program = snn.program(EXECUTORS[executor], counts.watched, counts.sent)
    shown = snn.shown(x, STEPS)
    return tally.division(snn, shown, STEPS, EXECUTORS[executor], program)[1]


def evaluated(snn: SpikingNetwork, x: torch.Tensor, executor: str = "decoded") -> Evaluation:
    images = x.shape[snn.report.input != "image"]
    return ts.evaluate(snn, [(x, torch.arange(images) % 3)], STEPS, executor=executor)


@pytest.mark.slow
@pytest.mark.parametrize("images", [1, 5, 40])
@pytest.mark.parametrize("options", METHODS, ids=str)
@pytest.mark.parametrize("executor", list(EXECUTORS))
def test_every_executor_and_coding(executor, options, images, by_single_steps) -> None:
    snn, x = converted("residual", **options)
    snn = ts.quantise_weights(snn)[0] if executor == "integer" else snn
    x = x.repeat(4, 1, 1, 1)[:images]
    together = steps_at_once(snn, x, executor)
    assert (together > 1) == (executor == "integer" or (executor != "event" and images < 16))
    found = evaluated(snn, x, executor)
    assert found == by_single_steps(lambda: evaluated(snn, x, executor))
    assert found.images == images
    assert found.sops[-1] > 0


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["decoded", "integer"])
@pytest.mark.parametrize(
    ("name", "options"),
    [("average pool", {}), ("max pool", {}), ("max pool", {"coding": "rate"}), ("odd", {}),
     ("overlapping pool", {"method": "qcfs"}), ("on the way", {})],
    ids=str,
)  # fmt: skip
def test_every_kind_of_layer_and_convention(name, options, executor, by_single_steps) -> None:
    snn, x = converted(name, **options)
    if executor == "integer":
        if name == "on the way":
            return
        snn = ts.quantise_weights(snn)[0]
    x, y = x[:3], torch.arange(3)
    assert steps_at_once(snn, x, executor) > 1
    snn.executor = executor

    def every() -> tuple[Evaluation, ...]:
        return evaluate_conventions(snn, [(x, y), (x[:1], y[:1])], STEPS)

    assert every() == by_single_steps(every)


@cache
def transformer(method: str) -> SpikingNetwork:
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        image_size=8, patch_size=4, num_labels=3,
    )  # fmt: skip
    model = ViTForImageClassification(config).eval().double()
    return ts.convert(model, method, [torch.rand(8, 3, 8, 8).double()])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dcgs", "sigma-delta", "phase"])
@pytest.mark.parametrize("images", [1, 3])
def test_transformers(method, images, by_single_steps) -> None:
    snn, x = transformer(method), torch.rand(images, 3, 8, 8).double()
    assert steps_at_once(snn, x, "decoded") > 1
    assert evaluated(snn, x) == by_single_steps(lambda: evaluated(snn, x))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["parallel", "one-spike", "graded", "srp"])
def test_layers_that_wait_and_sites_that_look_ahead(method, by_single_steps) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(4, 4, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(16, 3),
    ).double()  # fmt: skip
    x = torch.rand(16, 2, 8, 8).double()
    model = ts.quantise_activations(model, x, kind="qcfs", calibration=x)
    snn = ts.convert(model, method, [x])
    assert steps_at_once(snn, x[:3], "decoded") > 1
    assert evaluated(snn, x[:3]) == by_single_steps(lambda: evaluated(snn, x[:3]))


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("kind", ["frames", "events"])
def test_frames(frames, kind, by_single_steps) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3)).double()
    x = torch.poisson(torch.ones(frames, 4, 2, 5, 5)).double()
    snn = ts.convert(model, calibration=[x], input=kind)
    assert (steps_at_once(snn, x, "decoded") > 1) == (frames == 1)
    assert evaluated(snn, x) == by_single_steps(lambda: evaluated(snn, x))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"levels": 8}, {"levels": 9}, {"method": "signed-if"}], ids=str
)
def test_codes_tell_who_fired(options) -> None:
    """Neurons enough for compiled loops; codes of eight levels and more do not fit 8 bits."""
    snn, x = converted("residual", **options)
    x, y = x.repeat(3, 1, 1, 1), torch.arange(36) % 5
    fired = [
        [int(s.spikes.count_nonzero()) for s in step.sites.values()] for step in snn.watch(x, 9)
    ]
    found = ts.evaluate(snn, [(x, y)], 9).sites
    counts = [[round(rate * 36 * s.neurons) for rate in s.firing_rate] for s in found]
    assert counts == [list(of_site) for of_site in zip(*fired, strict=True)]


def test_targets_that_cannot_be_divided_keep_a_batch_whole() -> None:
    snn, x = converted("residual")
    x, seen = x.repeat(4, 1, 1, 1), []

    def spread(outputs: torch.Tensor, targets: dict[str, int]) -> tuple[torch.Tensor, int]:
        seen.append(len(outputs))
        return outputs.var(), targets["one"]

    ts.evaluate(snn, [(x, {"one": 1})], 2, metric=spread)
    assert seen == [48, 48, 48]


def test_without_the_ann(by_single_steps) -> None:
    snn, x = converted("residual")
    batches, asked = [(x, torch.arange(12) % 5)], []
    snn.analog = lambda images: asked.append(len(images))  # pyright: ignore[reportAttributeAccessIssue]
    run = ts.evaluate(snn, batches, 4, ann=False)
    assert not asked
    assert (run.ann_accuracy != run.ann_accuracy, run.ann_metrics) == (True, {})
    del snn.analog
    whole = ts.evaluate(snn, batches, 4)
    assert (run.accuracy, run.layers, run.wider) == (whole.accuracy, whole.layers, whole.wider)
    assert ts.evaluate(snn, batches, 4, metric="agreement", ann=False).ann_metrics != {}
    with pytest.raises(ts.errors.ShapeError, match="11 labels came with 12 images"):
        ts.evaluate(snn, [(x, torch.arange(11))], 4, ann=False)

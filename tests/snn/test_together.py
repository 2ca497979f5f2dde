"""Several steps of few images as one batch: the same logits, and only where that is allowed."""

import pytest
import torch
from torch import nn

import topospike as ts
from topospike.snn import SpikingNetwork
from topospike.snn.batches import division, images_at_once
from topospike.snn.executors import EXECUTORS


def convolutional() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 20), nn.ReLU(),
        nn.Linear(20, 5),
    ).eval()  # fmt: skip


class ImagesSecond(nn.Module):
    """Its hidden layer sees rows first, images second."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.head = nn.Linear(8, 16), nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x[:, 0].permute(1, 0, 2)
        return self.head(torch.relu(self.rows(rows)).mean(0))


def one_by_one(snn: SpikingNetwork, x: torch.Tensor, steps: int, executor: str) -> torch.Tensor:
    return torch.stack([logits.clone() for _, logits in snn.steps(x, steps, executor=executor)])


def at_once(snn: SpikingNetwork, x: torch.Tensor, executor: str) -> int:
    return division(snn, snn.shown(x, 99), 99, EXECUTORS[executor])[1]


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["decoded", "bf16"])
@pytest.mark.parametrize(
    "options", [{}, {"coding": "rate"}, {"coding": "sigma-delta"}, {"method": "qcfs"}], ids=str
)
@pytest.mark.parametrize("steps", [3, 12])
def test_the_logits_are_those_of_single_steps(options: dict, steps: int, executor: str) -> None:
    images = torch.rand(16, 2, 8, 8)
    snn = ts.convert(convolutional().double(), calibration=[images.double()], **options)
    x = torch.rand(3, 2, 8, 8).double()
    assert at_once(snn, x, executor) == 5  # so 12 steps are 5, 5 and 2
    together = snn(x, steps, executor=executor)
    torch.testing.assert_close(together, one_by_one(snn, x, steps, executor), rtol=0, atol=1e-12)
    assert torch.equal(snn(x, steps, executor=executor), together)


def test_a_transformer_and_a_single_image() -> None:
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        image_size=8, patch_size=4, num_labels=3,
    )  # fmt: skip
    model = ViTForImageClassification(config).eval().double()
    snn = ts.convert(model, calibration=[torch.rand(8, 3, 8, 8).double()])
    x = torch.rand(1, 3, 8, 8).double()
    assert at_once(snn, x, "decoded") == images_at_once(snn.ann) >= 16
    torch.testing.assert_close(snn(x, 6), one_by_one(snn, x, 6, "decoded"), rtol=0, atol=1e-12)


def test_a_linear_layer_on_its_links_alone() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(),
                          nn.Linear(256, 4)).eval().double()  # fmt: skip
    with torch.no_grad():
        model[2].weight.mul_(torch.rand(256, 256) < 0.02)
    snn = ts.convert(model, calibration=[torch.rand(32, 256).double()])
    x = torch.rand(2, 256).double()
    assert at_once(snn, x, "decoded") > 1
    torch.testing.assert_close(snn(x, 9), one_by_one(snn, x, 9, "decoded"), rtol=0, atol=1e-12)


def test_a_graph_that_counts_images_elsewhere_takes_single_steps() -> None:
    torch.manual_seed(0)
    images = torch.rand(16, 1, 4, 8)
    snn = ts.convert(ImagesSecond().eval(), calibration=[images], granularity="layer")
    x = torch.rand(4, 1, 4, 8)  # as many images as rows: a wrong axis would not be noticed
    assert at_once(snn, x, "decoded") == 1
    assert torch.equal(snn(x, 5), one_by_one(snn, x, 5, "decoded"))


class RowsFirst(nn.Module):
    """Its middle layer sees rows first, its sites images first: they lie transposed in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.rows, self.head = nn.Linear(32, 64), nn.Linear(64, 64), nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = self.rows(torch.relu(self.first(x)).transpose(0, 1))
        return self.head(torch.relu(rows.transpose(0, 1)).mean(1))


@pytest.mark.slow
@pytest.mark.parametrize("images", [1, 2, 3, 40])
@pytest.mark.parametrize("executor", ["decoded", "integer"])
def test_layers_that_count_rows_first(executor: str, images: int) -> None:
    torch.manual_seed(0)
    calibration = [torch.rand(16, 40, 32).double()]
    snn = ts.convert(RowsFirst().eval().double(), "qcfs", calibration=calibration)
    if executor == "integer":
        snn, _ = ts.quantise_weights(snn, 8)
    x = torch.rand(images, 40, 32).double()
    single = one_by_one(snn, x, 8, executor)
    torch.testing.assert_close(snn(x, 8, executor=executor), single, rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", ["srp", "offset-spike"])
def test_sites_with_phases_and_calibrated_membranes_take_their_steps_in_turn(method: str) -> None:
    images = torch.rand(16, 2, 8, 8).double()
    model = convolutional().double()
    model[3] = nn.AvgPool2d(2)
    trained = ts.quantise_activations(model, images, kind="qcfs", calibration=images)
    snn, x = ts.convert(trained, method, [images]), images[:3]
    assert at_once(snn, x, "decoded") == 5
    torch.testing.assert_close(snn(x, 7), one_by_one(snn, x, 7, "decoded"), rtol=0, atol=1e-12)


class Halves(nn.Module):
    """Adds to two layers what depends on the image alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.second(torch.relu(self.first(x)))
        return self.head(torch.relu(hidden + x.repeat(1, 2)) + self.first(x).exp())


def test_what_depends_on_the_images_alone_is_repeated_for_the_steps() -> None:
    torch.manual_seed(0)
    images = torch.rand(32, 8).double()
    snn = ts.convert(Halves().eval().double(), calibration=[images])
    for executor in ("decoded", "bf16"):
        x = images[:3]
        assert at_once(snn, x, executor) > 1
        expected = one_by_one(snn, x, 7, executor)
        found = snn(x, 7, executor=executor)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("images", [0, 1, 5, 40])
def test_the_integer_executor_divides_a_batch_to_take_its_steps_together(images: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
        nn.AvgPool2d(3, 2), nn.Flatten(), nn.Linear(72, 20), nn.ReLU(), nn.Linear(20, 4),
    ).eval()  # fmt: skip
    x = torch.randn(40, 2, 8, 8)
    snn, _ = ts.quantise_weights(ts.convert(model, calibration=[x]))
    x = x[:images]
    chosen = EXECUTORS["integer"]
    assert division(snn, snn.shown(x, 6), 6, chosen) == (
        min(max(images, 1), 5),
        1 if not images else 6,
    )
    found, expected = snn(x, 6, executor="integer"), snn(x, 6)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert division(snn, snn.shown(x, 50), 50, chosen)[0] == 1


def test_many_images_no_images_and_events_take_single_steps() -> None:
    images = torch.rand(16, 2, 8, 8)
    snn = ts.convert(convolutional(), calibration=[images])
    assert images_at_once(snn.ann) == 16
    assert at_once(snn, images, "decoded") == 1
    assert at_once(snn, images[:0], "decoded") == 1
    assert at_once(snn, images[:1], "event") == 1

"""The whole pipeline on an accelerator; runs where torch finds one (``pytest -m gpu``)."""

import pytest
import torch

import topospike as ts
from topospike.data import load_data
from topospike.models import build_model
from topospike.recipe import DataSettings, ModelSettings, TrainSettings
from topospike.snn import SpikingNetwork
from topospike.train import fit

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no accelerator here"),
]


def test_training_conversion_and_measurement_stay_on_the_device(tmp_path) -> None:
    data = load_data(DataSettings("digits"), seed=0, device="cuda")
    model = build_model(
        ModelSettings("small_cnn"),
        classes=data.classes, channels=data.channels, image_size=data.image_size, seed=0,
    )  # fmt: skip
    settings = TrainSettings(epochs=4, learning_rate=0.05, bf16=True, channels_last=True)
    sparsifier = ts.sparsify(model, "chts", sparsity={"linear": 0.99}, epochs=settings.epochs)
    fit(model, data, settings, folder=tmp_path, seed=0, sparsifier=sparsifier, device="cuda")
    topology = sparsifier.freeze()
    topology.verify(model)
    assert all(parameter.is_cuda for parameter in model.parameters())

    snn = ts.convert(model, calibration=data.calibration, timesteps=8)
    result = ts.evaluate(snn, data.test, timesteps=8)
    assert all(site.threshold.is_cuda for site in snn.sites.values())
    assert abs(result.accuracy[7] - result.ann_accuracy) <= 0.03


def test_simulation_and_counts_agree_with_the_cpu() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.AvgPool2d(2),
        torch.nn.Flatten(), torch.nn.Linear(128, 10),
    ).double().eval()  # fmt: skip
    x = torch.randn(32, 3, 8, 8, dtype=torch.float64)
    labels = torch.arange(32) % 10
    snn = ts.convert(model, calibration=[x])
    here = ts.evaluate(snn, [(x, labels)], timesteps=8)
    logits = snn(x, 8)
    snn.to("cuda")
    there = ts.evaluate(snn, [(x.cuda(), labels.cuda())], timesteps=8)
    torch.testing.assert_close(snn(x.cuda(), 8).cpu(), logits, rtol=1e-8, atol=1e-8)
    assert there.sops == pytest.approx(here.sops, rel=1e-3)


def test_scores_agree_with_the_cpu() -> None:
    mask = torch.rand(200, 300, generator=torch.Generator().manual_seed(0)) < 0.05
    for rule in ("CH2-L3n", "CH3-L3n"):
        torch.testing.assert_close(
            ts.ch_scores(mask.cuda(), rule).cpu(), ts.ch_scores(mask, rule), rtol=1e-5, atol=1e-5
        )


def converted(dtype: torch.dtype, **options: str) -> tuple[SpikingNetwork, torch.Tensor]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(8, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.AvgPool2d(2),
        torch.nn.Flatten(), torch.nn.Linear(256, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10),
    ).to(dtype).eval()  # fmt: skip
    x = torch.randn(32, 3, 16, 16, dtype=dtype)
    return ts.convert(model, calibration=[x], **options), x  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("options", [{}, {"method": "qcfs"}, {"coding": "rate"}], ids=str)
def test_decoded_results_are_those_of_the_cpu(options) -> None:
    snn, x = converted(torch.float64, **options)
    expected = snn(x, 8)
    snn.to("cuda")
    torch.testing.assert_close(snn(x.cuda(), 8).cpu(), expected, rtol=1e-8, atol=1e-8)


def test_bf16_products_stay_close_on_the_device() -> None:
    snn, x = converted(torch.float32)
    snn.to("cuda")
    exact, rounded = (snn(x.cuda(), 8, executor=name) for name in ("decoded", "bf16"))
    assert rounded.dtype == torch.float32
    assert (rounded[-1] - exact[-1]).abs().mean() < 0.1 * exact[-1].std()


def test_memory_does_not_grow_with_time() -> None:
    snn, x = converted(torch.float32)
    snn.to("cuda")
    images, peaks = x.cuda(), []
    for timesteps in (4, 4, 32):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        for _ in snn.steps(images, timesteps):
            pass
        peaks.append(torch.cuda.max_memory_allocated())
    assert peaks[2] <= 1.05 * peaks[1]

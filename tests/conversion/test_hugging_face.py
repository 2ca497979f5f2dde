"""Hugging Face vision transformers, random weights, their code untouched."""

import pytest
import torch
from torch import nn

from topospike.conversion import convert
from topospike.measure import evaluate
from topospike.snn.neurons import Identity

transformers = pytest.importorskip("transformers", reason="needs the extra 'hf'")


def vision_transformer(kind: str, attention: str) -> nn.Module:
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=48,
        image_size=16, patch_size=8, num_labels=5, attn_implementation=attention,
    )  # fmt: skip
    model = getattr(transformers, f"{kind}ForImageClassification")(config).eval()
    for parameter in model.parameters():  # the library's initial weights are almost linear
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return model


@pytest.mark.parametrize(
    ("kind", "attention"),
    [("ViT", "eager"), pytest.param("ViT", "sdpa", marks=pytest.mark.slow), ("DeiT", "sdpa")],
)
def test_vision_transformers_convert_untouched(kind: str, attention: str) -> None:
    model = vision_transformer(kind, attention)
    x = torch.randn(16, 3, 16, 16)
    with torch.no_grad():
        expected = model(x).logits

    identical = convert(model, calibration=[x], neuron=Identity())
    for _, logits in identical.steps(x, 3):
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)

    snn = convert(model, calibration=[x], timesteps=8)
    names = dict(model.named_parameters())
    kept = dict(snn.ann.named_parameters())
    assert kept.keys() <= names.keys()
    assert {name for name in names if name.endswith("weight")} - kept.keys() <= {
        name for name in names if "mask_token" in name
    }
    assert all(torch.equal(kept[name], names[name]) for name in kept)
    assert {layer.input for layer in snn.report.layers} == {"spikes", "product"}
    error = {t: float((logits - expected).abs().mean()) for t, logits in snn.steps(x, 32)}
    assert error[8] < 0.35 * error[1]
    assert error[32] < 0.5 * error[8]


def test_energy_of_a_transformer_is_counted_on_every_product() -> None:
    model = vision_transformer("ViT", "sdpa")
    x = torch.randn(4, 3, 16, 16)
    snn = convert(model, calibration=[x])
    result = evaluate(snn, [(x, torch.arange(4))], 4)
    kinds = [layer.kind for layer in result.layers]
    assert kinds.count("matmul") == 4
    assert kinds.count("conv") == 1
    assert result.macs == 0  # the image is spike-coded as well
    assert all(layer.sops[0] > 0 for layer in result.layers)
    # three terms: at most three accumulates a multiplication and step
    assert all(layer.sops[-1] <= 3 * 4 * layer.macs for layer in result.layers)

"""Networks of any inputs and outputs: captured, converted, counted and evaluated as they are.

Each must answer as its model with identity neurons at every step, approach it with real ones, give
a row the same answer whatever rows are beside it, and evaluate with the metric of its kind.
"""

import copy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import topospike as ts
from topospike.errors import ConfigError, ConversionError
from topospike.snn.neurons import Identity


@dataclass
class Case:
    """A model, one batch as it takes it, its answer's name, a target and a metric."""

    model: nn.Module
    x: Any
    target: Any
    metric: str
    output: str | int | None = None

    def answer(self) -> Tensor:
        x = self.x
        with torch.no_grad():
            found = (
                self.model(x) if isinstance(x, Tensor)
                else self.model(**x) if isinstance(x, dict) else self.model(*x)
            )  # fmt: skip
        if isinstance(found, Tensor):
            return found
        return found[self.output if self.output is not None else "logits"]


def lively(model: nn.Module) -> nn.Module:
    """Give weights unit gain: the initial ones of libraries are almost linear."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return model.eval()


def tokens(rows: int = 6, length: int = 5) -> Tensor:
    return torch.randint(0, 40, (rows, length))


def hugging_face(kind: str, config: str, **settings: Any) -> nn.Module:
    transformers = pytest.importorskip("transformers", reason="needs the extra 'hf'")
    return lively(getattr(transformers, kind)(getattr(transformers, config)(**settings)))


TEXT = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 24, "max_position_embeddings": 8}  # fmt: skip


def swin() -> Case:
    model = hugging_face(
        "SwinForImageClassification", "SwinConfig", image_size=16, patch_size=2, embed_dim=8,
        depths=[2], num_heads=[2], window_size=4, num_labels=5,
    )  # fmt: skip
    return Case(model, torch.randn(4, 3, 16, 16), torch.arange(4), "accuracy")


def vit() -> Case:
    model = hugging_face(
        "ViTForImageClassification", "ViTConfig", image_size=8, patch_size=4, num_labels=5,
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
    )  # fmt: skip
    return Case(model, {"pixel_values": torch.randn(4, 3, 8, 8)}, torch.arange(4), "agreement")


def token_classifier() -> Case:
    model = hugging_face("BertForTokenClassification", "BertConfig", num_labels=3, **TEXT)
    mask, labels = torch.ones(6, 5, dtype=torch.int64), torch.randint(0, 3, (6, 5))
    mask[::2, 3:], labels[::2, 3:] = 0, -100
    return Case(model, {"input_ids": tokens(), "attention_mask": mask}, labels, "accuracy")


def pooled_text() -> Case:
    model = hugging_face("BertModel", "BertConfig", **TEXT)
    return Case(model, tokens(), None, "agreement", "pooler_output")


def llama() -> Case:
    model = hugging_face("LlamaForCausalLM", "LlamaConfig", attn_implementation="eager", **TEXT)
    return Case(model, {"input_ids": tokens()}, tokens(), "perplexity")


def gpt2() -> Case:
    model = hugging_face(
        "GPT2LMHeadModel", "GPT2Config", vocab_size=40, n_embd=16, n_layer=1, n_head=2,
        n_positions=8, bos_token_id=0, eos_token_id=0, attn_implementation="eager",
    )  # fmt: skip
    return Case(model, tokens(), tokens(), "perplexity")


class UNet(nn.Module):
    """Down by a max-pool, up by a transposed convolution, a concatenation across."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.low, self.up = nn.Conv2d(6, 8, 3, padding=1), nn.ConvTranspose2d(8, 6, 2, 2)
        self.merge, self.head = nn.Conv2d(12, 6, 3, padding=1), nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        across = F.relu(self.norm(self.down(x)))
        low = F.relu(self.low(F.max_pool2d(across, 2)))
        return self.head(F.relu(self.merge(torch.cat([across, self.up(low)], 1))))


def u_net() -> Case:
    return Case(UNet().eval(), torch.randn(6, 3, 8, 8), torch.randint(0, 4, (6, 8, 8)), "mean_iou")


class TwoInputs(nn.Module):
    """Joins an image and a vector; returns a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc, self.head = nn.Conv2d(1, 4, 3), nn.Linear(5, 8), nn.Linear(24, 3)

    def forward(self, image: Tensor, vector: Tensor) -> dict[str, Tensor]:
        parts = [self.conv(image).flatten(1), self.fc(vector)]
        return {"logits": self.head(torch.relu(torch.cat(parts, 1))), "vector": parts[1]}


def two_inputs() -> Case:
    x = (torch.rand(6, 1, 4, 4), torch.randn(6, 5))
    return Case(TwoInputs().eval(), x, torch.arange(6) % 3, "accuracy", "logits")


def autoencoder() -> Case:
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 6, 1), nn.ReLU(),
        nn.ConvTranspose2d(6, 1, 2, 2),
    ).eval()  # fmt: skip
    x = torch.rand(6, 1, 8, 8)
    return Case(model, x, x, "mse")


def encoder() -> Case:
    """The packed projection of attention sees (tokens, images, width)."""
    layer = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True)
    model = nn.Sequential(nn.TransformerEncoder(layer, 2), nn.Linear(16, 3)).eval()
    return Case(model, torch.randn(6, 5, 16), torch.randint(0, 3, (6, 5)), "accuracy")


class TokensOrImages(nn.Module):
    """Bytes go in; the network divides by 255 itself."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.float() / 255)


def integer_images() -> Case:
    x = torch.randint(0, 256, (32, 8), dtype=torch.uint8)
    return Case(TokensOrImages().eval(), x, torch.arange(32) % 3, "accuracy")


def frozen_averaged() -> Case:
    """A wrapper with forward(*args), none of whose parameters is trained."""
    body = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)).requires_grad_(False)
    model = torch.optim.swa_utils.AveragedModel(body).eval()
    return Case(model, torch.randn(16, 6), torch.arange(16) % 3, "accuracy")


CASES = [
    swin, vit, token_classifier, pooled_text, llama, gpt2, u_net, two_inputs, autoencoder, encoder,
    integer_images, frozen_averaged,
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("build", CASES, ids=lambda build: build.__name__)
def test_a_network_of_any_inputs_and_outputs(build) -> None:
    torch.manual_seed(0)
    case = build()
    expected = case.answer()
    given = (case.x, None) if isinstance(case.x, tuple) else case.x
    snn = ts.convert(case.model, calibration=[given], output=case.output)

    identical = copy.deepcopy(snn)
    for site in identical.sites.values():
        site.neuron = Identity(gated=site.gated)
    for logits in identical(case.x, 2):
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)

    thresholds = {site.threshold.dtype for site in snn.sites.values()}
    assert thresholds == {torch.float32}
    logits = snn(case.x, 32)
    assert logits.shape == (32, *expected.shape)
    error = (logits - expected).flatten(1).norm(dim=1) / expected.norm()
    assert error[31] < 0.25 * error[1]
    alone = snn(rows(case.x, 1), 4)
    torch.testing.assert_close(alone[:, 0], logits[:4, 0], rtol=1e-3, atol=1e-3)

    result = ts.evaluate(snn, [(case.x, case.target)], 4, metric=case.metric)
    assert len(result.metrics[case.metric]) == 4
    assert result.ann_metrics[case.metric] == pytest.approx(by_hand(case, expected), rel=1e-4)
    assert all(later >= sooner for sooner, later in zip(result.sops, result.sops[1:], strict=False))


def rows(x: Any, count: int) -> Any:
    if isinstance(x, dict):
        return {name: tensor[:count] for name, tensor in x.items()}
    return x[:count] if isinstance(x, Tensor) else tuple(tensor[:count] for tensor in x)


def by_hand(case: Case, outputs: Tensor) -> float:
    """Return the metric of the ANN, written out."""
    y = case.target
    if case.metric == "agreement":
        return 1.0
    if case.metric == "mse":
        return float(F.mse_loss(outputs, y))
    axis = 1 if outputs.ndim in (2, 4) else 2
    found = outputs.argmax(axis)
    if case.metric == "accuracy":
        return float((found == y)[y != -100].double().mean())
    if case.metric == "perplexity":
        return float(F.cross_entropy(outputs.flatten(0, 1), y.flatten()).exp())
    shares = [
        float(((found == k) & (y == k)).sum() / ((found == k) | (y == k)).sum())
        for k in range(outputs.shape[axis])
        if ((found == k) | (y == k)).any()
    ]
    return sum(shares) / len(shares)


@pytest.mark.slow
@pytest.mark.parametrize(
    "batch",
    [
        lambda x, v, y: ((x, v), y),
        lambda x, v, y: (x, v, y),
        lambda x, v, y: {"image": x, "vector": v, "labels": y},
        lambda x, v, y: {"vector": v, "image": x, "labels": y},
        lambda x, v, y: [(x, v), y],
    ],
)
def test_two_inputs_and_a_label_are_told_apart_in_every_form(batch) -> None:
    torch.manual_seed(0)
    case = two_inputs()
    given = batch(*case.x, case.target)
    snn = ts.convert(case.model, calibration=[given], output="logits")
    assert snn.report.calibration_images == 6
    reference = ts.convert(case.model, calibration=[case.x], output="logits")
    assert torch.equal(snn(case.x, 4), reference(case.x, 4))
    again = ts.evaluate(snn, [given], 2)
    assert again.accuracy == ts.evaluate(reference, [(case.x, case.target)], 2).accuracy


def test_a_network_of_two_inputs_is_saved_and_loaded(tmp_path) -> None:
    case = two_inputs()
    snn = ts.convert(case.model, calibration=[case.x], output="logits")
    ts.save(snn, tmp_path)
    loaded = ts.load(tmp_path)
    image, vector = case.x
    assert torch.equal(loaded({"vector": vector, "image": image}, 4), snn(case.x, 4))


class MaybeMasked(nn.Module):
    """Its second input is optional, and would be taken for a label."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, x: Tensor, mask: Tensor | None = None, scale: float = 1.0) -> Tensor:
        return self.body(x if mask is None else x * mask) * scale


def test_an_optional_second_input_is_never_taken_for_a_label() -> None:
    model, x, mask = MaybeMasked().eval(), torch.rand(8, 4), torch.rand(8, 4)
    with pytest.raises(ConfigError, match=r"forward takes more than one \(also mask\)"):
        ts.convert(model, calibration=[(x, mask)])
    one = ts.convert(model, calibration=[((x,), torch.arange(8))])
    torch.testing.assert_close(one.analog(x), model(x))
    both = ts.convert(model, calibration=[{"x": x, "mask": mask}])
    torch.testing.assert_close(both.analog((x, mask)), model(x, mask))


class Heads(nn.Module):
    """Returns what it is told to."""

    def __init__(self, result) -> None:
        super().__init__()
        self.body, self.result = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), result

    def forward(self, x: Tensor):
        return self.result(self.body(x))


@pytest.mark.parametrize(
    ("result", "output", "pick"),
    [
        (lambda y: (y, 2 * y), 1, lambda found: found[1]),
        (lambda y: {"a": [y, y + 1], "b": y.argmax(1)}, "a.1", lambda found: found["a"][1]),
        (lambda y: [y.mean(), y], None, lambda found: found[1]),
        (lambda y: {"class": y.argmax(1), "scores": y}, None, lambda found: found["scores"]),
        (lambda y: y[:, 0], None, lambda found: found),
    ],
)
def test_one_tensor_of_the_result_is_simulated(result, output, pick) -> None:
    model, x = Heads(result).eval(), torch.rand(8, 4)
    snn = ts.convert(model, calibration=[x], output=output)
    torch.testing.assert_close(snn.analog(x), pick(model(x)))
    assert snn(x, 3).shape[2:] == pick(model(x)).shape[1:]


@pytest.mark.parametrize(
    ("result", "output", "error", "message"),
    [
        (lambda y: (y, y), None, ConfigError, r"more than one.*one of '0', '1'"),
        (lambda y: {"a": y, "b": y}, "c", ConfigError, r"output is 'c'.*one of 'a', 'b'"),
        (
            lambda y: y.argmax(1),
            None,
            ConversionError,
            r"int64 \(batch\).*of their arg-max",
        ),
        (lambda y: y.mean(), None, ConversionError, r"float32 \(\).*instead of a mean"),
        (lambda y: y.t(), None, ConversionError, "put the batch first"),
    ],
)
def test_a_result_without_one_answer_is_refused(result, output, error, message: str) -> None:
    with pytest.raises(error, match=message):
        ts.convert(Heads(result).eval(), calibration=[torch.rand(8, 4)], output=output)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_precision_converts_and_evaluates(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(128, 3),
    ).eval().to(dtype)  # fmt: skip
    x = torch.rand(16, 3, 8, 8, dtype=dtype)
    snn = ts.convert(model, calibration=[x])
    assert {site.threshold.dtype for site in snn.sites.values()} == {dtype}
    result = ts.evaluate(snn, [(x, torch.arange(16) % 3)], 8)
    error = (snn(x, 32)[-1] - model(x)).double().norm() / model(x).double().norm()
    assert error < 0.02
    assert result.sops[-1] > 0


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(2, 8), "the network was converted for torch.uint8"),
        ((torch.zeros(2, 8, dtype=torch.uint8),) * 2, r"2 input tensors were given.*takes 1 \(x\)"),
        ({"image": torch.zeros(2, 8, dtype=torch.uint8)}, r"named \['image'\]; \['x'\] are"),
    ],
)
def test_inputs_of_another_kind_are_refused_by_the_spiking_network(x, message: str) -> None:
    torch.manual_seed(0)
    case = integer_images()
    snn = ts.convert(case.model, calibration=[case.x])
    assert snn(case.x, 2, executor="event").shape == (2, 32, 3)
    with pytest.raises((ConfigError, ts.errors.ShapeError), match=message):
        snn(x, 2)

"""Networks of other kinds than the oracles': shared weights, norms over channels, other endings."""

import copy

import pytest
import torch
from torch import nn

import topospike as ts
from topospike.errors import ConfigError, NonFiniteError
from topospike.pruning import PRUNING_METHODS, shrink
from topospike.pruning.methods import keep_largest
from topospike.pruning.moments import Geometry, InputMoments
from topospike.pruning.reconstruction import reconstruct
from topospike.topology import register_mask

GENERATOR = torch.Generator().manual_seed(0)


class Tied(nn.Module):
    """Two layers with one weight, as a language model whose embedding is its classifier."""

    def __init__(self):
        super().__init__()
        self.words, self.hidden = nn.Embedding(12, 8), nn.Linear(8, 8)
        self.lm_head = nn.Linear(8, 12, bias=False)
        self.lm_head.weight = self.words.weight

    def forward(self, x):
        return self.lm_head(torch.relu(self.hidden(x)))


class Siamese(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.c(torch.relu(self.b(torch.relu(self.a(x)))))


@pytest.mark.parametrize(
    ("method", "calibration"),
    [("magnitude", None), ("wanda", torch.rand(32, 8)), ("depgraph", torch.rand(32, 8))],
)
def test_shared_weights_are_refused_as_sparsify_refuses_them(method, calibration):
    for model, sparsity in ((Tied(), {"lm_head": 0.5}), (Siamese(), {"linear": 0.5})):
        messages = []
        if method != "depgraph" or "linear" in sparsity:
            before = set(model.state_dict())
            with pytest.raises(ConfigError, match="is the same weight as") as refusal:
                ts.prune(model, method, sparsity, calibration)
            assert set(model.state_dict()) == before
            messages.append(str(refusal.value))
        with pytest.raises(ConfigError) as refusal:
            ts.sparsify(model, "set", sparsity=sparsity, epochs=2)
        assert {*messages, str(refusal.value)} == {str(refusal.value)}


def test_a_shared_classifier_that_nobody_names_stays_dense():
    model = Tied()
    report = ts.prune(model, "wanda", 0.5, torch.rand(32, 8))
    assert [layer.name for layer in report.layers] == ["hidden"]
    # the shared weight counts once
    assert report.overall_sparsity == pytest.approx(32 / (64 + 96))


@pytest.mark.parametrize("name", ["linear", "conv", "fc"])
def test_the_name_of_the_classifier_says_nothing(name):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.hidden = nn.Conv2d(3, 8, 3), nn.Linear(8, 32)
            self.add_module(name, nn.Linear(32, 10))

        def forward(self, x):
            return getattr(self, name)(self.hidden(self.first(x).relu().mean((2, 3))).relu())

    model = Named()
    report = ts.prune(model, "magnitude", 0.7)
    assert [layer.name for layer in report.layers] == ["hidden"]
    model = Named()
    report = ts.prune(model, "magnitude", {f"{name}.weight": 0.5})
    assert [layer.name for layer in report.layers] == [name]


def test_the_last_convolution_before_a_decoder_is_no_classifier():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(),
        nn.ConvTranspose2d(6, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 1, 3),
    )  # fmt: skip
    x = torch.rand(4, 1, 9, 9, generator=GENERATOR)
    for calibration in (None, x):
        twin = copy.deepcopy(model)
        report = ts.prune(twin, "magnitude", {"conv": 0.5}, calibration)
        assert [(layer.name, layer.is_classifier) for layer in report.layers] == [
            ("0", False), ("2", False),
        ]  # fmt: skip


def test_a_compiled_model_is_pruned_as_the_original():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    compiled = torch.compile(copy.deepcopy(plain), backend="eager")
    rows = torch.rand(32, 8, generator=GENERATOR)
    reports = [ts.prune(model, "wanda", 0.5, rows) for model in (plain, compiled)]
    assert [layer.name for layer in reports[1].layers] == ["0"]
    assert torch.equal(compiled._orig_mod[0].weight_mask, plain[0].weight_mask)


def test_weights_that_are_not_finite_are_refused():
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    with torch.no_grad():
        model[0].weight[1, 1] = float("nan")
    with pytest.raises(NonFiniteError, match=r"^0: its weights hold NaN"):
        ts.prune(model, "magnitude", 0.5)
    assert "0.weight_mask" not in model.state_dict()


class OwnEncoderLayer(nn.Module):
    """What ``nn.TransformerEncoderLayer`` computes, written out, from the same modules."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def inputs(self, x):
        """Return the inputs of out_proj, linear1 and linear2, and the result."""
        attention, heads = self.layer.self_attn, self.layer.self_attn.num_heads
        batch, tokens, width = x.shape
        packed = nn.functional.linear(x, attention.in_proj_weight, attention.in_proj_bias)
        query, key, value = (
            part.view(batch, tokens, heads, -1).transpose(1, 2) for part in packed.chunk(3, -1)
        )
        weights = (query @ key.transpose(2, 3) / (width / heads) ** 0.5).softmax(-1)
        mixed = (weights @ value).transpose(1, 2).reshape(batch, tokens, width)
        inner = self.layer.norm1(x + attention.out_proj(mixed))
        hidden = self.layer.linear1(inner).relu()
        return (mixed, inner, hidden), self.layer.norm2(inner + self.layer.linear2(hidden))


def pruned_alone(weight, seen, method):
    """Prune one linear layer on its own inputs."""
    moments = InputMoments("alone", Geometry(), products=True)
    moments.add(seen)
    matrices, chosen = weight.unsqueeze(0), PRUNING_METHODS[method]
    if chosen.score is None:
        return reconstruct(matrices, moments.values, sparsity=0.5).weight[0]
    scores = chosen.score(matrices, moments.norms, 0.5)
    keep = keep_largest(scores, 0.5, comparison=chosen.comparison)
    return matrices.masked_fill(~keep, 0.0)[0]


@pytest.mark.parametrize(
    ("method", "frozen"),
    [
        ("wanda", True),
        pytest.param("ria", False, marks=pytest.mark.slow),
        pytest.param("sparsegpt", True, marks=pytest.mark.slow),
    ],
)
def test_a_transformer_encoder_is_pruned_by_the_inputs_of_its_layers(method, frozen):
    # in evaluation mode without gradients torch computes such a layer in one operation
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    for parameter in encoder.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    model = nn.Sequential(encoder, nn.Flatten(), nn.Linear(16 * 5, 3)).eval()
    model.requires_grad_(not frozen)
    x = images = torch.randn(24, 5, 16, generator=GENERATOR)

    expected = copy.deepcopy(encoder).requires_grad_(False)
    names = ("self_attn.out_proj", "linear1", "linear2")
    for block in expected.layers:
        inputs, _ = OwnEncoderLayer(block).inputs(x)
        for name, seen in zip(names, inputs, strict=True):
            weight = block.get_submodule(name).weight
            weight.copy_(pruned_alone(weight, seen, method))
        x = OwnEncoderLayer(block).inputs(x)[1]

    ts.prune(model, method, 0.5, images)
    for block in range(2):
        for name in names:
            ours = encoder.layers[block].get_submodule(name).weight
            theirs = expected.layers[block].get_submodule(name).weight
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def behind(norm):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), norm, nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(8 * 4 * 4, 5),
    )  # fmt: skip
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    return model.eval()


class Functional(nn.Module):
    """Something without a name in torch-pruning that ties channels together."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


IMAGES = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
EXACT = [nn.BatchNorm2d(8), nn.InstanceNorm2d(8, affine=True), nn.Identity()]
MIXING = [
    nn.GroupNorm(1, 8), nn.GroupNorm(4, 8), nn.LayerNorm([8, 6, 6]),
    Functional(lambda x: x.softmax(1)), Functional(lambda x: x - x.mean(1, keepdim=True)),
]  # fmt: skip
named = [*(str(type(norm).__name__) + str(i) for i, norm in enumerate(MIXING))]


@pytest.mark.parametrize("norm", EXACT, ids=lambda norm: type(norm).__name__)
def test_channels_go_where_the_smaller_network_computes_the_same(norm):
    model = behind(copy.deepcopy(norm))
    ts.prune(model, "depgraph", {"conv": 0.6}, IMAGES, tolerance=0.2)
    small = shrink(model, IMAGES)
    assert small[0].out_channels == 5
    with torch.no_grad():
        torch.testing.assert_close(small(IMAGES), model(IMAGES), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", MIXING, ids=named)
def test_channels_that_others_depend_on_stay(norm):
    model = behind(copy.deepcopy(norm))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ConfigError, match="Prune single links instead"):
        ts.prune(model, "depgraph", {"conv": 0.6}, IMAGES, tolerance=0.2)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("norm", MIXING, ids=named)
def test_shrinking_never_changes_what_is_computed(norm):
    model = behind(copy.deepcopy(norm))
    for index, shape in ((3, (8, 8, 3, 3)), (6, (5, 128))):
        mask = torch.ones(shape, dtype=torch.bool)
        mask[:, : shape[1] // 2] = False  # the first half of the channels is not read
        register_mask(model[index], mask)
    if isinstance(norm, Functional):
        with pytest.raises(ConfigError, match="some operation mixes channels"):
            shrink(model, IMAGES)
        return
    small = shrink(model, IMAGES)
    assert (small[0].out_channels, small[3].out_channels) == (8, 4)
    with torch.no_grad():
        torch.testing.assert_close(small(IMAGES), model(IMAGES), rtol=1e-4, atol=1e-5)


def test_the_outputs_of_every_head_stay():
    class TwoHeads(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden = nn.Linear(8, 32)
            self.first, self.second = nn.Linear(32, 3), nn.Linear(32, 4)

        def forward(self, x):
            x = self.hidden(x).relu()
            return self.first(x), self.second(x)

    torch.manual_seed(0)
    model, x = TwoHeads().eval(), torch.rand(4, 8, generator=GENERATOR)
    report = ts.prune(model, "depgraph", {"linear": 0.5}, x, tolerance=0.2)
    assert set(report.widths) == {"hidden"}
    small = shrink(model, x)
    for ours, theirs in zip(small(x), model(x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)

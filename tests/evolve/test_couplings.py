import pytest
import torch
from torch import nn
from torch.nn import functional

from topospike.evolve import Coupling, Feeding, find_relations


def linear_names(model):
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_hugging_face_vit_is_read_from_its_graph(attention):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=6,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=5,
        image_size=4,
        patch_size=2,
        num_labels=3,
        attn_implementation=attention,
    )
    model = transformers.ViTForImageClassification(config)
    names = [name for name in linear_names(model) if name != "classifier"]
    # In each block, in order: query, key, value, attention output, and the two of the MLP.
    blocks = [names[:6], names[6:]]
    assert len(blocks[1]) == 6
    every = tuple(range(6))
    assert find_relations(model, torch.zeros(2, 3, 4, 4), names) == [
        *((up, down) for *_, up, down in blocks),
        *(Coupling(query, key, every, every) for query, key, *_ in blocks),
        *(Feeding(value, output, every) for _, _, value, output, *_ in blocks),
    ]


class Block(nn.Module):
    """Fused attention with two heads of three and a gated MLP, in one of several styles."""

    def __init__(self, style):
        super().__init__()
        self.style = style
        self.qkv = nn.Linear(6, 18)
        self.proj = nn.Linear(6, 6)
        self.gate = nn.Linear(6, 4)
        self.up = nn.Linear(6, 4)
        self.down = nn.Linear(4, 6)
        self.norm = nn.LayerNorm(6)

    def forward(self, x):
        b, n, d = x.shape
        y = self.qkv(self.norm(x))
        if self.style == "timm":
            q, k, v = y.reshape(b, n, 3, 2, 3).permute(2, 0, 3, 1, 4).unbind(0)
            y = (((q * 3**-0.5) @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2)
        else:
            parts = y.chunk(3, -1) if self.style == "chunk" else y.unflatten(-1, (6, 3)).unbind(-1)
            q, k, v = (part.unflatten(-1, (2, 3)).transpose(1, 2) for part in parts)
            y = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        x = x + self.proj(y.reshape(b, n, d))
        h = self.norm(x)
        return (x + self.down(functional.silu(self.gate(h)) * self.up(h))).mean(1)


@pytest.mark.parametrize("style", ["timm", "chunk", "interleaved"])
def test_slices_and_heads_of_a_fused_projection_are_told_apart(style):
    model = Block(style)
    rows = torch.arange(18)
    parts = rows.view(6, 3).T if style == "interleaved" else rows.view(3, 6)
    q, k, v = (tuple(part.tolist()) for part in parts)
    four = tuple(range(4))
    assert find_relations(model, torch.zeros(2, 5, 6), linear_names(model)) == [
        Coupling("qkv", "qkv", q, k),
        Coupling("gate", "up", four, four),
        Feeding("qkv", "proj", v),
        Feeding("gate", "down", four),
        Feeding("up", "down", four),
    ]


def test_the_rows_found_are_those_that_matter():
    """Silencing a value neuron changes the output only through the input it is said to feed."""
    model = Block("interleaved").eval()
    feeding = find_relations(model, torch.zeros(2, 5, 6), ["qkv", "proj"])[-1]
    assert isinstance(feeding, Feeding)
    heard = {}
    model.proj.register_forward_pre_hook(lambda _, inputs: heard.update(x=inputs[0]))
    x = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model(x)
        loud = heard["x"]
        row = feeding.rows[4]
        model.qkv.weight[row] = 0
        model.qkv.bias[row] = 0
        model(x)
    assert (heard["x"] - loud).abs().amax((0, 1)).gt(0).tolist() == [False] * 4 + [True, False]


def test_a_layer_without_a_mask_takes_part_in_nothing():
    found = find_relations(Block("timm"), torch.zeros(2, 5, 6), ["proj", "up", "down"])
    assert found == [Feeding("up", "down", (0, 1, 2, 3))]


class Shared(nn.Module):
    """A query that is also added to the output, and values that two layers read."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.one, self.two = (nn.Linear(4, 4) for _ in range(5))

    def forward(self, x):
        q, v = self.q(x), self.v(x)
        y = functional.scaled_dot_product_attention(q, self.k(x), v)
        return self.one(y) + self.two(y) + q


def test_neurons_that_are_used_elsewhere_are_left_alone():
    model = Shared()
    assert find_relations(model, torch.zeros(2, 3, 4), linear_names(model)) == []


class Reshaping(nn.Module):
    """Two layers with memory moved between them in a way that the values allow."""

    def __init__(self, move) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 6), nn.Linear(30, 4)
        self.move = move

    def forward(self, x):
        return self.second(self.move(torch.relu(self.first(x))))


@pytest.mark.parametrize(
    "move",
    [
        lambda h: h.transpose(1, 2).contiguous().view(h.shape[0], -1),
        lambda h: h.mT.clone(memory_format=torch.contiguous_format).view(-1, 30),
        lambda h: (h * 2).permute(0, 2, 1).reshape(h.shape[0], 30),
        lambda h: h.unflatten(2, (2, 3)).movedim(3, 1).contiguous().flatten(1),
        lambda h: torch.stack(h.unbind(1), 2).flatten(start_dim=1),
    ],
    ids=["contiguous view", "clone view", "reshape", "movedim", "stack"],
)
def test_numbers_follow_values_whatever_lies_in_memory(move):
    found = find_relations(Reshaping(move), torch.zeros(2, 5, 8), ["first", "second"])
    for relation in found:
        assert isinstance(relation, Feeding)
        assert sorted(set(relation.rows)) == list(range(6))
        # What arrives at an input is the neuron that a marked output shows up as.
        for neuron in range(6):
            marked = torch.zeros(2, 5, 6)
            marked[..., neuron] = 1
            places = move(marked)[0].nonzero().flatten().tolist()
            assert [place for place, row in enumerate(relation.rows) if row == neuron] == places

"""The causal language model: what it may see, its size, and the layers percolation pairs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import topospike as ts
from topospike.errors import ConfigError, ShapeError
from topospike.evolve.couplings import Coupling, Feeding, find_relations
from topospike.models import capture, gpt
from topospike.topology import weight_layers

SMALL = {"context": 6, "widths": (8,), "blocks": (2,), "hidden": (12,), "heads": 2}


def small(seed=0, classes=11, *, std=0.5, **sizes):
    torch.manual_seed(seed)
    model = gpt(classes, **{**SMALL, **sizes}).eval()
    for parameter in model.parameters():  # larger than the first weights, so that nothing is tiny
        nn.init.normal_(parameter, std=std)
    return model


def test_a_million_parameters_by_default():
    with torch.device("meta"):
        model = gpt()
    embeddings, head, norms = (256 + 128) * 128, 128 * 256, 11 * 2 * 128
    attention, perceptron = 4 * (128 * 128 + 128), 2 * (128 * 344 + 344) + 344 * 128 + 128
    expected = embeddings + head + norms + 5 * (attention + perceptron)
    assert sum(p.numel() for p in model.parameters()) == expected == 1_079_536


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 5), st.integers(0, 10))
def test_no_token_sees_a_later_one(place, other):
    model = small()
    tokens = torch.arange(6)[None]
    changed = tokens.clone()
    changed[0, place] = other
    with torch.no_grad():
        before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :place], after[:, :place])
    assert (other == place) == torch.equal(before[:, place], after[:, place])


def test_a_shorter_context_is_the_beginning_of_a_longer_one():
    model, tokens = small(), torch.arange(6)[None]
    with torch.no_grad():
        whole = model(tokens)
        for length in range(1, 7):
            assert torch.allclose(model(tokens[:, :length]), whole[:, :length], atol=1e-5)


def test_one_block_worked_out_token_by_token():
    """The formula written once more, with a loop over tokens and heads instead of a mask."""
    model, tokens = small(blocks=(1,)), torch.tensor([[3, 1, 4, 1, 5, 9]])
    block = model.blocks[0]
    x = model.tokens.weight[tokens[0]] + model.positions.weight
    a = block.attention_norm(x)
    query, key, value = (
        getattr(block.attention, name)(a).view(6, 2, 4) for name in ("query", "key", "value")
    )
    mixed = torch.zeros(6, 2, 4)
    for i in range(6):
        for head in range(2):
            scores = torch.stack([query[i, head] @ key[j, head] / 2.0 for j in range(i + 1)])
            mixed[i, head] = scores.softmax(0) @ value[: i + 1, head]
    x = x + block.attention.out(mixed.view(6, 8))
    p = block.perceptron_norm(x)
    gate = block.perceptron.gate(p)
    x = x + block.perceptron.down(gate * torch.sigmoid(gate) * block.perceptron.up(p))
    assert torch.allclose(model(tokens)[0], F.linear(model.norm(x), model.head.weight), atol=1e-5)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"heads": 3}, "gpt: heads = 3 must divide the width 8"),
        ({"widths": (8, 8)}, r"gpt: widths = \(8, 8\) has 2 values; all blocks"),
        ({"context": 0}, "gpt: context = 0 must be 1 or larger"),
        ({"dropout": 1.0}, "gpt: dropout = 1.0 must be"),
    ],
)
def test_sizes_that_do_not_fit(sizes, message):
    with pytest.raises(ConfigError, match=message):
        gpt(11, **{**SMALL, **sizes})


@pytest.mark.parametrize("shape", [(2, 7), (6,), (1, 0)])
def test_tokens_that_do_not_fit(shape):
    with pytest.raises(ShapeError, match=r"\(batch, token\) with 1 to 6 tokens is required"):
        small()(torch.zeros(shape, dtype=torch.int64))


def test_the_head_is_the_classifier_with_and_without_an_example(caplog):
    model, tokens = small(), torch.zeros(2, 6, dtype=torch.int64)
    for example in (tokens, None):
        layers = weight_layers(model, example)
        assert [layer.name for layer in layers if layer.is_classifier] == ["head"]
        assert len(layers) == 2 * 7 + 1
    assert not [record for record in caplog.records if record.name.startswith("topospike")]


def test_the_graph_answers_as_the_model():
    model, tokens = small(), torch.tensor([[3, 1, 4, 1, 5, 9], [2, 6, 5, 3, 5, 8]])
    with torch.no_grad():
        assert torch.allclose(capture(model, tokens)(tokens), model(tokens), atol=1e-5)


def layers_of(model):
    return [layer.name for layer in weight_layers(model) if not layer.is_classifier]


def test_query_meets_key_and_gate_meets_up_in_every_block():
    model = small()
    relations = find_relations(model, torch.zeros(2, 6, dtype=torch.int64), layers_of(model))
    found = {
        (type(r), r.first, r.second) if isinstance(r, Coupling) else (type(r), r.source, r.target)
        for r in relations
    }
    block = "blocks.{}.{}".format
    assert found == {
        (kind, block(b, first), block(b, second))
        for b in range(2)
        for kind, first, second in (
            (Coupling, "attention.query", "attention.key"),
            (Coupling, "perceptron.gate", "perceptron.up"),
            (Feeding, "attention.value", "attention.out"),
            (Feeding, "perceptron.gate", "perceptron.down"),
            (Feeding, "perceptron.up", "perceptron.down"),
        )
    }
    rows = {r.first_rows for r in relations if isinstance(r, Coupling)}
    assert rows == {tuple(range(8)), tuple(range(12))}  # neuron i with neuron i, heads in order


def test_percolation_worked_by_hand():
    """Neurons whose partner is dead lose their links, and no others do."""
    from topospike.evolve.percolation import percolate_network

    model = small(blocks=(1,))
    relations = find_relations(model, torch.zeros(2, 6, dtype=torch.int64), layers_of(model))
    masks = {name: torch.ones_like(model.get_submodule(name).weight, dtype=torch.bool)
             for name in layers_of(model)}  # fmt: skip
    of = {name.rsplit(".", 1)[1]: mask for name, mask in masks.items()}
    of["query"][0] = False  # query 0 is dead: key 0 is useless
    of["key"][3] = False  # and the other way round
    of["value"][5] = False  # nothing comes out of value 5: out reads it in vain
    of["out"][:, 2] = False  # nobody reads value 2
    of["gate"][1] = False  # gate 1 is 0: up 1 and column 1 of down are useless
    of["down"][:, 7] = False  # nobody reads 7: gate 7 and up 7 are useless
    wanted = {name: mask.clone() for name, mask in of.items()}
    wanted["key"][0] = wanted["query"][3] = False
    wanted["out"][:, 5] = wanted["value"][2] = False
    wanted["up"][1] = wanted["down"][:, 1] = False
    wanted["gate"][7] = wanted["up"][7] = False
    after = percolate_network(masks, relations)
    for name, mask in after.items():
        assert torch.equal(mask, wanted[name.rsplit(".", 1)[1]]), name


@pytest.mark.slow
def test_it_becomes_a_sparse_spiking_network():
    """The spiking network comes close to the model with time; absent links cost nothing."""
    model, generator = small(), torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 11, (4, 6), generator=generator)
    ts.sparsify(model, "chts", sparsity=0.5, epochs=2, example_input=tokens[:2]).freeze()
    snn = ts.convert(model, "dcgs", [tokens], 32)
    with torch.no_grad():
        wanted = model(tokens)
        errors = (snn(tokens, 32) - wanted).flatten(1).norm(dim=1) / wanted.norm()
    assert errors[-1] < 0.02 < errors[0]
    result = ts.evaluate(snn, [(tokens, tokens)], 4, metric="perplexity")
    links = {layer.name: layer.macs for layer in result.layers}
    mask = model.blocks[0].attention.query.weight_mask
    assert links["blocks.0.attention.query"] == int(mask.sum()) * 6
    assert links["head"] == 8 * 11 * 6

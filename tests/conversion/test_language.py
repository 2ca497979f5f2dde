"""Language models of Hugging Face, causal and bidirectional, random weights, code untouched.

Sentences of a batch have several lengths, so every statement about answers is about real tokens.
"""

import copy
import functools
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

import topospike as ts
from topospike.errors import ConfigError, ConversionError, ShapeError
from topospike.measure import Conventions
from topospike.measure.counting.products import entries_used
from topospike.snn.neurons import Identity
from topospike.snn.site import decoded_of
from topospike.topology import register_mask

transformers = pytest.importorskip("transformers", reason="needs the extra 'hf'")

WORDS, LENGTH, PADDING = 40, 6, 1
SHAPE = {"vocab_size": WORDS, "hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 24,
         "max_position_embeddings": 12, "pad_token_id": PADDING,
         "num_attention_heads": 4}  # fmt: skip
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gpt2": (
        "GPT2LMHeadModel", "GPT2Config",
        {"vocab_size": WORDS, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 8,
         "bos_token_id": 0, "eos_token_id": 0, "attn_implementation": "eager"},
    ),
    "llama": (
        "LlamaForCausalLM", "LlamaConfig",
        {**SHAPE, "num_key_value_heads": 2, "tie_word_embeddings": True},
    ),
    "bert": ("BertForMaskedLM", "BertConfig", SHAPE),
    "roberta": ("RobertaForMaskedLM", "RobertaConfig", {**SHAPE, "attn_implementation": "eager"}),
}  # fmt: skip
CAUSAL = ("gpt2", "llama")
SOME_SLOW = [
    pytest.param(kind, marks=pytest.mark.slow) if kind in ("gpt2", "roberta") else kind
    for kind in KINDS
]


@functools.cache
def language_model(kind: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    model_name, config_name, settings = KINDS[kind]
    config = getattr(transformers, config_name)(**settings)
    model = getattr(transformers, model_name)(config).eval()
    for parameter in model.parameters():  # the library's initial weights are almost linear
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return model.to(dtype)


def sentences(lengths: tuple[int, ...] = (6, 4, 5, 6), *, left: bool = False) -> dict[str, Tensor]:
    """Return sentences of several lengths, filled up on one side."""
    ids = torch.randint(
        2, WORDS, (len(lengths), LENGTH), generator=torch.Generator().manual_seed(1)
    )
    place = torch.arange(LENGTH)
    places = (LENGTH - 1 - place) if left else place
    real = places < torch.tensor(lengths)[:, None]
    return {"input_ids": ids.where(real, PADDING), "attention_mask": real.long()}


def next_tokens(x: dict[str, Tensor]) -> Tensor:
    """Return the token after each one, -100 where there is none."""
    after = x["input_ids"].masked_fill(x["attention_mask"] == 0, -100)
    return F.pad(after[:, 1:], (0, 1), value=-100)


@functools.cache
def converted(kind: str, dtype: torch.dtype = torch.float32, method: str = "dcgs"):
    x = sentences()
    return ts.convert(language_model(kind, dtype), method, calibration=[x])


def logits_of(kind: str, x: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> Tensor:
    with torch.no_grad():
        return language_model(kind, dtype)(**x).logits


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_identity_sites_repeat_the_logits(kind: str) -> None:
    x = sentences(left=kind == "llama")
    snn = ts.convert(language_model(kind), calibration=[x], neuron=Identity())
    expected, real = logits_of(kind, x), x["attention_mask"] == 1
    for logits in snn(x, 2):
        torch.testing.assert_close(logits[real], expected[real], rtol=0, atol=1e-4)
    assert {layer.input for layer in snn.report.layers} == {"spikes", "product"}
    one_by_one = torch.cat([snn({n: t[i : i + 1] for n, t in x.items()}, 1)[0] for i in range(4)])
    torch.testing.assert_close(one_by_one[real], expected[real], rtol=0, atol=1e-4)


@pytest.mark.parametrize("method", ["dcgs", pytest.param("sigma-delta", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", SOME_SLOW)
def test_the_loss_tends_to_that_of_the_model(kind: str, method: str) -> None:
    x = sentences()
    snn, labels = converted(kind, method=method), next_tokens(x).flatten()
    loss = F.cross_entropy(logits_of(kind, x).flatten(0, 1), labels)
    gaps = [abs(float(F.cross_entropy(y.flatten(0, 1), labels) - loss)) for y in snn(x, 32)]
    assert max(gaps[-8:]) < 0.02
    assert max(gaps[-8:]) < 0.4 * max(gaps[:4])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_perplexity_is_that_of_the_next_tokens(kind: str) -> None:
    x = sentences()
    labels, snn = next_tokens(x), converted(kind)
    run = ts.evaluate(snn, [{**x, "labels": labels}], 3, metric="perplexity")
    by_hand = []
    for logits in (logits_of(kind, x), *snn(x, 3)):
        told = [
            -float(torch.log_softmax(logits[b, i], 0)[label])
            for b, row in enumerate(labels.tolist())
            for i, label in enumerate(row)
            if label != -100
        ]
        by_hand.append(float(torch.tensor(sum(told) / len(told)).exp()))
    assert len(told) == 6 + 4 + 5 + 6 - 4
    assert run.ann_metrics["perplexity"] == pytest.approx(by_hand[0], rel=1e-4)
    assert run.metrics["perplexity"] == pytest.approx(by_hand[1:], rel=1e-3)
    if kind in CAUSAL:  # the library shifts by itself
        unshifted = x["input_ids"].masked_fill(x["attention_mask"] == 0, -100)
        with torch.no_grad():
            loss = language_model(kind)(**x, labels=unshifted).loss
        assert run.ann_metrics["perplexity"] == pytest.approx(float(loss.exp()), rel=1e-4)


@dataclass
class Step:
    """One step: what fired and what was held before and after it, by the site's name."""

    fired: dict[str, Tensor]
    before: dict[str, Tensor]
    after: dict[str, Tensor]


def steps_of(snn, x: dict[str, Tensor], timesteps: int) -> list[Step]:
    steps, before = [], {}
    for step in snn.watch(x, timesteps):
        after = {name: (decoded_of(s) != 0).clone() for name, s in step.sites.items()}
        fired = {name: (s.spikes != 0).clone() for name, s in step.sites.items()}
        before = before or {name: torch.zeros_like(held) for name, held in after.items()}
        steps.append(Step(fired, before, after))
        before = after
    return steps


def multiplied(
    step: Step, sites: list[str], row: int, query: int, column: int, *, two_term: bool
) -> int:
    """Count the accumulates of one entry of a product over all heads, one by one."""
    left, right = sites
    count = 0
    _, heads, _, summands = step.fired[left].shape
    for head in range(heads):
        for k in range(summands):
            one, other = (row, head, query, k), (row, head, k, column)
            fires, meets = bool(step.fired[left][one]), bool(step.fired[right][other])
            held, met = bool(step.before[left][one]), bool(step.before[right][other])
            if two_term:
                count += (fires and bool(step.after[right][other])) + (held and meets)
            else:
                count += (fires and meets) + (fires and met) + (held and meets)
    return count


def links_leaving(model: nn.Module, name: str) -> Tensor:
    """Return how many links leave each feature that a layer reads."""
    layer = model.get_submodule(name)
    links = getattr(layer, "weight_mask", torch.ones_like(layer.weight))
    return links.sum(0 if isinstance(layer, nn.Linear) else 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "method"), [("gpt2", "dcgs"), ("llama", "sigma-delta"), ("bert", "dcgs")]
)
def test_counts_are_those_of_one_event_at_a_time(kind: str, method: str) -> None:
    torch.manual_seed(0)
    model, x = copy.deepcopy(language_model(kind, torch.float64)), sentences((3, 2))
    for name, layer in model.named_modules():
        if name.endswith(("up_proj", "query")):
            register_mask(layer, torch.rand(layer.weight.shape) < 0.4)
    snn = ts.convert(model, method, calibration=[x])
    run = ts.evaluate(snn, [x], 2, metric="agreement")
    real = x["attention_mask"].bool()
    attended = [
        (row, query, key)
        for row, query in real.nonzero().tolist()
        for key in range(LENGTH)
        if real[row, key] and (key <= query or kind not in CAUSAL)
    ]
    assert len(attended) == (6 + 3 if kind in CAUSAL else 9 + 4)
    names = {site.node: name for name, site in snn.populations.items()}
    counts = dict.fromkeys((layer.name for layer in snn.wiring), 0)
    for step in steps_of(snn, x, 2):
        for layer in snn.wiring:
            sites = [names[node] for node in layer.operands]
            if layer.kind == "matmul":
                of_scores = step.fired[sites[1]].shape[-1] == LENGTH
                columns = range(step.fired[sites[1]].shape[-1])
                for row, query in real.nonzero().tolist():
                    for column in columns:
                        if not of_scores or (row, query, column) in attended:
                            counts[layer.name] += multiplied(
                                step, sites, row, query, column, two_term=method != "dcgs"
                            )
            else:
                fired = step.fired[sites[0]].reshape(2, LENGTH, -1)[real]
                counts[layer.name] += int((fired * links_leaving(model, layer.name)).sum())
    assert {layer.name: 2 * layer.sops[-1] for layer in run.layers} == counts
    assert all(counts.values())
    for layer in run.layers:
        expected = (
            len(attended) * 16
            if layer.kind == "matmul"
            else 5 * int(links_leaving(model, layer.name).sum())
        )
        assert 2 * layer.macs == expected
        assert layer.macs_dense >= layer.macs


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_mask_overwrites_changes_no_answer_at_a_real_token(kind: str) -> None:
    snn, x = converted(kind), sentences()
    expected, real = snn.analog(x), x["attention_mask"].bool()
    products = {layer.node: layer for layer in snn.wiring if layer.kind == "matmul"}
    plain = fx.Interpreter(snn.ann, garbage_collect_values=False)
    plain.run(*snn.inputs.leaves(x))
    seen: dict[str, int] = {}

    class Disturbed(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            found = super().run_node(n)
            if n not in products:
                return found
            used = entries_used(products[n], plain.env, real, len(real), found.shape)
            assert used is not None
            used = used.expand(found.shape)
            seen[products[n].name] = int((~used).sum())
            return torch.where(used, found, 1e3 * torch.randn_like(found))

    found = Disturbed(snn.ann).run(*snn.inputs.leaves(x))
    torch.testing.assert_close(found[real], expected[real])
    lengths, heads = (6, 4, 5, 6), 2 if kind == "gpt2" else 4
    pairs = [n * (n + 1) // 2 if kind in CAUSAL else n * n for n in lengths]
    assert list(seen.values())[::2] == [heads * (4 * 36 - sum(pairs))] * 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", SOME_SLOW)
def test_a_padded_sentence_costs_what_it_costs_alone(kind: str) -> None:
    x = sentences((4, 4, 4))
    words = x["attention_mask"][0] == 1
    alone = {name: tensor[:, words] for name, tensor in x.items()}
    model = language_model(kind, torch.float64)
    snn = ts.convert(model, calibration=[x])
    thresholds = {name: site.threshold for name, site in snn.sites.items()}
    short = ts.convert(model, calibration=[alone], thresholds=thresholds)
    padded, plain = (
        ts.evaluate(network, [batch], 4, metric="agreement")
        for network, batch in ((snn, x), (short, alone))
    )
    assert padded.sops == plain.sops
    assert padded.energy_joule == plain.energy_joule
    assert padded.ann_energy_joule == plain.ann_energy_joule
    assert [layer.macs for layer in padded.layers] == [layer.macs for layer in plain.layers]
    assert padded.tokens == plain.tokens == 4
    assert padded.energy_per_token_joule == tuple(joule / 4 for joule in plain.energy_joule)
    whole = ts.evaluate(snn, [x], 4, metric="agreement", conventions=Conventions(padding="counted"))
    assert whole.sops[-1] > 1.3 * padded.sops[-1]
    assert (whole.tokens, whole.conventions["padding"]) == (4, "counted")


def test_batches_of_other_lengths_add_up() -> None:
    snn = converted("llama", torch.float64)
    x = sentences((6, 2, 3))
    runs = [
        ts.evaluate(snn, batches, 2, metric="agreement")
        for batches in ([x], [{n: t[i : i + 1] for n, t in x.items()} for i in range(3)])
    ]
    assert runs[0].sops == pytest.approx(runs[1].sops, rel=1e-12)
    assert runs[0].tokens == runs[1].tokens == pytest.approx(11 / 3)
    assert runs[0].macs == runs[1].macs == 0


class Bag(nn.Module):
    """Averages what it says of its tokens, padding left out if it heeds the mask."""

    def __init__(self, *, heeds: bool) -> None:
        super().__init__()
        self.table, self.hidden = nn.Embedding(WORDS, 8), nn.Linear(8, 12)
        self.last, self.head, self.heeds = nn.Linear(12, 8), nn.Linear(8, 3), heeds

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        y = self.last(torch.relu(self.hidden(self.table(input_ids))))
        share = attention_mask[:, :, None] if self.heeds else attention_mask[:, :1, None] ** 0
        return self.head(torch.relu((y * share).sum(1)))


def test_padding_is_left_out_only_if_no_answer_depends_on_it() -> None:
    torch.manual_seed(0)
    x = sentences((6, 2, 3, 5))
    heeding, deaf = (ts.convert(Bag(heeds=h).eval(), calibration=[x]) for h in (True, False))
    run = ts.evaluate(heeding, [x], 2, metric="agreement")
    layers = {layer.name: layer for layer in run.layers}
    assert layers["hidden"].macs == 4 * 8 * 12
    assert layers["last"].macs == 4 * 12 * 8
    assert layers["head"].macs == 8 * 3  # of the sentence, not of a token
    with pytest.raises(ConfigError, match="cannot be left out of the count"):
        ts.evaluate(deaf, [x], 2, metric="agreement")
    counted = Conventions(padding="counted")
    whole = ts.evaluate(deaf, [x], 2, metric="agreement", conventions=counted)
    assert [layer.macs for layer in whole.layers] == [6 * 8 * 12, 6 * 12 * 8, 8 * 3]
    full = sentences((6, 6))
    assert ts.evaluate(deaf, [full], 2, metric="agreement").tokens == 6


def test_the_report_names_what_is_decoded_and_not_counted() -> None:
    named = dict(line.split(": ") for line in converted("llama").report.uncounted)
    assert {"LlamaRMSNorm", "SiLUActivation"} <= named.keys()
    assert {"softmax", "mul", "neg"} <= set(named["LlamaAttention"].split(", "))  # rotary, too
    assert "not counted" in ts.conversion.conversion_text(converted("llama").report)
    timeless = {n.target for n in converted("llama").ann.graph.nodes} & {
        torch.ops.aten.embedding.default
    }
    assert timeless
    assert not any("embedding" in line for line in converted("llama").report.uncounted)


@pytest.mark.slow
def test_dropout_and_caches_that_are_on_change_nothing() -> None:
    model, x = copy.deepcopy(language_model("gpt2")).train(), sentences()
    assert model.config.use_cache
    assert model.transformer.drop.p > 0
    snn = ts.convert(model, calibration=[x])
    assert torch.equal(snn(x, 3), converted("gpt2")(x, 3))
    assert model.training
    assert model.config.use_cache


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(WORDS, 8), nn.Linear(8, 3)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.head(torch.relu(F.dropout(self.table(input_ids), 0.5)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: {**x, "input_ids": x["input_ids"] + 20}, r"5\d.*4\d|rows"),
        (lambda x: {**x, "input_ids": x["input_ids"] - 3}, "rows"),
        (lambda x: {**x, "input_ids": x["input_ids"].float()}, "int64|torch.int64"),
        (lambda x: {**x, "attention_mask": 0 * x["attention_mask"]}, "all padding"),
    ],
    ids=["beyond", "below 0", "float", "all padding"],
)
def test_bad_tokens_are_one_clear_error(change, message: str) -> None:
    x = change(sentences())
    with pytest.raises(ShapeError, match=message):
        ts.convert(language_model("bert"), calibration=[x])
    with pytest.raises(ShapeError, match=message):
        ts.evaluate(converted("bert"), [x], 2, metric="agreement")


def test_dropout_that_cannot_be_switched_off_is_refused() -> None:
    with pytest.raises(ConversionError, match="draws random numbers"):
        ts.convert(Noisy(), calibration=[sentences()["input_ids"]])

import hashlib
import math

import pytest
import torch
from datasets import Dataset, DatasetDict
from hypothesis import given
from hypothesis import strategies as st

from topospike.data import ContextBatches, Contexts, load_data
from topospike.data.text import topics
from topospike.data.text.sources import tokens_of
from topospike.errors import ConfigError, MissingDataError
from topospike.recipe import DataSettings, EventSettings, TextSettings

ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def text_file(folder, text=ALPHABET, name="some.txt"):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return str(path)


def of_text(source="pydoc-topics", context=4, **others):
    text = {"context": context, "test_fraction": others.pop("test_fraction", 0.2)}
    text |= {k: others.pop(k) for k in ("column", "tokenizer") if k in others}
    return DataSettings(source, text=TextSettings(**text), **others)


def letters(tokens):
    return ["".join(map(chr, row)) for row in tokens.tolist()]


def test_parts_by_position_worked_by_hand(tmp_path):
    """26 letters: the last 5 (20 %) for the test, of the other 21 the last 5 (25 %) to validate."""
    settings = of_text(text_file(tmp_path), context=4, validation_fraction=0.25, batch_size=2)
    data = load_data(settings, seed=0)
    assert (data.classes, data.context, data.name) == (256, 4, "some.txt")
    seen = {
        name: [(letters(x), letters(y)) for x, y in getattr(data, name)]
        for name in ("validation", "test")
    }
    assert seen["validation"] == [(["qrst"], ["rstu"])]
    assert seen["test"] == [(["vwxy"], ["wxyz"])]
    shown = sorted(row for x, _ in data.train for row in letters(x))
    assert shown == ["abcd", "efgh", "ijkl"]  # "mnop" would need q, which is of validation
    assert data.train.images == data.calibration.images == 3


@given(st.integers(0, 40), st.integers(1, 9))
def test_contexts_follow_one_another(tokens, length):
    some = Contexts(torch.arange(tokens), length)
    assert len(some) == (0 if tokens == 0 else (tokens - 1) // length)
    x = some.windows(torch.arange(len(some)))[:, :-1]
    y = some.windows(torch.arange(len(some)))[:, 1:]
    assert x.flatten().tolist() == list(range(len(some) * length))
    assert torch.equal(y, x + 1)


@given(st.integers(5, 40), st.integers(0, 10))
def test_a_shifted_context_stays_inside(tokens, shift):
    some = Contexts(torch.arange(tokens), 4)
    found = some.windows(torch.arange(len(some)), shift=shift)
    assert torch.equal(found, found[:, :1] + torch.arange(5))
    assert int(found.max()) < tokens
    expected = [min(4 * row + shift, tokens - 5) for row in range(len(some))]
    assert found[:, 0].tolist() == expected


def test_the_same_seed_and_epoch_give_the_same_batches():
    some = Contexts(torch.arange(400), 8)

    def epoch(number, seed=0, shifts=True):
        batches = ContextBatches(some, batch_size=7, seed=seed, shuffle=True, shifts=shifts)
        batches.set_epoch(number)
        return torch.cat([x for x, _ in batches])

    assert torch.equal(epoch(1), epoch(1))
    assert not torch.equal(epoch(1), epoch(2))
    assert not torch.equal(epoch(1), epoch(1, seed=1))
    starts = {int(epoch(number)[:, 0].min()) for number in range(20)}
    assert len(starts) > 3
    assert all(0 <= start < 8 for start in starts)
    plain = epoch(1, shifts=False)[:, 0]
    assert sorted(plain.tolist()) == list(range(0, 392, 8))


def test_the_embedded_text_is_that_of_python():
    from pydoc_data.topics import topics as by_name

    whole = "\n".join(by_name[name] for name in sorted(by_name)).encode()
    assert bytes(tokens_of(topics(), None).tolist()) == whole
    data = load_data(of_text(context=128, test_fraction=0.1), seed=0)
    train = round(len(whole) - round(0.1 * len(whole)))
    parts = [train - round(0.1 * train), round(0.1 * train)]
    assert data.identity["data.tokens"] == parts
    first, second = whole[: parts[0]], whole[parts[0] : train]
    assert (
        data.identity["data.sha256"]
        == hashlib.sha256(first + b"|" + second + b"|").hexdigest()[:16]
    )
    assert data.test.images == (len(whole) - train - 1) // 128


def test_limits_keep_the_beginning():
    data = load_data(of_text(context=16, limit_train=20, limit_test=3), seed=0)
    whole = tokens_of(topics(), None)
    assert data.test.images == 3
    assert sum(data.identity["data.tokens"]) == 20 * 16 + 1
    kept = bytes(whole[: 20 * 16 + 1].tolist())
    assert all(bytes(row) in kept for x, _ in data.calibration for row in x.tolist())


def test_files_of_splits(tmp_path):
    text_file(tmp_path, "abcde", "train-1.txt")
    text_file(tmp_path, "fghij", "train-2.txt")
    text_file(tmp_path, "klmnopqrst", "test.txt")
    settings = of_text(str(tmp_path), test_fraction=0, validation_fraction=0)
    data = load_data(settings, seed=0)
    assert [letters(x) for x, _ in data.test] == [["klmn", "opqr"]]
    assert len(data.validation) == 0
    assert data.identity["data.tokens"] == [11, 0]  # a newline between the files


@pytest.fixture
def documents(tmp_path):
    rows = {"id": [1, 2], "text": ["abcdefgh", "ijklmnop"]}
    splits = {name: Dataset.from_dict(rows) for name in ("train", "test")}
    for name, split in DatasetDict(splits).items():
        (tmp_path / "documents").mkdir(exist_ok=True)
        split.to_parquet(tmp_path / "documents" / f"{name}-00000-of-00001.parquet")
    return str(tmp_path / "documents")


def test_a_column_of_a_dataset(documents):
    settings = of_text(documents, test_fraction=0, validation_fraction=0.4)
    data = load_data(settings, seed=0)
    assert [letters(x) for x, _ in data.test] == [["abcd", "efgh", "\nijk", "lmno"]]
    assert data.identity["data.tokens"] == [10, 7]


def test_tokens_of_a_tokenizer(tmp_path, documents):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<end>": 0, "a": 1, "b": 2, "?": 3}
    plain = Tokenizer(models.WordLevel(words, unk_token="?"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    folder = tmp_path / "coder"
    PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<end>").save_pretrained(folder)
    source = text_file(tmp_path / "text", "a b c a b a a b b b")
    settings = of_text(
        source, context=2, tokenizer=str(folder), test_fraction=0.4, validation_fraction=0.0
    )
    data = load_data(settings, seed=0)  # tokens 1 2 3 1 2 1 1, and of the test 2 2 2 0
    assert (data.classes, data.train.images) == (4, 3)
    shown = sorted(x.tolist() for batch, _ in data.train for x in batch)
    assert shown == [[1, 2], [2, 1], [3, 1]]
    assert [(x.tolist(), y.tolist()) for x, y in data.test] == [([[2, 2]], [[2, 2]])]
    with pytest.raises(MissingDataError, match="tokenizer = 'nowhere' cannot be loaded"):
        load_data(of_text(source, tokenizer="nowhere"), seed=0)


def bad(message, error=ConfigError, **settings):
    return pytest.param(settings, error, message, id=message[:40])


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        bad("context is 380000, and the training part .* tokens; 380001", context=380_000,
            validation_fraction=0.0),
        bad("context is 60000, and the validation part", context=60_000),
        bad("the test part of .* has no text", MissingDataError, test_fraction=1e-9),
        bad("the validation part of .* has no text",
            MissingDataError, validation_fraction=1e-9),
        bad("test_fraction is 0 and 'pydoc-topics' has no test split", test_fraction=0.0),
        bad("text has no augmentation 'flip'; 'shift' is the only one", augment=("flip",)),
        bad(r"image_size = \(8, 8\) has no meaning for text", image_size=(8, 8)),
        bad("would mix tokens", mix=("mixup",)),
        bad("'nowhere' was not found", MissingDataError, source="nowhere"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be(settings, error, message):
    with pytest.raises(error, match=message):
        load_data(of_text(**settings), seed=0)


def test_texts_that_cannot_be_read(tmp_path, documents):
    with pytest.raises(MissingDataError, match=r"the training part of .* has no text"):
        load_data(of_text(text_file(tmp_path, "")), seed=0)
    one_file = of_text(text_file(tmp_path), test_fraction=0.0)
    with pytest.raises(ConfigError, match="is one file; cut the test off"):
        load_data(one_file, seed=0)
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(MissingDataError, match=r"bad.txt cannot be read as text .* UTF-8"):
        load_data(of_text(str(tmp_path / "bad.txt")), seed=0)
    only = tmp_path / "only"
    text_file(only, name="train.txt")
    with pytest.raises(MissingDataError, match="none whose name begins with 'test'"):
        load_data(of_text(str(only), test_fraction=0.0), seed=0)
    for column, message in (
        ("words", r"data.text.column = 'words' is not"),
        ("id", "holds no text"),
    ):
        with pytest.raises(MissingDataError, match=message):
            load_data(of_text(documents, column=column), seed=0)


def test_text_without_a_context_and_with_events():
    with pytest.raises(ConfigError, match=r"'pydoc-topics' and data.text.context is 0"):
        load_data(DataSettings("pydoc-topics"), seed=0)
    with pytest.raises(ConfigError, match=r"no context where data.events.frames"):
        DataSettings(text=TextSettings(4), events=EventSettings(frames=2))
    with pytest.raises(ConfigError, match=r"data.text.context is -1"):
        TextSettings(-1)
    with pytest.raises(ConfigError, match=r"data.text.test_fraction is nan"):
        TextSettings(4, test_fraction=math.nan)
    with pytest.raises(ConfigError, match="images or text, which have no frames"):
        load_data(of_text(), seed=0).over_time  # noqa: B018 - the property raises

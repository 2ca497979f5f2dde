"""Records, archives and headers: what is refused, and that nothing is allocated before."""

import json
import os
import zipfile
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topospike.errors import CheckpointError, MissingDataError, ShapeError
from topospike.files.archives import check_tensors, read_array, read_arrays, reading
from topospike.files.ranges import Amount, Count, Order, Share
from topospike.files.reading import read_bytes, read_optional, read_record, shortened


@dataclass(frozen=True, slots=True)
class Part:
    name: str
    share: Share


@dataclass(frozen=True, slots=True)
class Whole:
    count: Count
    order: Order
    amount: Amount | None
    parts: tuple[Part, ...]
    added: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.added and len(self.added) != len(self.parts):
            raise ShapeError(f"{len(self.added)} values for {len(self.parts)} parts")


GOOD = {"count": 0, "order": 1, "amount": None, "parts": [{"name": "a", "share": 1}]}


def written(path, content):
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text)
    return path


def test_a_record_is_what_its_annotations_say(tmp_path):
    read = read_record(written(tmp_path / "a.json", GOOD), Whole)
    assert read == Whole(0, 1, None, (Part("a", 1.0),))
    assert read_optional(tmp_path / "absent.json", Whole) is None
    with pytest.raises(MissingDataError, match=r"absent\.json does not exist. Do it again"):
        read_record(tmp_path / "absent.json", Whole, remedy="Do it again.")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"count": -1}, r"Expected `int` >= 0 - at `\$.count`"),
        ({"count": 1.5}, "Expected `int`, got `float`"),
        ({"count": True}, "Expected `int`, got `bool`"),
        ({"order": 0}, "Expected `int` >= 1"),
        ({"amount": -0.1}, "Expected `float` >= 0"),
        ({"parts": [{"name": "a", "share": 1.01}]}, r"<= 1.0 - at `\$.parts\[0\].share`"),
        ({"parts": [{"share": 1.0}]}, "missing required field `name`"),
        ({"parts": {}}, "Expected `array`, got `object`"),
        ({"added": [1.0, 2.0]}, "2 values for 1 parts"),
    ],
)
def test_what_is_out_of_range_is_named(tmp_path, change, found):
    with pytest.raises(CheckpointError, match=found):
        read_record(written(tmp_path / "a.json", GOOD | change), Whole)


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "[]", "{", '{"count": NaN}', '{"count": 1e999}', "[" * 100_000,
        '{"count": ' + "9" * 5000 + "}", '{"later": ' + "[" * 100_000 + "}", "\x00", "\ud7ff",
        json.dumps(GOOD) + "x", '{"' + "k" * 10**6 + '": 1}',
    ],
)  # fmt: skip
def test_what_is_no_record_is_one_short_line(tmp_path, text):
    with pytest.raises(CheckpointError, match=r"a\.json is damaged") as refused:
        read_record(written(tmp_path / "a.json", text), Whole)
    assert len(str(refused.value)) < 600
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["a" * 2001, '"\\ é' * 600])
def test_a_text_that_would_fill_the_screen_is_refused_wherever_it_is(tmp_path, text):
    assert read_record(written(tmp_path / "a.json", {"a": text[:2000]}), dict) == {"a": text[:2000]}
    for plain in ({"a": [text]}, {text: 1}, {"a": '", "', "b": [[1] * 5000, {"c": text}]}):
        with pytest.raises(
            CheckpointError, match=f"a text of {len(text)} characters; at most 2000"
        ):
            read_record(written(tmp_path / "a.json", plain), dict)
    assert (
        read_record(written(tmp_path / "a.json", {"a": [1.5] * 5000, "b": "c"}), dict)["b"] == "c"
    )


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "a.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        read_record(path, Whole)


def test_only_regular_files_of_a_bounded_size_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    (tmp_path / "round").symlink_to("round")
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate(2**40)
    kinds = {"pipe": "a pipe", "zeros": "a device", ".": "a folder", "round": "cannot be read"}
    for name, found in {**kinds, "large": "has 1099511627776 bytes"}.items():
        with pytest.raises(CheckpointError, match=found):
            read_bytes(tmp_path / name)
    (tmp_path / "link").symlink_to(written(tmp_path / "a.json", GOOD))
    assert read_record(tmp_path / "link", Whole).order == 1


def test_messages_are_cut():
    assert shortened("a\n" * 1000, 9) == "a a a a a... (1999 characters)"


def test_an_archive_is_unpacked_no_further_than_what_belongs_there(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, small=np.arange(3), large=np.zeros(2**20))
    arrays = read_arrays(path)
    assert arrays.read("small", most=24).tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match=r"large has 8388736 bytes; at most 100 belong there"):
        arrays.read("large", most=100)
    with pytest.raises(ValueError, match="no entry 'none'"):
        arrays.read("none", most=1)


def test_objects_and_false_promises_are_refused_by_their_header(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(CheckpointError, match="holds objects"):
        read_array(tmp_path / "objects.npy")
    np.save(tmp_path / "text.npy", np.array(["a"]))
    with pytest.raises(CheckpointError, match="numbers are required"):
        read_array(tmp_path / "text.npy")
    path = tmp_path / "endless.npy"
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "<f8", "fortran_order": False, "shape": (2**50,)}
        )
    with pytest.raises(CheckpointError, match=r"promises float64 of shape \(1125899906842624,\)"):
        read_array(path)


def test_an_archive_with_one_name_twice_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", b"")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.npy", b"")
    with pytest.raises(CheckpointError, match="two entries have one name"):
        read_arrays(path)


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (b"", "promises 0 bytes"),
        ((2**60).to_bytes(8, "little"), "promises 1152921504606846976 bytes"),
        (
            len(header := b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}').to_bytes(
                8, "little"
            )
            + header,
            "promises 36 bytes of tensors, and 0 are there",
        ),
    ],
)
def test_tensors_that_are_not_there_are_refused(tmp_path, head, found):
    path = tmp_path / "a.safetensors"
    path.write_bytes(head)
    with pytest.raises(CheckpointError, match=found):
        check_tensors(path, lambda name, shape, dtype: None)


def test_errors_of_ours_pass_through():
    with pytest.raises(MissingDataError), reading("a"):
        raise MissingDataError("gone")

"""Ways in which a file can come to be something else than what was written."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

Alteration = Callable[[Path, random.Random, Path], None]
DIGITS = "9" * 5000
EARLIER = "earlier"
"""Folder beside a file, with what the file was before the last stages."""


def content(change: Callable[[bytes], bytes]) -> Alteration:
    """Replace a file's bytes."""
    return lambda path, rng, other: replace(path, change(path.read_bytes()))


def replace(path: Path, new: bytes) -> None:
    path.write_bytes(new)


def flip(path: Path, rng: random.Random, other: Path) -> None:
    data = bytearray(path.read_bytes())
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def instead(make: Callable[[Path], object]) -> Alteration:
    """Put something else than a file in its place."""

    def change(path: Path, rng: random.Random, other: Path) -> None:
        path.unlink()
        make(path)

    return change


def sparse(path: Path, rng: random.Random, other: Path) -> None:
    with path.open("r+b") as stream:
        stream.truncate(8 * 2**30)


def of_another_run(path: Path, rng: random.Random, other: Path) -> None:
    if other.is_dir():
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(other, path)
    else:
        path.write_bytes(other.read_bytes() if other.is_file() else b"{}")


def of_the_same_run_earlier(path: Path, rng: random.Random, other: Path) -> None:
    path.write_bytes((path.parent / EARLIER / path.name).read_bytes())


GENERAL: dict[str, Alteration] = {
    "cut in half": content(lambda b: b[: len(b) // 2]),
    "last byte cut": content(lambda b: b[:-1]),
    "empty": content(lambda b: b""),
    "one byte": content(lambda b: b[:1]),
    "a bit flipped": flip,
    "another bit flipped": flip,
    "a third bit flipped": flip,
    "zeros": content(lambda b: bytes(len(b))),
    "doubled": content(lambda b: b + b),
    "garbage behind": content(lambda b: b + b"\x00\xff}]"),
    "text": content(lambda b: b"hello"),
    "not UTF-8": content(lambda b: b"\xff\xfe" + b),
    "a folder": instead(Path.mkdir),
    "a pipe": instead(os.mkfifo),
    "a link to zeros": instead(lambda path: path.symlink_to("/dev/zero")),
    "a link to nothing": instead(lambda path: path.symlink_to("nowhere")),
    "a link to itself": instead(lambda path: path.symlink_to(path.name)),
    "8 GiB": sparse,
    "of another run": of_another_run,
    "nothing": lambda path, rng, other: path.unlink(),
}


def leaves(value: object, place: tuple = ()) -> list[tuple]:
    """List where numbers, texts and lists are in plain values."""
    found: list[tuple] = []
    if isinstance(value, dict):
        for key, item in value.items():
            found += leaves(item, (*place, key))
    elif isinstance(value, list):
        found.append(place)
        for index, item in enumerate(value[:3]):
            found += leaves(item, (*place, index))
    elif place:
        found.append(place)
    return found


def field(wanted: tuple[type, ...], change: Callable[[object], object]) -> Alteration:
    """Change one value somewhere in a JSON file, or in a line of one."""

    def alter(path: Path, rng: random.Random, other: Path) -> None:
        lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        index = rng.randrange(len(lines))
        plain = json.loads(lines[index])
        places = [p for p in leaves(plain) if p and type(at(plain, p)) in wanted]
        if not places:
            return
        place = rng.choice(places)
        at(plain, place[:-1])[place[-1]] = change(at(plain, place))
        # what JSON has no word for, such as 5000 digits, is put in as text
        lines[index] = json.dumps(plain).replace('"RAW', "").replace('RAW"', "")
        path.write_text("\n".join(lines) + "\n")

    return alter


def at(value: object, place: tuple) -> object:
    for key in place:
        value = value[key]
    return value


def without_a_key(path: Path, rng: random.Random, other: Path) -> None:
    first, *rest = (
        path.read_text().splitlines(keepends=True)
        if path.suffix == ".jsonl"
        else [path.read_text()]
    )
    plain = json.loads(first)
    if isinstance(plain, dict) and plain:
        plain.pop(rng.choice(sorted(plain)))
    path.write_text(json.dumps(plain) + "\n" + "".join(rest))


NUMBERS = (int, float)
JSON: dict[str, Alteration] = {
    "null": content(lambda b: b"null"),
    "a list": content(lambda b: b"[1, 2]"),
    "a number": content(lambda b: b"1e5"),
    "deep": content(lambda b: b"[" * 100_000),
    "deep and closed": content(lambda b: b'{"rows": ' * 2000 + b"1" + b"}" * 2000),
    "5000 digits": field(NUMBERS, lambda x: f"RAW{DIGITS}RAW"),
    "NaN": field(NUMBERS, lambda x: "RAWNaNRAW"),
    "infinity": field(NUMBERS, lambda x: "RAW1e999RAW"),
    "huge": field(NUMBERS, lambda x: 1e300),
    "a great count": field(NUMBERS, lambda x: 10**12),
    "negative": field(NUMBERS, lambda x: -1 - abs(x)),
    "a little more": field(NUMBERS, lambda x: x * 1.01 + 1),
    "a text for a number": field(NUMBERS, lambda x: "many"),
    "a number for a text": field((str,), lambda x: 3),
    "another text": field((str,), lambda x: "../../x" + "y" * 50),
    "a megabyte of text": field((str,), lambda x: "z" * 10**6),
    "null for a value": field((*NUMBERS, str), lambda x: None),
    "a list shortened": field((list,), lambda x: x[:-1]),
    "a list lengthened": field((list,), lambda x: [*x, *x[-1:]]),
    "a list nested": field((list,), lambda x: [[x]]),
    "a value nested deeply": field(NUMBERS, lambda x: "RAW" + "[" * 5000 + "]" * 5000 + "RAW"),
    "a key missing": without_a_key,
    "another key missing": without_a_key,
}


def bomb(path: Path, rng: random.Random, other: Path) -> None:
    """Let every entry of an archive unpack to half a gigabyte of zeros."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (2**29,)}
    )
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names[-2:]:
            with archive.open(name, "w") as entry:
                entry.write(header.getvalue())
                for _ in range(512):
                    entry.write(bytes(2**20))


def entries(change: Callable[[dict[str, np.ndarray], random.Random], None]) -> Alteration:
    """Change the arrays of a NumPy archive."""

    def alter(path: Path, rng: random.Random, other: Path) -> None:
        with np.load(path) as stored:
            arrays = dict(stored)
        change(arrays, rng)
        np.savez_compressed(path, allow_pickle=True, **arrays)

    return alter


def some(arrays: dict[str, np.ndarray], rng: random.Random) -> str:
    return rng.choice(sorted(arrays))


NPZ: dict[str, Alteration] = {
    "a bomb": bomb,
    "an entry missing": entries(lambda a, rng: a.pop(some(a, rng))),
    "an entry of objects": entries(
        lambda a, rng: a.update({some(a, rng): np.array([{}, None], dtype=object)})
    ),
    "an entry of another shape": entries(
        lambda a, rng: a.update({some(a, rng): np.zeros((3, 3), np.int16)})
    ),
    "an entry of NaN": entries(lambda a, rng: a.update({some(a, rng): np.full(2, np.nan)})),
    "an endless shape": entries(
        lambda a, rng: a.update({k: v * 2**40 for k, v in a.items() if k.startswith("shape")})
    ),
    "a link more": entries(
        lambda a, rng: a.update({k: v | 128 for k, v in a.items() if k.startswith("bits")})
    ),
}


def header(change: Callable[[dict], object]) -> Alteration:
    """Change the header of a safetensors file."""

    def alter(path: Path, rng: random.Random, other: Path) -> None:
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        plain = json.loads(data[8 : 8 + length])
        change(plain)
        text = json.dumps(plain).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])

    return alter


def first_tensor(plain: dict) -> dict:
    return plain[next(name for name in plain if name != "__metadata__")]


TENSORS: dict[str, Alteration] = {
    "a header of 2^60 bytes": content(lambda b: (2**60).to_bytes(8, "little") + b[8:]),
    "a tensor of 2^40": header(lambda h: first_tensor(h).update(shape=[2**40])),
    "a tensor of another shape": header(lambda h: first_tensor(h).update(shape=[1, 1, 1])),
    "a tensor of another type": header(lambda h: first_tensor(h).update(dtype="I8")),
    "offsets beyond the end": header(lambda h: first_tensor(h).update(data_offsets=[0, 2**50])),
    "a header without tensors": header(lambda h: h.clear()),
    "a header of another kind": header(lambda h: first_tensor(h).clear()),
}


OF_A_RUN = ("record.json", "stages.json")


def alterations(path: str) -> dict[str, Alteration]:
    """Return every way for a kind of file, by its name; folders and several files are replaced."""
    if not Path(path).suffix or "+" in path:
        return {"of another run": of_another_run}
    kinds = {".json": JSON, ".jsonl": JSON, ".npz": NPZ, ".safetensors": TENSORS}
    earlier = {"of the same run, earlier": of_the_same_run_earlier} if path in OF_A_RUN else {}
    return GENERAL | earlier | kinds.get(Path(path).suffix, {})

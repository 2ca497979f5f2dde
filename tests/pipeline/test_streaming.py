"""Frames from a file, and what they do to the networks of a run folder."""

import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from topospike.cli.main import main
from topospike.errors import CheckpointError, ConfigError, MissingDataError
from topospike.pipeline import run_recipe
from topospike.pipeline.streaming import read_frames
from topospike.recipe.files import resolve

pytestmark = pytest.mark.slow

GREY, SIZE = ([0.5], [0.25]), (2, 2)


def test_bytes_are_normalised_and_other_numbers_are_not(tmp_path):
    pixels = np.arange(2 * 4, dtype=np.uint8).reshape(2, 1, 2, 2)
    np.save(tmp_path / "bytes.npy", pixels)
    np.save(tmp_path / "numbers.npy", pixels.astype(np.float32)[:, None])
    frames = read_frames(tmp_path / "bytes.npy", GREY, SIZE)
    assert len(frames) == 2
    assert torch.equal(frames[1], (torch.from_numpy(pixels[1:2]) / 255 - 0.5) / 0.25)
    assert read_frames(tmp_path / "numbers.npy", GREY, SIZE)[0].tolist() == [
        [[[0.0, 1.0], [2.0, 3.0]]]
    ]


def test_pictures_are_frames_in_the_order_of_their_names(tmp_path):
    for name, value in (("b.png", 255), ("a.png", 0)):
        Image.fromarray(np.full((3, 2), value, np.uint8)).save(tmp_path / name)
    frames = read_frames(tmp_path, GREY, (3, 2))
    assert [frame.mean().item() for frame in frames] == [-2.0, 2.0]
    assert frames[0].shape == (1, 1, 3, 2)
    assert read_frames(tmp_path, ([0.5] * 3, [0.25] * 3), (3, 2))[0].shape == (1, 3, 3, 2)


def test_what_are_no_frames_is_said(tmp_path):
    with pytest.raises(MissingDataError, match="neither an array"):
        read_frames(tmp_path / "nothing", GREY, SIZE)
    with pytest.raises(MissingDataError, match="has no pictures"):
        read_frames(tmp_path, GREY, SIZE)
    np.save(tmp_path / "flat.npy", np.zeros((4, 4)))
    with pytest.raises(MissingDataError, match=r"shape \(4, 4\)"):
        read_frames(tmp_path / "flat.npy", GREY, SIZE)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(MissingDataError, match=r"broken\.png cannot be read"):
        read_frames(tmp_path, GREY, SIZE)


def test_pictures_of_another_size_and_what_is_no_file_are_refused_before_they_are_unpacked(
    tmp_path,
):
    Image.new("L", (20_000, 20_000)).save(tmp_path / "great.png")
    with pytest.raises(MissingDataError, match=r"great\.png cannot be read"):
        read_frames(tmp_path, GREY, SIZE)
    Image.new("L", (3, 2)).save(tmp_path / "great.png")
    with pytest.raises(MissingDataError, match=r"has 3 x 2 pixels; the networks are shown 2 x 2"):
        read_frames(tmp_path, GREY, SIZE)
    (tmp_path / "great.png").unlink()
    os.mkfifo(tmp_path / "great.png")
    with pytest.raises(CheckpointError, match=r"great\.png is a pipe"):
        read_frames(tmp_path, GREY, SIZE)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    small = {
        "train": {"epochs": 1, "warmup_epochs": 0},
        "dense_twin": False,
        "analyse": False,
        "measure": {"timesteps": 2, "images": 16},
        "convert": [{"method": "sigma-delta", "options": {"pixels": True}}, {"method": "dcgs"}],
    }
    folder = tmp_path_factory.mktemp("run")
    run_recipe(resolve("demo", small), folder, device="cpu")
    return folder


def test_the_command_shows_frames_and_writes_what_they_cost(run, tmp_path, capsys):
    frame = np.random.default_rng(0).integers(0, 256, (1, 1, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "frames.npy", np.repeat(frame, 3, axis=0))
    given = ["simulate", str(run), "--stream", str(tmp_path / "frames.npy"), "--first", "40"]
    assert main(given) == 0
    printed = capsys.readouterr().out
    assert "sigma-delta" in printed
    assert "dcgs" not in printed
    written = json.loads((run / "conversions" / "sigma-delta" / "stream.json").read_text())
    assert [line["steps"] for line in written] == [40, 2, 2]
    assert written[0]["energy_joule"] > 0
    assert [line["events"] for line in written[1:]] == [0, 0]


def test_a_conversion_without_a_state_to_keep_is_refused_by_name(run, tmp_path):
    from topospike.pipeline.folder.record import recorded_recipe
    from topospike.pipeline.run import Run
    from topospike.pipeline.streaming import stream_networks

    np.save(tmp_path / "frames.npy", np.zeros((1, 1, 8, 8), np.uint8))
    at_work = Run(recorded_recipe(run), run, device="cpu")
    with pytest.raises(ConfigError, match="never do"):
        list(stream_networks(at_work, tmp_path / "frames.npy", "dcgs", steps=2, first=None))

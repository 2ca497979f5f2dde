"""Folders of recordings: each raw format, splits, both loading paths, what is refused."""

import numpy as np
import pytest
import torch
from tests.data.events.formats import SENSOR, WRITERS, some_events, write_aedat3, write_npz

from topospike.data import load_data
from topospike.data.events.readers import read_events
from topospike.errors import ConfigError, MissingDataError
from topospike.recipe import DataSettings, EventSettings


def settings(folder, **events):
    raw = {"sensor": SENSOR} | events
    return DataSettings(
        str(folder), validation_fraction=0.2, eval_batch_size=4, events=EventSettings(**raw)
    )


@pytest.fixture
def split_folder(tmp_path):
    def write(suffix=".npz", classes=("cat", "dog"), splits=(("Train", 5), ("Test", 2))):
        for split, count in splits:
            for label, name in enumerate(classes):
                place = tmp_path / split / name
                place.mkdir(parents=True)
                for number in range(count):
                    seed = 100 * label + number + 50 * (split == "Test")
                    WRITERS[suffix](place / f"{number}{suffix}", some_events(seed))
        return tmp_path

    return write


@pytest.mark.parametrize("suffix", list(WRITERS))
def test_every_format_gives_the_events_back(tmp_path, suffix):
    events = some_events(0)
    WRITERS[suffix](tmp_path / f"one{suffix}", events)
    assert np.array_equal(read_events(tmp_path / f"one{suffix}", sensor=SENSOR), events)


def test_aedat3_leaves_invalid_events_out(tmp_path):
    events = some_events(1)
    write_aedat3(tmp_path / "one.aedat", events)
    assert np.array_equal(read_events(tmp_path / "one.aedat"), events)


def test_nmnist_times_overflow(tmp_path):
    late = bytes([1, 240, 0, 0, 0])
    (tmp_path / "one.bin").write_bytes(bytes([1, 2, 0x80, 0, 5]) + late + bytes([3, 4, 0, 1, 0]))
    events = read_events(tmp_path / "one.bin")
    assert events.tolist() == [(5, 1, 2, True), (256 + 2**13, 3, 4, False)]


@pytest.mark.parametrize("suffix", list(WRITERS))
def test_split_folders_load(split_folder, suffix):
    data = load_data(settings(split_folder(suffix), frames=3), seed=0)
    assert (data.train.images, data.validation.images, data.test.images) == (8, 2, 4)
    assert (data.classes, data.channels, data.image_size) == (2, 2, SENSOR)
    assert data.label_names == ("cat", "dog")
    frames, labels = next(iter(data.over_time.test))
    assert frames.shape == (3, 4, 2, *SENSOR)
    assert labels.tolist() == [0, 0, 1, 1]
    assert frames.sum((0, 2, 3, 4)).tolist() == [30.0] * 4
    mean, _ = next(iter(data.test))
    assert torch.allclose(mean, frames.mean(0))


def test_class_folders_are_cut_by_number(tmp_path):
    (tmp_path / "a").mkdir()
    for number in range(12):
        events = some_events(number, sensor=(1, 1), count=number + 1)
        write_npz(tmp_path / "a" / f"rec_{number}.npz", events)
    data = load_data(settings(tmp_path, frames=1, sensor=(1, 1)), seed=0)
    counts = [int(x.sum()) for x, _ in data.over_time.test for x in x.unbind(1)]
    assert counts == [11, 12]  # the last tenth, by number and not by name


def test_gesture_recordings_are_cut_by_their_tables(tmp_path):
    for name, seed in (("user01_led", 0), ("user02_led", 1)):
        write_aedat3(tmp_path / f"{name}.aedat", some_events(seed, sensor=(128, 128), count=60))
        table = "class,startTime_usec,endTime_usec\n2,100,500\n1,500,900\n"
        (tmp_path / f"{name}_labels.csv").write_text(table)
    (tmp_path / "trials_to_train.txt").write_text("user01_led.aedat\n\n")
    (tmp_path / "trials_to_test.txt").write_text("user02_led.aedat\n")
    chosen = DataSettings(
        str(tmp_path), validation_fraction=0.0, events=EventSettings(frames=2, resize=8)
    )
    data = load_data(chosen, seed=0)
    assert (data.train.images, data.test.images, data.classes) == (2, 2, 2)
    assert data.image_size == (16, 16)
    frames, labels = next(iter(data.over_time.test))
    events = some_events(1, sensor=(128, 128), count=60)
    inside = [
        int(((events["t"] >= a) & (events["t"] < b)).sum()) for a, b in ((100, 500), (500, 900))
    ]
    assert labels.tolist() == [1, 0]
    assert frames.sum((0, 2, 3, 4)).tolist() == inside


@pytest.mark.parametrize("workers", [0, 1])
def test_both_paths_give_the_same_batches(split_folder, workers):
    import dataclasses

    chosen = settings(split_folder(), frames=2, crop=(8, 8), resize=2, clip=2)
    chosen = dataclasses.replace(chosen, augment=("flip", "roll:1", "jitter"), workers=workers)
    memory, demand = (load_data(chosen, seed=3, in_memory_bytes=n) for n in (10**6, 10))
    assert (memory.in_memory, demand.in_memory) == (True, False)
    for one, other in zip(memory.over_time.train, demand.over_time.train, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])
    memory.train.set_epoch(1)
    demand.train.set_epoch(1)
    first, second = (torch.cat([x for x, _ in data.train]) for data in (memory, demand))
    assert torch.equal(first, second)


@pytest.mark.slow
def test_frames_as_channels(split_folder):
    data = load_data(settings(split_folder(), frames=3, stack=True), seed=0)
    x, _ = next(iter(data.test))
    assert data.channels == 6
    assert x.shape == (4, 6, *SENSOR)


def test_digits_events():
    chosen = DataSettings(
        "digits-events", limit_train=12, limit_test=4, events=EventSettings(frames=4)
    )
    first, other_seed = (load_data(chosen, seed=seed) for seed in (0, 0))
    (x, y), (same, _) = (next(iter(data.over_time.test)) for data in (first, other_seed))
    assert x.shape == (4, 4, 2, 34, 34)
    assert torch.equal(x, same)
    assert 1000 < x.sum((0, 2, 3, 4)).mean() < 6000
    assert y.unique().numel() == 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mean": (0.0, 0.0)}, r"data\.mean = \(0\.0, 0\.0\) has no meaning for events"),
        ({"mix": ("mixup",)}, "fractions of events"),
        ({"augment": ("crop",)}, "unknown augmentation of events 'crop'"),
        ({"events": EventSettings()}, r"data\.events\.frames is 0"),
        ({"source": "digits"}, "are images"),
        ({"source": "owner/name"}, "from a local folder only"),
    ],
)
def test_settings_that_do_not_fit_are_refused(change, words):
    raw = {"source": "digits-events", "events": EventSettings(frames=2)} | change
    with pytest.raises((ConfigError, MissingDataError), match=words):
        load_data(DataSettings(**raw), seed=0)


def test_images_have_no_frames():
    with pytest.raises(ConfigError, match="images or text, which have no frames"):
        _ = load_data(DataSettings(), seed=0).over_time


@pytest.mark.parametrize("content", [b"", b"nonsense"])
@pytest.mark.parametrize("suffix", [".npz", ".npy", ".h5", ".bin", ".aedat"])
def test_damaged_files_are_named(tmp_path, suffix, content):
    path = tmp_path / f"one{suffix}"
    path.write_bytes(content)
    with pytest.raises((MissingDataError, ConfigError), match=str(path)):
        read_events(path, sensor=SENSOR)


def test_truncated_packets_and_missing_columns_are_named(tmp_path):
    path = tmp_path / "one.aedat"
    write_aedat3(path, some_events(0))
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(MissingDataError, match="breaks off 3 bytes early"):
        read_events(path)
    np.savez(tmp_path / "two.npz", t=[1], x=[1], y=[1])
    with pytest.raises(MissingDataError, match=r"holds t, x, y; .* \(p missing\)"):
        read_events(tmp_path / "two.npz", sensor=SENSOR)
    with pytest.raises(MissingDataError, match="does not say how large its sensor is"):
        read_events(tmp_path / "two.npz")


def test_folders_that_are_no_set_are_refused(tmp_path, split_folder):
    with pytest.raises(MissingDataError, match="has no recordings of events"):
        load_data(settings(tmp_path, frames=2), seed=0)
    (tmp_path / "a").mkdir()
    write_npz(tmp_path / "a" / "0.npz", some_events(0))
    with pytest.raises(MissingDataError, match="too few to keep"):
        load_data(settings(tmp_path, frames=2), seed=0)
    folder = split_folder()
    (folder / "Test" / "cat").rename(folder / "Test" / "cow")
    with pytest.raises(MissingDataError, match="does not have"):
        load_data(settings(folder, frames=2), seed=0)

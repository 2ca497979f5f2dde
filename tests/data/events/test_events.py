"""Event arrays, binning, and the simulated camera."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from topospike.data.events import FrameForm, digit_events, event_array, event_frames
from topospike.data.events.camera import FIELD, level_crossings, saccade_path
from topospike.errors import ConfigError, ShapeError


def form(frames=2, binning="time", sensor=(4, 6), crop=None, resize=1, clip=255):
    return FrameForm(frames, binning, sensor, crop or sensor, resize, clip)


@st.composite
def recordings(draw, sensor=(4, 6)):
    count = draw(st.integers(1, 40))
    columns = [
        draw(st.lists(st.integers(0, top), min_size=count, max_size=count))
        for top in (1000, sensor[1] - 1, sensor[0] - 1, 1)
    ]
    return event_array(*columns, sensor=sensor)


@given(recordings(), st.integers(1, 9), st.sampled_from(["time", "count"]))
def test_frames_hold_every_event_once_where_a_loop_puts_it(events, frames, binning):
    counted = event_frames(events, form(frames, binning))
    expected = np.zeros((frames, 2, 4, 6), dtype=int)
    first, last = events["t"][0], events["t"][-1]
    for number, (t, x, y, p) in enumerate(events.tolist()):
        by_time = int((t - first) * frames / (last - first + 1))
        place = by_time if binning == "time" else number * frames // len(events)
        expected[place, int(p), y, x] += 1
    assert np.array_equal(counted, expected)


@given(recordings())
def test_crop_resize_and_clip_act_on_the_counts(events):
    whole = event_frames(events, form()).astype(int)
    middle = event_frames(events, form(crop=(2, 4)))
    assert np.array_equal(middle, whole[:, :, 1:3, 1:5])
    summed = event_frames(events, form(resize=2))
    assert np.array_equal(summed, whole.reshape(2, 2, 2, 2, 3, 2).sum((3, 5)))
    assert np.array_equal(event_frames(events, form(clip=1)), np.minimum(whole, 1))


def test_events_are_sorted_and_polarities_become_booleans():
    events = event_array([7, 3, 3], [0, 1, 2], [0, 0, 0], [1, -1, 1], sensor=(1, 3))
    assert events["t"].tolist() == [3, 3, 7]
    assert events["x"].tolist() == [1, 2, 0]  # of one time, in their order
    assert events["p"].tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("columns", "error", "words"),
    [
        (([0], [0], [0], [2]), ConfigError, "polarities 2; 0 and 1, -1 and 1"),
        (([0, 1], [0, 1], [0, 1], [-1, 0]), ConfigError, "polarities -1, 0"),
        (([0], [3], [0], [1]), ConfigError, r"event 0 has x = 3, outside 0\.\.2"),
        (([0], [0], [-1], [1]), ConfigError, "event 0 has y = -1"),
        (([], [], [], []), ConfigError, "holds no event"),
        (([0.5], [0], [0], [1]), ConfigError, "t is float64; whole numbers"),
        (([0, 1], [0], [0], [1]), ShapeError, "columns of shapes"),
        (([[0]], [[0]], [[0]], [[1]]), ShapeError, "four columns of one length"),
    ],
)
def test_wrong_events_are_named(columns, error, words):
    columns = [np.asarray(c, dtype=float if 0.5 in c else int) for c in columns]
    with pytest.raises(error, match=words):
        event_array(*columns, sensor=(2, 3), place="a file")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"crop": (5, 6)}, r"data\.events\.crop is \(5, 6\)"),
        ({"resize": 4}, "does not divide 4 x 6"),
        ({"binning": "times"}, "Did you mean 'time'"),
    ],
)
def test_impossible_frames_are_refused(change, words):
    with pytest.raises(ConfigError, match=words):
        form(**change)


def test_three_pixels_by_hand():
    # C = 1, a sample every 100 us. Pixel 0 rises by 2.5 in the first interval: levels 1 and 2 at
    # 40 and 80 us. Pixel 1 falls by 0.6 twice: level -1 two thirds into the second interval.
    # Pixel 2 rises by 1, wavers within the level it has reached, and falls to 0 in the last one.
    brightness = np.array([[0, 0, 0], [2.5, -0.6, 1.0], [2.5, -1.2, 0.5], [2.5, -1.2, -0.5]])
    events = level_crossings(brightness[:, None, :], contrast=1.0, interval=100)
    assert [tuple(event) for event in events.tolist()] == [
        (40, 0, 0, True),
        (80, 0, 0, True),
        (100, 2, 0, True),
        (167, 1, 0, False),
        (250, 2, 0, False),
    ]


def test_the_path_is_a_closed_triangle():
    path = saccade_path(0.3)
    assert np.allclose(path[0], path[-1])
    assert np.allclose(np.linalg.norm(np.diff(path[[0, 100, 200, 300]], axis=0), axis=1), 2.5)


def test_the_camera_is_deterministic_and_noise_comes_on_top():
    scan = np.kron(np.eye(2), np.ones((4, 4)))
    first, again = (digit_events(scan, row=3) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, digit_events(scan, row=4))
    assert not np.array_equal(first, digit_events(scan, row=3, seed=1))
    noisy = digit_events(scan, row=3, noise=5.0)
    extra = len(noisy) - len(first)
    expected = 5.0 * FIELD**2 * 0.3
    assert abs(extra - expected) < 5 * expected**0.5
    assert np.all(np.diff(noisy["t"]) >= 0)


def test_a_still_field_is_silent():
    assert len(level_crossings(np.ones((10, 2, 2)), 0.2, 1000)) == 0


@pytest.mark.parametrize("entry", ["flip:1", "roll:2", "jitter:0.5"])
def test_augmentation_keeps_every_event(entry):
    from topospike.data.events.augment import EventAugmenter

    counts = torch.randint(0, 4, (5, 3, 2, 6, 7), generator=torch.Generator().manual_seed(0))
    counts = counts.float()
    change = EventAugmenter([entry], "frames")
    once, again, other = (change(counts, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(once, again)
    assert torch.equal(once, once.round())
    assert once.min() >= 0
    assert torch.equal(once.sum((0, 2, 3, 4)), counts.sum((1, 2, 3, 4)))
    assert not torch.equal(once.transpose(0, 1), counts)
    assert entry == "flip:1" or not torch.equal(once, other)
    mean = EventAugmenter([entry], "mean")(counts, seed=1)
    assert torch.allclose(mean, once.mean(0))


def test_jitter_leaves_the_mean_alone_and_flip_mirrors():
    from topospike.data.events.augment import EventAugmenter

    counts = torch.arange(2 * 3 * 2 * 2 * 3, dtype=torch.float32).view(2, 3, 2, 2, 3)
    mean = EventAugmenter(["jitter:1"], "mean")(counts, seed=0)
    assert torch.allclose(mean, counts.mean(1))
    flipped = EventAugmenter(["flip:1"], "stack")(counts, seed=0)
    assert torch.equal(flipped, counts.flip(-1).flatten(1, 2))

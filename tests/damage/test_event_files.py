"""Recordings of events that a user hands over, altered in every way: events or one error."""

import random

import numpy as np
import pytest
from tests.damage.alterations import GENERAL, NPZ
from tests.data.events import formats

from topospike.data.events.readers import read_events
from topospike.errors import TopospikeError

WRITERS = {
    "a.npz": formats.write_npz,
    "a.npy": formats.write_npy,
    "a.h5": formats.write_h5,
    "a.bin": formats.write_bin,
    "b.aedat": formats.write_aedat2,
    "c.aedat": formats.write_aedat3,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.filterwarnings("default::UserWarning")  # NumPy's, on headers that were damaged
def test_a_damaged_recording_is_one_error_and_never_a_traceback(tmp_path, name):
    refused = []
    for way, alter in {**GENERAL, **(NPZ if name.endswith(".npz") else {})}.items():
        path = tmp_path / way / name
        path.parent.mkdir()
        WRITERS[name](path, formats.some_events(0))
        alter(path, random.Random(f"{name} {way}"), tmp_path / "other")
        try:
            events = read_events(path, sensor=formats.SENSOR)
        except TopospikeError as error:
            refused.append((way, str(error)))
        else:
            assert isinstance(events, np.ndarray), way
    assert len(refused) >= 10
    assert [way for way, told in refused if name not in told or len(told) > 1000] == []

"""Writers of event files in every format, for tests."""

import numpy as np

from topospike.data.events import EVENT

SENSOR = (8, 10)


def some_events(seed, *, sensor=SENSOR, count=30, duration=1000):
    generator = np.random.default_rng(seed)
    events = np.empty(count, dtype=EVENT)
    events["t"] = np.sort(generator.integers(0, duration, count))
    events["x"] = generator.integers(0, sensor[1], count)
    events["y"] = generator.integers(0, sensor[0], count)
    events["p"] = generator.integers(0, 2, count)
    return events


def write_npz(path, events):
    np.savez(path, **{name: events[name] for name in events.dtype.names})


def write_npy(path, events):
    np.save(path, events)


def write_h5(path, events):
    import h5py

    with h5py.File(path, "w") as file:
        for name in events.dtype.names:
            file.create_dataset(f"events/{name}", data=events[name])


def write_bin(path, events):
    """Write N-MNIST: x, y, then one bit of polarity and 23 of time, big-endian."""
    content = b"".join(
        bytes([x, y]) + (p << 23 | t).to_bytes(3, "big")
        for t, x, y, p in events.astype([(n, "i8") for n in EVENT.names]).tolist()
    )
    path.write_bytes(content)


def write_aedat2(path, events):
    body = b"".join(
        (y << 8 | (127 - x) << 1 | (1 - p)).to_bytes(4, "big") + t.to_bytes(4, "big")
        for t, x, y, p in events.astype([(n, "i8") for n in EVENT.names]).tolist()
    )
    path.write_bytes(b"#!AER-DAT2.0\r\n# a comment\r\n" + body)


def write_aedat3(path, events, *, packets=2):
    """Write AEDAT 3.1; every packet has one event more that is marked as invalid."""
    content = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#!END-HEADER\r\n"
    for part in np.array_split(events, packets):
        rows = part.astype([(n, "i8") for n in EVENT.names]).tolist()
        body = b"".join(
            (x << 17 | y << 2 | p << 1 | 1).to_bytes(4, "little") + t.to_bytes(4, "little")
            for t, x, y, p in rows
        )
        body += (5 << 17).to_bytes(4, "little") + (0).to_bytes(4, "little")
        number = len(rows) + 1
        header = (1).to_bytes(2, "little") + (0).to_bytes(2, "little")
        header += b"".join(n.to_bytes(4, "little") for n in (8, 4, 0, number, number, number - 1))
        content += header + body
    path.write_bytes(content)


WRITERS = {
    ".npz": write_npz,
    ".npy": write_npy,
    ".h5": write_h5,
    ".bin": write_bin,
    ".aedat": write_aedat2,
}

"""Names of the topologies saved over training."""

from topospike.topology import saved_series, series_path


def test_files_are_found_by_their_number_and_in_its_order(tmp_path):
    for update in (12, 0, 10_000, 9_999):
        path = series_path(tmp_path, update)
        path.parent.mkdir(exist_ok=True)
        path.touch()
    for stray in ("update-3.npz.tmp", "topology.npz", ".update-0001.npz.x1"):
        (tmp_path / "topologies" / stray).touch()
    found = saved_series(tmp_path)
    assert list(found) == [0, 12, 9_999, 10_000]
    assert found[12].name == "update-0012.npz"

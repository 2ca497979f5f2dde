"""The split of every saving, as the page shows it."""

from topospike.measure import split_saving
from topospike.report.cost_tables import SAVING_COLUMNS, saving_table
from topospike.report.folder import read_run
from topospike.report.units import NO_VALUE, percent, plain


def rows_of(folder):
    table = saving_table(read_run(folder))
    assert table is not None
    assert table.columns == SAVING_COLUMNS
    return {row[0]: row[1:] for row in table.rows}


def test_every_converted_network_has_its_split(complete_run, evaluation_of):
    rows = rows_of(complete_run)
    assert list(rows) == ["dense · DCGS", "dense · QCFS", "CHTs · DCGS", "CHTs · QCFS"]
    dense, sparse = (evaluation_of(sparse=sparse, method="dcgs") for sparse in (False, True))
    own, other = split_saving(sparse, 8), split_saving(sparse, 8, reference=dense)
    assert rows["CHTs · DCGS"] == (
        "8",
        percent(1 - own.ratio, 1),
        *(percent(share, 1) for share in own.shares().values()),
        plain(other.ratio),
        plain(other.structural),
        plain(other.temporal),
    )
    assert rows["dense · DCGS"][-3:] == (NO_VALUE,) * 3


def test_without_a_twin_only_the_own_split_is_given(run_writer):
    rows = rows_of(run_writer(dense=False))
    assert {row[-3:] for row in rows.values()} == {(NO_VALUE,) * 3}
    assert all(row[1] != NO_VALUE for row in rows.values())


def test_without_an_evaluation_there_is_no_table(run_writer):
    assert saving_table(read_run(run_writer(methods=()))) is None

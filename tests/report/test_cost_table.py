"""What operations leave out, and a simulated chip, as the page shows them."""

import dataclasses
import json

from topospike.costs import WiderCost
from topospike.report import write_report
from topospike.report.cost_tables import COST_COLUMNS, chip_table, cost_table
from topospike.report.folder import read_run
from topospike.report.units import NO_VALUE, energy, percent

CHIP = {
    "architecture": "loihi", "timesteps": 8, "chip_steps": 10, "images": 4, "cores": 3,
    "neurons": 2100, "links": 9000, "seconds": 41e-6, "spikes": 900.0, "synaptic_events": 4200.0,
    "neuron_updates": 21000.0,
    "energy_joule": {"total": 2e-6, "synapse": 1e-6, "soma": 9e-7, "network": 1e-7},
}  # fmt: skip


def test_both_tables_are_on_the_page(run_writer, evaluation_of):
    folder = run_writer()
    assert cost_table(read_run(folder)) is None  # files of an earlier version
    assert chip_table(read_run(folder)) is None
    place = folder / "conversions" / "qcfs"
    evaluation = evaluation_of(sparse=True, method="qcfs")
    steps = len(evaluation.timesteps)
    falling = tuple(1 / t for t in evaluation.timesteps)
    held = (2e-6,) * steps
    wider = WiderCost((), held, 3e-6, 4e-7, 0.5, falling, falling, evaluation.timesteps)
    dataclasses.replace(evaluation, wider=wider).save(place / "evaluation.json")
    (place / "chip.json").write_text(json.dumps(CHIP))
    table, chips = (make(read_run(folder)) for make in (cost_table, chip_table))
    assert table is not None
    assert chips is not None
    (row,) = table.rows
    cells = dict(zip(COST_COLUMNS, row, strict=True))
    step = int(cells["t"])
    assert cells["network"] == chips.rows[0][0] == "CHTs · QCFS"
    assert cells["neuron updates"] == NO_VALUE
    assert cells["ANN, int8, same links"] == energy(4e-7)
    assert cells["events per link and step"] == percent(1 / step, 2)
    assert chips.rows[0][3:7] == (energy(2e-6), percent(0.5), percent(0.45), percent(0.05))
    page = write_report(folder).read_text()
    assert "What operations leave out" in page
    assert "On a simulated chip" in page

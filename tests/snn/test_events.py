"""The event executor against the decoded one: the same network, the same numbers to rounding."""

import copy
from collections.abc import Callable

import pytest
import torch
from tests.snn.networks import BUILDS, converted
from torch import nn

from topospike.conversion import convert
from topospike.errors import ConfigError
from topospike.measure import evaluate
from topospike.snn import SpikingNetwork
from topospike.snn.executors import EXECUTORS
from topospike.snn.executors.events import REFRESH, EventForm, EventState
from topospike.snn.executors.forms import CostModel

ALWAYS = CostModel(dense_mac=1e9)
NEVER = CostModel(call=1e18)


def forms(snn: SpikingNetwork, x: torch.Tensor, steps: int) -> dict[str, list[str]]:
    """Which form each layer took, by running the network's own program."""
    program = snn.program(EXECUTORS["event"])
    names = [form.name for form in program.forms if isinstance(form, EventForm)]
    taken: dict[str, list[str]] = {name: [] for name in names}
    state = program.start((x,))
    for t in range(1, steps + 1):
        _, state = program.step(t, state)
        held = (layer for layer in state.layers if isinstance(layer, EventState))
        for name, layer in zip(names, held, strict=True):
            taken[name].append(layer.form)
    return taken


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [(name, {}) for name in BUILDS]
    + [(name, {"coding": "rate"}) for name in ("overlapping pool", "residual", "on the way")]
    + [(name, {"coding": "sigma-delta"}) for name in ("residual", "few links")]
    + [(name, {"method": "qcfs"}) for name in ("odd", "few links")],
    ids=str,
)
def test_both_executors_give_the_same_logits(name: str, options: dict[str, str]) -> None:
    snn, x = converted(name, **options)
    expected = snn(x, 6)
    for costs in (ALWAYS, CostModel(), NEVER):
        snn.costs = costs
        torch.testing.assert_close(snn(x, 6, executor="event"), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "followers"),
    [("average pool", 4), ("max pool", 4), ("odd", 5), ("residual", 4), ("few links", 4),
     ("on the way", 1)],
)  # fmt: skip
def test_layers_fed_by_sites_follow_events_from_the_second_step_on(
    name: str, followers: int
) -> None:
    snn, x = converted(name)
    snn.costs = ALWAYS
    taken = forms(snn, x, 3)
    assert len(taken) == followers
    assert all(course == ["dense", "events", "events"] for course in taken.values())
    snn.costs = NEVER
    assert all(course == ["dense"] * 3 for course in forms(snn, x, 3).values())


def test_the_cost_model_chooses_by_the_number_of_events() -> None:
    snn, x = converted("average pool")
    layer = "2"
    program = snn.program(EXECUTORS["event"])
    size = next(e.size for e in program.forms if isinstance(e, EventForm) and e.name == layer)
    # dearer per event than dense as long as more than one element in ten fires
    snn.costs = CostModel(dense_mac=1.0, row_mac=10.0, scan=0.0, byte=0.0, call=0.0)
    course = forms(snn, x, 12)[layer]
    counts = []
    for step in snn.watch(x, 12):
        spikes = step.sites["1"].spikes
        assert spikes is not None
        counts.append(int(spikes.count_nonzero()))
    few = ["events" if n < len(x) * size.elements / 10 else "dense" for n in counts]
    assert course[1:] == few[1:]
    assert {"events", "dense"} == set(course[1:])


def test_layers_are_refreshed_so_that_rounding_cannot_add_up() -> None:
    snn, x = converted("average pool")
    snn.costs = ALWAYS
    course = forms(snn, x, 2 * REFRESH + 1)["2"]
    assert [t for t, form in enumerate(course) if form == "dense"] == [0, REFRESH, 2 * REFRESH]


def test_float32_drifts_by_rounding_only() -> None:
    snn, x = converted("average pool")
    snn.costs = ALWAYS
    snn = snn.float()
    decoded = snn(x.float(), REFRESH)
    event = snn(x.float(), REFRESH, executor="event")
    # a spike may flip at an exact tie; the decoded values agree on average
    assert (event - decoded).abs().mean() < 1e-3 * decoded.abs().mean()


def test_spikes_are_those_of_the_decoded_executor() -> None:
    snn, x = converted("residual")
    seen = []
    for executor in ("decoded", "event"):
        snn.costs, snn.executor = ALWAYS, executor
        steps = snn.watch(x, 5)
        seen.append([[s.spikes.clone() for s in step.sites.values()] for step in steps])  # pyright: ignore[reportOptionalMemberAccess]
    for one, other in zip(*seen, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", ["max pool", "residual"])
def test_what_is_measured_does_not_depend_on_the_executor(name: str) -> None:
    snn, x = converted(name)
    snn.costs, labels = ALWAYS, torch.zeros(len(x), dtype=torch.int64)
    decoded = evaluate(snn, [(x, labels)], 4)
    snn.executor = "event"
    assert evaluate(snn, [(x, labels)], 4) == decoded


EDITS: dict[str, Callable[[torch.Tensor], object]] = {
    "in place": lambda w: w.mul_(0.5),
    "data": lambda w: w.data.mul_(0.5),
    "data replaced": lambda w: setattr(w, "data", w.data * 0.5),
    "one column": lambda w: w.data[:, 1].add_(0.7),
    "order of outputs": lambda w: w.data.copy_(w.data.flip(0).clone()),
    "order of inputs": lambda w: w.data.copy_(w.data.flip(1).clone()),
}


@pytest.mark.slow
@pytest.mark.parametrize("edit", list(EDITS))
@pytest.mark.parametrize("executor", ["decoded", "bf16", "event"])
@torch.no_grad()
def test_every_executor_sees_every_edit_of_a_weight(executor: str, edit: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(),
        nn.AvgPool2d(4), nn.Flatten(), nn.Linear(128, 520), nn.ReLU(), nn.Linear(520, 4),
    ).eval()  # fmt: skip
    model[6].weight.mul_(torch.rand_like(model[6].weight) < 0.04)  # runs on its links alone
    x = torch.randn(8, 2, 16, 16)
    snn = convert(model, calibration=[x])
    snn.costs = ALWAYS
    before = snn(x, 4, executor=executor)
    for name in ("2.weight", "6.weight"):
        EDITS[edit](snn.ann.get_parameter(name))
        after = snn(x, 4, executor=executor)
        assert not torch.equal(before, after)
        assert torch.equal(copy.deepcopy(snn)(x, 4, executor=executor), after)
        before = after


def test_threads_do_not_change_the_result() -> None:
    snn, x = converted("average pool")
    snn.costs, many = ALWAYS, x.repeat(30, 1, 1, 1)  # steps() keeps them together
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            steps = snn.steps(many, 3, executor="event")
            results.append(torch.stack([logits.clone() for _, logits in steps]))
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-9)


def test_linear_layers_with_one_link_in_a_hundred_run_on_their_links() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(40, 300), nn.ReLU(), nn.Linear(300, 300), nn.ReLU(), nn.Linear(300, 4)
    )
    with torch.no_grad():
        model[2].weight.mul_(torch.rand(300, 300) < 0.01)
    x = torch.randn(33, 40, dtype=torch.float64)
    snn = convert(model.double(), calibration=[x])
    assert [form.node.name for form in snn.program(EXECUTORS["decoded"]).forms] == ["linear_1"]
    sparse = snn(x, 5)
    with torch.no_grad():  # every link there, most of them tiny: the dense product is taken
        model[2].weight.add_(1e-30)
    thresholds = {name: site.threshold for name, site in snn.sites.items()}
    dense = convert(model, calibration=[x], thresholds=thresholds)
    assert not dense.program(EXECUTORS["decoded"]).forms
    torch.testing.assert_close(sparse, dense(x, 5), rtol=1e-9, atol=1e-9)


def test_unusable_executors_are_refused() -> None:
    snn, x = converted("average pool")
    with pytest.raises(ConfigError, match=r"unknown executor 'events'.*Did you mean 'event'"):
        snn(x, 2, executor="events")
    with pytest.raises(ConfigError, match=r"a network in torch\.bfloat16 on cpu"):
        snn.bfloat16()(x.bfloat16(), 2, executor="event")


def test_a_measured_cost_model_is_usable() -> None:
    model = CostModel.measured()
    assert model.dense_mac > 0
    assert model.scan > 0

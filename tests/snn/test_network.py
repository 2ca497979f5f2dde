"""The simulation: exact properties of whole networks, and the QCFS reference networks."""

import copy
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from topospike.conversion import convert
from topospike.models.qcfs import QCFS
from topospike.snn import SpikingNetwork
from topospike.snn.batches import images_at_once
from topospike.snn.executors import EXECUTORS

ORACLES = Path(__file__).parents[1] / "oracles" / "qcfs"


def network(**options) -> tuple[SpikingNetwork, torch.Tensor, nn.Module]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(),
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(54, 12), nn.ReLU(), nn.Linear(12, 5),
    ).double().eval()  # fmt: skip
    x = torch.randn(16, 2, 6, 6, dtype=torch.float64)
    return convert(model, calibration=[x], **options), x, model


@pytest.mark.parametrize("coding", ["differential", "rate"])
def test_a_longer_run_begins_like_a_shorter_one(coding: str) -> None:
    snn, x, _ = network(coding=coding)
    assert torch.equal(snn(x, 9)[:4], snn(x, 4))


@pytest.mark.parametrize("coding", ["differential", "rate"])
def test_images_do_not_influence_each_other(coding: str) -> None:
    snn, x, _ = network(coding=coding)
    together = snn(x, 5)
    for i in (0, 7):
        torch.testing.assert_close(snn(x[i : i + 1], 5)[:, 0], together[:, i], rtol=1e-9, atol=1e-9)


def test_repeated_runs_are_identical_and_the_input_is_left_alone() -> None:
    snn, x, _ = network()
    kept = x.clone()
    one = snn(x, 6)
    snn(x[:3], 2)  # another batch size in between
    assert torch.equal(snn(x, 6), one)
    assert torch.equal(x, kept)


def test_an_abandoned_run_leaves_nothing_behind() -> None:
    snn, x, model = network()
    before = {name: dict(vars(site)) for name, site in snn.sites.items()}
    steps = snn.watch(x, 8)
    assert all(held.decoded is not None for held in next(steps).sites.values())
    steps.close()
    snn.reset()
    assert {name: vars(site) for name, site in snn.sites.items()} == before
    torch.testing.assert_close(snn.analog(x), model(x))


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["decoded", "bf16", "event"])
@pytest.mark.parametrize("method", ["dcgs", "qcfs"])
def test_a_network_may_be_run_several_times_at_once(method: str, executor: str) -> None:
    snn, x, _ = network(method=method)
    snn.executor = executor
    one, other = x[:8], x[8:11]
    expected = [[out.clone() for _, out in snn.steps(images, 5)] for images in (one, other)]
    runs = zip(snn.steps(one, 5), snn.steps(other, 5), strict=True)
    for t, ((_, first), (_, second)) in enumerate(runs):
        assert torch.equal(first, expected[0][t])
        snn(x, 2)
        snn.analog(x)
        assert torch.equal(second, expected[1][t])


def test_a_kept_state_is_a_value_to_go_on_from() -> None:
    snn, x, _ = network(coding="sigma-delta")
    program = EXECUTORS["decoded"].prepare(snn)
    state = program.start((x,))
    for t in range(1, 40):
        logits, state = program.step(t, state)
        if state.is_silent:
            break
    assert state.is_silent
    settled = logits.clone()
    # the same images again: nothing to say; others: what has changed, from where it stood
    again, state = program.step(1, program.start((x,), state))
    assert state.is_silent
    torch.testing.assert_close(again, settled)
    moved = x + 0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).double()
    _, state = program.step(1, program.start((moved,), state))
    assert not state.is_silent


def test_state_dict_holds_weights_and_thresholds_but_no_run() -> None:
    snn, x, _ = network()
    before = {name: value.clone() for name, value in snn.state_dict().items()}
    snn(x, 3)
    assert before.keys() == snn.state_dict().keys()
    assert "ann.0.weight" in before
    assert sum(name.endswith("threshold") for name in before) == 3
    assert all(torch.equal(before[name], value) for name, value in snn.state_dict().items())


def test_copies_are_independent_and_dtype_follows() -> None:
    snn, x, _ = network()
    twin = copy.deepcopy(snn)
    assert torch.equal(twin(x, 4), snn(x, 4))
    with torch.no_grad():
        twin.ann.get_parameter("8.bias").add_(1.0)
    torch.testing.assert_close(twin(x, 4), snn(x, 4) + 1.0)
    single = twin.float()(x.float(), 4)
    assert single.dtype == torch.float32
    assert twin.sites["1"].threshold.dtype == torch.float32


def test_thresholds_and_inputs_scaled_by_two_scale_the_logits_exactly() -> None:
    # a power of two changes exponents only, so every decision stays the same
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(8, 20, bias=False), nn.ReLU(), nn.Linear(20, 4, bias=False)
    ).eval()
    x = torch.randn(32, 8)
    thresholds = {"1": convert(model, calibration=[x]).sites["1"].threshold}
    one = convert(model, calibration=[x], thresholds=thresholds)
    two = convert(model, calibration=[x], thresholds={"1": 2.0 * thresholds["1"]})
    assert torch.equal(two(2.0 * x, 8), 2.0 * one(x, 8))


def test_memory_does_not_grow_with_time() -> None:
    snn, x, _ = network()
    held = []
    for step in snn.watch(x, 40):
        if step.t in (2, 40):
            sites = list(step.sites.values())
            state = [s.decoded for s in sites] + [s.spikes for s in sites]
            held.append(sum(tensor.numel() for tensor in state if tensor is not None))
    assert held[0] == held[1]


def test_the_part_that_depends_on_the_image_runs_once() -> None:
    snn, x, _ = network()
    program = snn.program(EXECUTORS["decoded"])
    image_part, step_part = program.image_part, program.step_part
    calls = {"image": 0, "step": 0}

    def counted(name: str, part):
        def call(*args):
            calls[name] += 1
            return part(*args)

        return call

    program.image_part = counted("image", image_part)
    program.step_part = counted("step", step_part)
    snn(x, 7)
    assert calls == {"image": 1, "step": 7}
    assert "conv2d" in image_part.__code__.co_names
    assert step_part.__code__.co_names.count("conv2d") == 1  # only the second convolution


def test_an_error_inside_a_run_shows_the_line() -> None:
    snn, x, _ = network()
    snn.ann.get_parameter("6.weight").data = torch.zeros(12, 53).double()
    with pytest.raises(RuntimeError) as caught:
        snn(x, 2)
    lines = [str(entry.statement) for entry in caught.traceback if "graph" in str(entry.path)]
    assert any("linear" in line for line in lines)


# ------------------------------------------------------------------ QCFS reference networks


def oracle(name: str) -> dict[str, np.ndarray]:
    with np.load(ORACLES / f"{name}.npz", allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def tiny_vgg() -> nn.Module:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(48, 24), nn.ReLU(), nn.Dropout(), nn.Linear(24, 10),
    )  # fmt: skip
    return nn.Sequential(OrderedDict(net=net))


class ReferenceBlock(nn.Module):
    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        stride = 2 if n_in != n_out else 1
        self.residual_function = nn.Sequential(
            nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU(),
            nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False), nn.BatchNorm2d(n_out),
        )  # fmt: skip
        self.shortcut = nn.Sequential()
        if n_in != n_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(n_in, n_out, 1, 2, bias=False), nn.BatchNorm2d(n_out)
            )
        self.act = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.residual_function(x) + self.shortcut(x))


def tiny_resnet() -> nn.Module:
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Sequential(
                nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()
            ),
            conv2_x=nn.Sequential(ReferenceBlock(16, 16)),
            conv3_x=nn.Sequential(ReferenceBlock(16, 32)),
            conv4_x=nn.Sequential(ReferenceBlock(32, 64)),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc=nn.Linear(64, 10),
        )
    )


CASES = [
    ("tiny_vgg", tiny_vgg, (1, 4, 8), ("net.2", "net.6", "net.10")),
    ("tiny_resnet", tiny_resnet, (2, 8), None),
]


def load_case(name: str, build, sites):
    arrays = oracle(name)
    model = build().double()
    weights = {
        key[2:]: torch.from_numpy(value)
        for key, value in arrays.items()
        if key.startswith("w:") and "thresh" not in key
    }
    model.load_state_dict(weights)
    names = sites or tuple(str(name) for name in arrays["if_names"])
    thresholds = {n: float(arrays[f"w:{n}.thresh"].astype(np.float64).item()) for n in names}
    return arrays, model.eval(), torch.from_numpy(arrays["input"]).double(), thresholds


@pytest.mark.parametrize(("name", "build", "lengths", "sites"), CASES, ids=lambda v: str(v)[:11])
def test_integrate_and_fire_networks_equal_the_reference_at_every_step(
    name: str,
    build,
    lengths: tuple[int, ...],
    sites: tuple[str, ...] | None,
) -> None:
    arrays, model, x, thresholds = load_case(name, build, sites)
    snn = convert(model, "qcfs", [x], thresholds=thresholds)
    assert list(snn.sites) == list(thresholds)
    for length in lengths:
        logits = []
        spikes = {site: [] for site in thresholds}
        for step in snn.watch(x, length):
            logits.append(step.logits.clone().numpy())
            for site, counts in spikes.items():
                emitted = step.sites[site].spikes
                assert emitted is not None
                counts.append(int(emitted.count_nonzero()))
        np.testing.assert_allclose(logits, arrays[f"snn_T{length}_cummean"], rtol=0, atol=1e-9)
        for i, counts in enumerate(spikes.values()):
            assert counts == arrays[f"snn_T{length}_spikes_{i}"].tolist()


@pytest.mark.parametrize(("name", "build", "lengths", "sites"), CASES, ids=lambda v: str(v)[:11])
def test_quantised_anns_equal_the_reference(
    name: str,
    build,
    lengths: tuple[int, ...],
    sites: tuple[str, ...] | None,
) -> None:
    arrays, model, x, thresholds = load_case(name, build, sites)
    for steps in (4, 8):
        if f"ann_L{steps}_logits" not in arrays:
            continue
        quantised = copy.deepcopy(model)
        for site, theta in thresholds.items():
            quantised.set_submodule(
                site, QCFS(steps=steps, theta_init=theta, positive_map="none").double()
            )
        np.testing.assert_allclose(
            quantised(x).detach().numpy(), arrays[f"ann_L{steps}_logits"], rtol=0, atol=1e-9
        )


@pytest.mark.parametrize(("name", "build", "lengths", "sites"), CASES, ids=lambda v: str(v)[:11])
def test_one_step_equals_the_one_level_ann_at_any_depth(
    name: str,
    build,
    lengths: tuple[int, ...],
    sites: tuple[str, ...] | None,
) -> None:
    """T-C: after one step the membrane has had no time to matter."""
    _, model, x, thresholds = load_case(name, build, sites)
    snn = convert(model, "qcfs", [x], thresholds=thresholds)
    for site, theta in thresholds.items():
        model.set_submodule(site, QCFS(steps=1, theta_init=theta, positive_map="none").double())
    torch.testing.assert_close(snn(x, 1)[0], model(x), rtol=0, atol=1e-9)


def test_a_large_batch_is_simulated_in_parts_with_the_same_result() -> None:
    snn, x, _ = network()
    many = x.repeat(3, 1, 1, 1)[:41]
    assert images_at_once(snn.ann) < len(many) // 2
    together = torch.stack([logits.clone() for _, logits in snn.steps(many, 4)])
    torch.testing.assert_close(snn(many, 4), together, rtol=1e-9, atol=1e-9)

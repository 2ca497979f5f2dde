"""Operations counted against one event at a time, on random graphs, by derivatives in float64.

The truth knows nothing of graphs: it is the derivative of the model's own Python between a site
and a layer, and of the layer, with random numbers for weights. A neuron's event crosses every
existing link that leaves a position it moves.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import topospike as ts
from topospike.topology import register_mask

IMAGES, STEPS, CHANNELS, SIZE = 3, 3, 4, 6

Stream = Callable[["Branch", Tensor, Tensor], Tensor]


def other(y: Tensor, z: Tensor) -> Tensor:
    """The second stream, or the first one turned round where shapes have drifted apart."""
    return z if z.shape == y.shape else y.flip(-1)


BETWEEN: dict[str, Stream] = {
    "sum": lambda net, y, z: y + other(y, z),
    "difference": lambda net, y, z: y - other(y, z),
    "alpha": lambda net, y, z: torch.add(y, other(y, z), alpha=0.25),
    "one minus": lambda net, y, z: 1 - y,
    "rsub": lambda net, y, z: torch.rsub(y, other(y, z), alpha=2),
    "lerp": lambda net, y, z: torch.lerp(y, other(y, z), 0.3),
    "factor": lambda net, y, z: -0.5 * y,
    "quotient": lambda net, y, z: y / 3.0,
    "gain": lambda net, y, z: y * net.gain[: y.shape[-1]],
    "closed gates": lambda net, y, z: y * net.gate[: y.shape[-1]],
    "hidden": lambda net, y, z: y.masked_fill(net.gate[: y.shape[-1]] == 0, 2.0),
    "shift": lambda net, y, z: y + net.gain[: y.shape[-1]],
    "concatenation": lambda net, y, z: torch.cat([y, other(y, z)], 1),
    "stack": lambda net, y, z: torch.stack([y, other(y, z)], 1).flatten(1, 2),
    "slice": lambda net, y, z: y[:, 1:, ::2],
    "index": lambda net, y, z: y[:, [0, 0, -1]],
    "flip": lambda net, y, z: y.flip(-1),
    "roll": lambda net, y, z: y.roll(1, -1),
    "repeat": lambda net, y, z: y.repeat(1, 2, 1, 1),
    "nearest": lambda net, y, z: F.interpolate(y, scale_factor=2),
    "bilinear": lambda net, y, z: F.interpolate(y, size=(5, 7), mode="bilinear"),
    "corners": lambda net, y, z: F.interpolate(
        y, size=(7, 4), mode="bilinear", align_corners=True
    ),
    "shuffle": lambda net, y, z: F.pixel_shuffle(y.repeat(1, 4, 1, 1), 2),
    "average": lambda net, y, z: F.avg_pool2d(y, 2),
    "overlapping": lambda net, y, z: F.avg_pool2d(y, 3, 2, 1),
    "adaptive": lambda net, y, z: F.adaptive_avg_pool2d(y, (2, 3)),
    "pool minus itself": lambda net, y, z: F.avg_pool2d(y, 3, 1, 1) - y,
    "mean": lambda net, y, z: y.mean(2, keepdim=True),
    "total": lambda net, y, z: y.sum(1, keepdim=True),
    "centred": lambda net, y, z: y - y.mean(-1, keepdim=True),
    "padding": lambda net, y, z: F.pad(y, (1, 0, 0, 1), value=1.0),
    "reflection": lambda net, y, z: F.pad(y, (1, 1, 0, 0), mode="reflect"),
    "patches": lambda net, y, z: F.unfold(y, 2, stride=2).unflatten(1, (y.shape[1], 4)),
    "batch and channels": lambda net, y, z: (
        y.flatten(0, 1).unsqueeze(1).unflatten(0, (-1, y.shape[1])).squeeze(2)
    ),
    "transposed": lambda net, y, z: y.transpose(1, 3),
    "squared": lambda net, y, z: y * y,
    "inverse": lambda net, y, z: 1 / (y + 1),
}  # fmt: skip


class Weighted(nn.Module):
    """The layer at the end: one way of using a masked weight on a map of any shape."""

    def __init__(self, way: str, like: Tensor) -> None:
        super().__init__()
        self.way = way
        c, h, w = like.shape[1:]
        flat = c * h * w
        shapes = {
            "conv": (5, c, 3, 3), "strided": (5, c, 2, 2), "dilated": (5, c, 2, 2),
            "depthwise": (2 * c, 1, 3, 3), "transposed conv": (c, 3, 3, 3), "linear": (5, flat),
            "turned": (flat, 5), "sliced": (9, flat), "features": (5, w), "product": (w, 5),
            "left product": (5, h), "two factors": (5, 3), "normalised": (5, flat),
            "views": (5, w), "scaled": (5, flat),
        }  # fmt: skip
        self.weight = nn.Parameter(torch.randn(shapes[way]))
        self.second = nn.Parameter(torch.randn(3, flat if way == "two factors" else 1))

    def forward(self, y: Tensor) -> Tensor:
        w = self.weight
        return {
            "conv": lambda: F.conv2d(y, w, padding=1),
            "strided": lambda: F.conv2d(y, w, stride=2, padding=1),
            "dilated": lambda: F.conv2d(y, w, dilation=2, padding=1),
            "depthwise": lambda: F.conv2d(y, w, padding="same", groups=y.shape[1]),
            "transposed conv": lambda: F.conv_transpose2d(y, w, stride=2, padding=1),
            "linear": lambda: F.linear(y.flatten(1), w),
            "turned": lambda: F.linear(y.flatten(1), w.t()),
            "sliced": lambda: F.linear(y.flatten(1), w[2:7]),
            "features": lambda: F.linear(y, w),
            "product": lambda: y @ w,
            "left product": lambda: w @ y,
            "two factors": lambda: F.linear(y.flatten(1), w @ self.second),
            "normalised": lambda: F.linear(y.flatten(1), F.normalize(w)),
            "views": lambda: F.linear(y.flatten(0, 1), w).unflatten(0, (-1, y.shape[1])),
            "scaled": lambda: F.linear(y.flatten(1), 0.5 * w / w.abs().max()),
        }[self.way]()


WAYS = (
    "conv", "strided", "dilated", "depthwise", "transposed conv", "linear", "turned", "sliced",
    "features", "product", "left product", "two factors", "normalised", "views", "scaled",
)  # fmt: skip


class Branch(nn.Module):
    """A few operations between the sites and a layer, that layer with a random mask, and a head."""

    def __init__(self, between: tuple[str, ...], way: str, density: float) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.rand(64) + 0.5)
        self.register_buffer("gate", (torch.rand(64) < 0.6).float())
        self.between = between
        blank = torch.zeros(1, CHANNELS, SIZE, SIZE)
        self.layer = Weighted(way, self.middle(blank, blank))
        register_mask(self.layer, torch.rand(self.layer.weight.shape) < density)
        self.head = nn.Linear(self.layer(self.middle(blank, blank)).flatten(1).shape[1], 2)

    def middle(self, y: Tensor, z: Tensor) -> Tensor:
        for name in self.between:
            y = BETWEEN[name](self, y, z)
        return y

    def forward(self, y: Tensor, z: Tensor) -> Tensor:
        return self.head(torch.tanh(self.layer(self.middle(y, z))).flatten(1))


class Net(nn.Module):
    """Two sites that feed several branches."""

    def __init__(self, branches: list[tuple[tuple[str, ...], str]], density: float) -> None:
        super().__init__()
        self.a, self.b = (nn.Conv2d(1, CHANNELS, 3, padding=1) for _ in range(2))
        self.first, self.other = nn.ReLU(), nn.ReLU()
        self.branches = nn.ModuleList(Branch(*branch, density) for branch in branches)

    def forward(self, x: Tensor) -> Tensor:
        y, z = self.first(self.a(x)), self.other(self.b(x))
        first = y.flatten(1).sum(1, keepdim=True) + z.flatten(1).sum(1, keepdim=True)
        return sum((branch(y, z) for branch in self.branches), first)


def moved(function: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    """Which outputs a change of each input moves: bool (outputs, inputs), at a random place."""
    place = torch.rand(like.shape, dtype=torch.float64) + 0.1
    jacobian = torch.func.jacrev(function)(place)
    return jacobian.reshape(-1, like.numel()).abs() > 1e-9


@dataclass
class Truth:
    """Links that an event of each neuron of a whole batch crosses, and the links of one image."""

    first: Tensor
    other: Tensor
    links: float


def truth(branch: Branch) -> Truth:
    """Follow one event at a time through the model's own code."""
    sent = torch.zeros(IMAGES, CHANNELS, SIZE, SIZE)
    leaving = moved(branch.layer, branch.middle(sent, sent)).sum(0).double()
    still = torch.rand(sent.shape, dtype=torch.float64)
    reached = (
        moved(lambda y: branch.middle(y, still), sent),
        moved(lambda z: branch.middle(still, z), sent),
    )
    first, other = ((leaving @ r.double()).view(sent.shape) for r in reached)
    return Truth(first, other, float(leaving.sum()) / IMAGES)


def counted(branches: list[tuple[tuple[str, ...], str]], density: float, seed: int) -> list[str]:
    """Compare every branch; return how each of the layers is fed."""
    torch.manual_seed(seed)
    net = Net(branches, density).eval()
    x = torch.rand(IMAGES, 1, SIZE, SIZE)
    snn = ts.convert(net, calibration=[x], timesteps=STEPS, scheme="relu")
    run = ts.evaluate(snn, [(x, torch.zeros(IMAGES, dtype=torch.int64))], STEPS)
    assert max(max(site.firing_rate) for site in run.sites) <= 1
    fired = {name: torch.zeros(IMAGES, CHANNELS, SIZE, SIZE) for name in snn.sites}
    for step in snn.watch(x, STEPS):
        for name, total in fired.items():
            total += step.sites[name].spikes != 0
    net.double()
    fed = []
    for number, branch in enumerate(net.branches):
        place = f"branches.{number}.layer"
        (layer,) = [la for la in run.layers if f"{la.name}.".startswith(f"{place}.")]
        expected = truth(branch)
        assert layer.macs == expected.links, branches[number]
        events = sum(float((fired[name] * getattr(expected, name)).sum()) for name in fired)
        if layer.input == "graded":
            assert (layer.sops[-1], layer.snn_macs[-1]) == (0.0, layer.macs * STEPS)
        else:
            assert layer.sops[-1] * IMAGES == pytest.approx(events, rel=1e-12), branches[number]
        fed.append(layer.input)
    return fed


BRANCH = st.tuples(
    st.lists(st.sampled_from(sorted(BETWEEN)), min_size=1, max_size=3).map(tuple),
    st.sampled_from(WAYS),
)


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=3, suppress_health_check=list(HealthCheck))
@given(st.lists(BRANCH, min_size=6, max_size=6), st.sampled_from((0.3, 1.0)), st.integers(0, 99))
def test_operations_are_those_of_one_event_at_a_time(branches, density: float, seed: int) -> None:
    fed = counted(branches, density, seed)
    for (between, _), way in zip(branches, fed, strict=True):
        assert (way == "graded") == bool({*between} & {"squared", "inverse"})


@pytest.mark.slow
def test_every_operation_between_counts_or_is_no_spike() -> None:
    names = sorted(BETWEEN)
    fed = counted([((name,), "linear") for name in names], 0.5, seed=1)
    graded = {name for name, way in zip(names, fed, strict=True) if way == "graded"}
    assert graded == {"squared", "inverse"}


def test_every_way_of_using_a_masked_weight_counts() -> None:
    fed = counted([(("difference",), way) for way in WAYS], 0.3, seed=2)
    assert fed == ["spikes"] * len(WAYS)

"""Links come from the weight expression, however a weight is written and whoever owns the mask."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

import topospike as ts
from topospike.topology import register_mask
from topospike.wiring.layers import Layer


def layers(model: nn.Module, size: int = 6) -> dict[str, Layer]:
    torch.manual_seed(0)
    snn = ts.convert(model.eval(), calibration=[torch.rand(16, size)], scheme="relu")
    return {layer.name: layer for layer in snn.wiring}


class Written(nn.Module):
    """A layer whose weight is written in some way from a masked parameter of 6 x 6."""

    def __init__(self, write: Callable[["Written"], Tensor]) -> None:
        super().__init__()
        self.fc, self.part, self.head = nn.Linear(6, 6), nn.Module(), nn.Linear(6, 2)
        self.part.weight = nn.Parameter(torch.randn(6, 6))
        self.free = nn.Parameter(torch.randn(6, 6))
        self.register_buffer("kept", (torch.rand(6, 6) < 0.5).float())
        register_mask(self.part, torch.rand(6, 6) < 0.4)
        self.write = write

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(F.linear(torch.relu(self.fc(x)), self.write(self))))


EXPRESSIONS: dict[str, tuple[Callable, Callable]] = {
    "itself": (lambda n: n.part.weight, lambda m, n: m),
    "transposed": (lambda n: n.part.weight.t(), lambda m, n: m.t()),
    "turned": (lambda n: n.part.weight.flip(0).roll(1, 1), lambda m, n: m.flip(0).roll(1, 1)),
    "pieces": (
        lambda n: torch.cat([n.part.weight[3:], n.free[:3]]),
        lambda m, n: torch.cat([m[3:], torch.ones(3, 6, dtype=torch.bool)]),
    ),
    "chunk": (lambda n: n.part.weight.repeat(3, 1).chunk(3)[1], lambda m, n: m),
    "sum": (lambda n: n.part.weight + n.free.tril(), lambda m, n: m | torch.ones_like(m).tril()),
    "difference": (lambda n: n.part.weight - n.part.weight.t(), lambda m, n: m | m.t()),
    "buffer": (lambda n: n.free * n.kept + 0 * n.part.weight, lambda m, n: n.kept.bool()),
    "both": (lambda n: n.part.weight * n.kept, lambda m, n: m & n.kept.bool()),
    "normalised": (lambda n: F.normalize(n.part.weight, dim=1), lambda m, n: m),
    "scaled": (lambda n: n.part.weight / n.part.weight.abs().max(), lambda m, n: m),
    "bounded": (lambda n: torch.tanh(n.part.weight), lambda m, n: m),
    "product": (
        lambda n: n.part.weight @ n.part.weight,
        lambda m, n: (m.float() @ m.float()) > 0,
    ),
    "where": (
        lambda n: torch.where(n.kept > 0, n.part.weight, n.free * 0.1),
        lambda m, n: torch.where(n.kept > 0, m, torch.ones_like(m)),
    ),
    "shifted": (lambda n: n.part.weight + 1.0, lambda m, n: torch.ones_like(m)),
}  # fmt: skip


@pytest.mark.parametrize("written", sorted(EXPRESSIONS))
def test_links_are_the_weight_expression_of_the_masks(written: str) -> None:
    torch.manual_seed(1)
    write, expected = EXPRESSIONS[written]
    model = Written(write)
    (layer,) = [la for name, la in layers(model).items() if name not in ("fc", "head")]
    assert layer.fed_by == "spikes"
    assert layer.links is not None
    assert torch.equal(layer.links, expected(model.part.weight_mask, model))


def test_an_expression_that_hides_the_links_is_counted_as_mac_and_named() -> None:
    model = Written(lambda net: torch.softmax(net.part.weight, 1))
    (layer,) = [la for name, la in layers(model).items() if name not in ("fc", "head")]
    assert layer.fed_by == "graded"
    assert "links unknown" in layer.reason
    assert layer.macs == 36


def test_a_tied_weight_has_its_mask_in_both_places() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode, self.decode = nn.Linear(6, 6), nn.Linear(6, 6)
            self.decode.weight = self.encode.weight
            self.head = nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(self.decode(torch.relu(self.encode(x)))))

    model = Tied()
    register_mask(model.encode, torch.rand(6, 6) < 0.4)
    links = [la.links for name, la in layers(model).items() if name != "head"]
    assert all(torch.equal(each, model.encode.weight_mask) for each in links)


def chain(layer: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 6), nn.ReLU(), layer, nn.ReLU(), nn.Linear(6, 2))


def test_masks_of_other_tools_are_links() -> None:
    torch.manual_seed(0)
    pruned = nn.Linear(6, 6)
    prune.random_unstructured(pruned, "weight", 0.5)
    assert torch.equal(layers(chain(pruned))["2"].links, pruned.weight_mask.bool())
    kept = nn.Linear(6, 6)
    kept.register_buffer("weight_mask", (torch.rand(6, 6) < 0.5).float())
    kept.weight.data *= kept.weight_mask
    assert torch.equal(layers(chain(kept))["2"].links, kept.weight_mask.bool())


@pytest.mark.parametrize(
    "normed",
    [
        parametrizations.weight_norm, parametrizations.spectral_norm, nn.utils.spectral_norm,
        parametrizations.orthogonal,
    ],
    ids=lambda norm: f"{norm.__module__.rpartition('.')[2]}.{norm.__name__}",
)  # fmt: skip
def test_a_reparametrised_layer_keeps_its_name_and_all_its_links(normed) -> None:
    layer = layers(chain(normed(nn.Linear(6, 6))))["2"]
    assert (layer.fed_by, layer.macs) == ("spikes", 36)


def test_many_zeros_without_a_mask_are_links_and_the_report_says_so() -> None:
    model = chain(nn.Linear(6, 6))
    model[2].weight.data[:3] = 0
    snn = ts.convert(model, calibration=[torch.rand(16, 6)])
    (sentence,) = [line for line in snn.report.advice if "exactly 0" in line]
    assert sentence.startswith("2: 50%")
    assert snn.wiring[1].macs == 36
    register_mask(model[2], model[2].weight != 0)
    sparse = ts.convert(model, calibration=[torch.rand(16, 6)])
    assert sparse.wiring[1].macs == 18
    assert not [line for line in sparse.report.advice if "exactly 0" in line]

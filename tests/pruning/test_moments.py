"""Statistics of inputs: any split of the images, and unfolding like torch's own convolutions."""

import pytest
import torch
from torch import nn

from topospike.errors import NonFiniteError
from topospike.models import capture
from topospike.pruning.links import LAYER_OPS
from topospike.pruning.moments import Geometry, InputMoments, geometry_of, input_columns
from topospike.topology import bipartite_graphs

GENERATOR = torch.Generator().manual_seed(0)

PLANAR = [
    nn.Conv2d(4, 6, 3, padding=1),
    nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(0, 2), dilation=(1, 2)),
    nn.Conv2d(4, 6, 3, groups=2, bias=False),
    nn.Conv2d(4, 6, (3, 5), padding="same", dilation=2),
    nn.Conv2d(4, 6, 3, padding="valid"),
    nn.Linear(8, 3),
]
OTHERS = [
    (nn.Conv1d(4, 6, 5, stride=3, padding=2), (3, 4, 17)),
    (nn.Conv3d(2, 4, 2, padding=1), (3, 2, 4, 3, 5)),
]


class SideBySide(nn.Module):
    """Several layers that read the same image."""

    def __init__(self, layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x):
        return torch.cat([layer(x).flatten(1) for layer in self.layers], 1)


def expect_unfolding(layers, x):
    nodes = capture(SideBySide(layers), x).graph.nodes
    calls = [node for node in nodes if node.target in LAYER_OPS]
    assert len(calls) == len(layers)
    for layer, node in zip(layers, calls, strict=True):
        geometry = geometry_of(node, tuple(layer.weight.shape[2:]))
        columns = torch.cat(list(input_columns(x, geometry)), dim=2)
        matrices = bipartite_graphs(layer.weight.detach(), groups=getattr(layer, "groups", 1))
        outputs = (matrices @ columns).flatten(0, 1)
        bias = 0 if layer.bias is None else layer.bias.detach()
        with torch.no_grad():
            expected = layer(x) if isinstance(layer, nn.Linear) else layer(x).movedim(1, -1)
        torch.testing.assert_close(outputs.T + bias, expected.reshape(-1, outputs.shape[0]))


def test_the_unfolded_layer_gives_the_outputs_of_the_layer():
    expect_unfolding(PLANAR, torch.randn(3, 4, 9, 8, generator=GENERATOR))


@pytest.mark.slow
@pytest.mark.parametrize(("layer", "shape"), OTHERS, ids=["1d", "3d"])
def test_other_numbers_of_axes_unfold_alike(layer, shape):
    expect_unfolding([layer], torch.randn(shape, generator=GENERATOR))


def test_any_split_of_the_images_gives_the_same():
    x = torch.randn(11, 4, 5, generator=GENERATOR)
    whole = InputMoments("fc", Geometry(), products=True)
    whole.add(x)
    parts = InputMoments("fc", Geometry(), products=True)
    for part in x.split([1, 4, 6]):
        parts.add(part)
    flat = x.reshape(-1, 5)
    torch.testing.assert_close(whole.values[0], flat.T @ flat * 2 / 11)
    torch.testing.assert_close(parts.values, whole.values)
    assert (parts.images, parts.columns, parts.is_deficient) == (11, 44, False)
    torch.testing.assert_close(whole.norms[0], flat.norm(dim=0) / 11**0.5)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_activations_that_are_not_finite_name_the_layer(value):
    moments = InputMoments("blocks.3.fc1", Geometry(), products=False)
    moments.add(torch.ones(2, 3))
    with pytest.raises(NonFiniteError, match=r"blocks\.3\.fc1: .* calibration images 2 and"):
        moments.add(torch.tensor([[1.0, value, 0.0]]))

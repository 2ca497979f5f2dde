"""Folding changes no value, adds no link, and stays away from what it must not touch."""

import copy

import torch
from torch import nn

from topospike.conversion.fold import fold_batch_norms
from topospike.models.capture import capture


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias, module.weight):
                if tensor is not None:
                    tensor.data.normal_(generator=generator)
            module.running_var.data.uniform_(0.5, 2.0, generator=generator)
    return model.eval()


def folded(model: nn.Module, x: torch.Tensor) -> tuple[torch.fx.GraphModule, list[str]]:
    network = copy.deepcopy(capture(model, x))
    return network, fold_batch_norms(network)


def test_conv_and_linear_norms_fold_without_changing_the_output() -> None:
    model = randomise(
        nn.Sequential(
            nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
            nn.Conv2d(4, 4, 3, groups=2), nn.BatchNorm2d(4, affine=False), nn.Flatten(),
            nn.Linear(64, 6), nn.BatchNorm1d(6),
        )
    ).double()  # fmt: skip
    x = torch.randn(5, 3, 8, 8, dtype=torch.float64)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    network, names = folded(model, x)
    assert names == ["1", "4", "7"]
    torch.testing.assert_close(network(x), model(x), rtol=1e-12, atol=1e-12)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert "0.bias" in dict(network.named_parameters())


def test_zero_weights_stay_exactly_positive_zero() -> None:
    model = randomise(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    with torch.no_grad():
        model[0].weight[:, :, 0] = 0.0
        model[1].weight[:] = -1.0  # a negative factor would turn 0.0 into -0.0
    network, _ = folded(model, torch.randn(2, 3, 8, 8))
    weight = network.get_parameter("0.weight")
    zeros = weight[:, :, 0]
    assert torch.equal(zeros, torch.zeros_like(zeros))
    assert not torch.signbit(zeros).any()
    assert (weight[:, :, 1:] != 0).all()


class Shared(nn.Module):
    """One convolution called twice with two norms; a norm on a value that is read elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.first, self.second, self.third = (nn.BatchNorm2d(3) for _ in range(3))
        self.other = nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(self.conv(x)) + self.second(self.conv(x))
        z = self.other(y)
        return self.third(z) + z


def test_shared_weights_and_shared_values_are_left_alone() -> None:
    model = randomise(Shared())
    x = torch.randn(2, 3, 4, 4)
    network, names = folded(model, x)
    assert names == []
    torch.testing.assert_close(network(x), model(x))


def test_norm_before_a_layer_is_left_alone() -> None:
    model = randomise(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 1)))
    x = torch.randn(2, 3, 4, 4)
    network, names = folded(model, x)
    assert names == []
    torch.testing.assert_close(network(x), model(x))

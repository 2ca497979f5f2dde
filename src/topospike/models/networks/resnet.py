"""Models: ResNet-18 for small images (He et al. 2016, CIFAR form).

A 3 x 3 stem without pooling, four stages of two basic blocks at strides 1, 2, 2, 2, projections
by 1 x 1 convolution with batch normalisation where the shape changes, global average pooling and
one linear layer. Convolutions have no bias.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from topospike.errors import ConfigError
from topospike.models.networks.sizes import check_positive, kaiming_convolutions, pooled_size


class BasicBlock(nn.Module):
    """relu(bn(conv(relu(bn(conv x)))) + shortcut(x)), both convolutions 3 x 3."""

    def __init__(self, before: int, width: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width)
            )
        self.relu2 = nn.ReLU()

    def forward(
        self, x: Float[Tensor, "batch chan height width"]
    ) -> Float[Tensor, "batch chan_out height_out width_out"]:
        """Return the block's output maps."""
        inside = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(inside + self.shortcut(x))


class ResNet(nn.Module):
    """Stem, stages, global average, classifier; built by `resnet18`."""

    def __init__(
        self, channels: int, widths: Sequence[int], blocks: Sequence[int], classes: int
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()
        before, stages = widths[0], []
        for index, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            first = BasicBlock(before, width, stride=1 if index == 0 else 2)
            rest = [BasicBlock(width, width, stride=1) for _ in range(count - 1)]
            stages.append(nn.Sequential(first, *rest))
            before = width
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(before, classes)

    def forward(
        self, x: Float[Tensor, "batch chan height width"]
    ) -> Float[Tensor, "batch classes"]:
        """Return the logits of a batch of images."""
        x = self.stages(self.relu(self.bn1(self.conv1(x))))
        return self.fc(self.pool(x).flatten(1))


def resnet18(
    classes: int = 10,
    *,
    channels: int = 3,
    image_size: tuple[int, int] = (32, 32),
    widths: Sequence[int] = (64, 128, 256, 512),
    blocks: Sequence[int] = (2, 2, 2, 2),
) -> ResNet:
    """Build ResNet-18, or a smaller network of the same form.

    Parameters
    ----------
    classes, channels, image_size
        Classes to tell apart; channels and (height, width) of the images.
    widths, blocks
        Channels and number of basic blocks, one value a stage.

    Raises
    ------
    ConfigError
        If the image is too small, or ``widths`` and ``blocks`` differ in length.

    Notes
    -----
    555.4 million multiply-accumulates for a 32 x 32 image and 10 classes, projections included.
    Convolution weights start from Kaiming's normal distribution (fan-out).

    Examples
    --------
    >>> sum(parameter.numel() for parameter in resnet18(10).parameters())
    11173962
    """
    check_positive("resnet18", classes=classes, channels=channels, widths=widths, blocks=blocks)
    if len(widths) != len(blocks):
        raise ConfigError(
            f"resnet18: widths = {tuple(widths)} and blocks = {tuple(blocks)} must have one value "
            "a stage each; give both, of the same length"
        )
    pooled_size("resnet18", image_size, len(widths) - 1)
    model = ResNet(channels, widths, blocks, classes)
    kaiming_convolutions(model)
    return model

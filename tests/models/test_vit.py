"""The vision transformer: published names and sizes, impossible sizes refused."""

import pytest
import torch

from topospike.errors import ConfigError
from topospike.models import vit
from topospike.topology import weight_layers

SMALL = {"image_size": (8, 8), "widths": (16,), "blocks": (2,), "hidden": (32,), "heads": 2}


def test_vit_b_has_the_published_number_of_parameters():
    with torch.device("meta"):
        model = vit()
    assert sum(parameter.numel() for parameter in model.parameters()) == 86_567_656


def test_weights_load_into_the_transformers_class_by_name():
    from transformers import ViTForImageClassification

    model = vit(5, **SMALL, patch=4).eval()
    original = ViTForImageClassification(model.config).eval()
    original.load_state_dict(model.state_dict())
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(model(x), original(pixel_values=x).logits)


def test_the_classifier_is_the_last_layer():
    layers = weight_layers(vit(5, **SMALL, patch=4), torch.zeros(1, 3, 8, 8))
    assert [layer.name for layer in layers if layer.is_classifier] == ["classifier"]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"heads": 3}, "heads = 3 must divide the width 16"),
        ({"patch": 3}, "patch = 3 must divide the image's side 8"),
        ({"image_size": (8, 4)}, "must be square"),
        ({"widths": (8, 16)}, "give one"),
        ({"blocks": (0,)}, "must be 1 or larger"),
    ],
)
def test_sizes_that_do_not_fit(sizes, message):
    with pytest.raises(ConfigError, match=message):
        vit(5, **{**SMALL, "patch": 4, **sizes})

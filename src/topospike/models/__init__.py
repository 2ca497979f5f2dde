"""The networks of the paper, in plain torch, and which of their layers carry links."""

from topospike.models.build import MODELS as MODELS
from topospike.models.build import build_model as build_model
from topospike.models.capture import capture as capture
from topospike.models.layers import WeightLayer as WeightLayer
from topospike.models.layers import weight_layers as weight_layers
from topospike.models.layers import weighted_modules as weighted_modules
from topospike.models.mlp import mlp as mlp
from topospike.models.plain import conv6fc2 as conv6fc2
from topospike.models.plain import small_cnn as small_cnn
from topospike.models.plain import vgg16 as vgg16
from topospike.models.resnet import resnet18 as resnet18
from topospike.models.vit import vit as vit

__all__ = [
    "MODELS",
    "WeightLayer",
    "build_model",
    "capture",
    "conv6fc2",
    "mlp",
    "resnet18",
    "small_cnn",
    "vgg16",
    "vit",
    "weight_layers",
    "weighted_modules",
]

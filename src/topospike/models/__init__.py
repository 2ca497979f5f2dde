"""The networks of the paper, in plain torch, and the graph of any model."""

from topospike.models.build import MODELS as MODELS
from topospike.models.build import build_model as build_model
from topospike.models.capture import capture as capture
from topospike.models.fast import fast_cnn as fast_cnn
from topospike.models.gpt import gpt as gpt
from topospike.models.llama import llama as llama
from topospike.models.mlp import mlp as mlp
from topospike.models.mobilenet import mobilenet_v2 as mobilenet_v2
from topospike.models.plain import conv2fc2 as conv2fc2
from topospike.models.plain import conv6fc2 as conv6fc2
from topospike.models.plain import small_cnn as small_cnn
from topospike.models.plain import vgg16 as vgg16
from topospike.models.resnet import resnet18 as resnet18
from topospike.models.vit import vit as vit
from topospike.models.whitening import fit_whitening as fit_whitening

__all__ = [
    "MODELS",
    "build_model",
    "capture",
    "conv2fc2",
    "conv6fc2",
    "fast_cnn",
    "fit_whitening",
    "gpt",
    "llama",
    "mlp",
    "mobilenet_v2",
    "resnet18",
    "small_cnn",
    "vgg16",
    "vit",
]

"""The networks of the paper, in plain torch, and the graph of any model."""

from topospike.models.capture import capture as capture
from topospike.models.networks.build import MODELS as MODELS
from topospike.models.networks.build import build_model as build_model
from topospike.models.networks.fast import fast_cnn as fast_cnn
from topospike.models.networks.fast import fit_whitening as fit_whitening
from topospike.models.networks.gpt import gpt as gpt
from topospike.models.networks.hugging_face import llama as llama
from topospike.models.networks.hugging_face import vit as vit
from topospike.models.networks.mobilenet import mobilenet_v2 as mobilenet_v2
from topospike.models.networks.plain import conv2fc2 as conv2fc2
from topospike.models.networks.plain import conv6fc2 as conv6fc2
from topospike.models.networks.plain import mlp as mlp
from topospike.models.networks.plain import small_cnn as small_cnn
from topospike.models.networks.plain import vgg16 as vgg16
from topospike.models.networks.resnet import resnet18 as resnet18

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

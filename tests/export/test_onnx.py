"""The ONNX file computes what the network computes, by ONNX's own reference evaluator."""

import numpy as np
import onnx
import torch
from onnx.reference import ReferenceEvaluator

import topospike as ts
from topospike.export import export_onnx
from topospike.topology import register_mask


def test_the_ann_of_a_converted_network_is_written_with_its_zeros(tmp_path):
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.AvgPool2d(2),
        torch.nn.Flatten(), torch.nn.Linear(16, 5),
    ).eval()  # fmt: skip
    register_mask(model[5], torch.rand(5, 16) < 0.3)
    x = torch.randn(3, 3, 6, 6)
    snn = ts.convert(model, calibration=[x])
    path = export_onnx(snn, tmp_path / "net.onnx", x[:1])
    (logits,) = ReferenceEvaluator(str(path)).run(None, {"input": x.numpy()})
    assert np.allclose(logits, snn.analog(x).numpy(), atol=1e-6)
    stored = {i.name: onnx.numpy_helper.to_array(i) for i in onnx.load(path).graph.initializer}
    weight = next(value for name, value in stored.items() if "5.weight" in name)
    mask = model[5].weight_mask.numpy()
    assert np.array_equal(np.sort((weight != 0).sum(-1)), np.sort(mask.sum(-1)))
    assert model.training is False

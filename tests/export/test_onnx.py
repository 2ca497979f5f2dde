"""The ONNX file computes what the network computes, by ONNX's own reference evaluator."""

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator

import topospike as ts
from topospike.errors import ConfigError
from topospike.export import export_onnx
from topospike.export.event_form import event_form
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


class TwoInputs(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = (torch.nn.Linear(n, m) for n, m in ((4, 8), (3, 8), (8, 2)))

    def forward(self, left, right):
        return {"scores": self.head(torch.relu(self.a(left) + self.b(right)))}


def test_a_network_of_two_inputs_is_written_with_their_names(tmp_path):
    torch.manual_seed(0)
    x = {"right": torch.randn(5, 3), "left": torch.randn(5, 4)}
    snn = ts.convert(TwoInputs().eval(), "qcfs", [x])
    path = export_onnx(snn, tmp_path / "net.onnx", x)
    given = {name: tensor[:3].numpy() for name, tensor in x.items()}
    (scores,) = ReferenceEvaluator(str(path)).run(None, given)
    assert np.allclose(scores, snn.analog(x)[:3].numpy(), atol=1e-6)


def test_forms_of_one_input_refuse_a_network_of_two(tmp_path):
    x = (torch.randn(5, 4), torch.randn(5, 3))
    snn = ts.convert(TwoInputs().eval(), "qcfs", [(x, None)])
    with pytest.raises(ConfigError, match=r"takes 2 input tensors \(left, right\)"):
        event_form(snn)

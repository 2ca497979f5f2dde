"""Every method passes the same suite; a new one gets it by being in the registry."""

import copy
import json

import pytest
import torch

import topospike as ts
from topospike.pruning import PRUNING_METHODS, PruneReport
from topospike.topology import check_masks

methods = pytest.mark.parametrize("method", sorted(PRUNING_METHODS))
# Three methods share all their code with others, and every capture of a graph takes a second.
LIKE_OTHERS = ("ria", "ria-rec", "wanda")
LINKS = [name for name, method in PRUNING_METHODS.items() if method.comparison != "group"]


def pruned(model, method, rows, **options):
    sparsity = {"linear": 0.6}
    tolerance = {"tolerance": 0.1} if method == "depgraph" else {}
    return ts.prune(model, method, sparsity, rows, **tolerance, **options)


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in LIKE_OTHERS else name
        for name in sorted(PRUNING_METHODS)
    ],
)
def test_what_every_method_promises(perceptron, rows, tmp_path, method):
    before = copy.deepcopy(perceptron.state_dict())
    perceptron.train()
    # methods that need no images are faster without; the slow tests give them some
    needs_images = PRUNING_METHODS[method].needs_inputs
    report = pruned(perceptron, method, rows if needs_images else None)
    assert perceptron.training
    # masks are there, weights obey them, the topology freezes and verifies
    check_masks(perceptron)
    topology = ts.Topology.from_model(perceptron, provenance={"method": method})
    topology.verify(perceptron)
    links = {f"{layer.name}.weight": layer.links for layer in report.layers}
    assert topology.counts() == links
    assert report.sparsity("linear") == pytest.approx(0.6, abs=0.06)
    # the classifier keeps its outputs, biases and norms are not touched by link pruning
    assert all(bool(mask.any(1).all()) for n, mask in topology.masks.items() if n == "4.weight")
    adjusts = PRUNING_METHODS[method].reconstructs
    for name, value in perceptron.state_dict().items():
        if name.endswith("weight_mask"):
            continue
        mask = topology.masks.get(name)
        if mask is not None and not adjusts:
            assert torch.equal(value[mask], before[name][mask]), name
            assert not value[~mask].any()
        elif mask is None and method != "depgraph":
            assert torch.equal(value, before[name]), name
    # the record survives a file
    report.save(tmp_path / "prune.json")
    assert PruneReport.load(tmp_path / "prune.json") == report
    assert json.loads((tmp_path / "prune.json").read_text())["method"] == method
    possible = 12 * 20 + 20 * 16 + 16 * 4
    assert report.overall_sparsity == pytest.approx(
        sum(layer.possible - layer.links for layer in report.layers) / possible
    )


@pytest.mark.slow
@methods
def test_the_same_images_give_the_same_network(perceptron, rows, method):
    other = copy.deepcopy(perceptron)
    batches = [(part, torch.zeros(len(part))) for part in rows.split(16)]
    first, second = pruned(perceptron, method, rows), pruned(other, method, batches)
    for name, value in perceptron.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, rtol=1e-5, atol=1e-6)
    assert [layer.links for layer in first.layers] == [layer.links for layer in second.layers]


@pytest.mark.slow
@pytest.mark.parametrize("method", LINKS)
def test_half_precision_weights_are_ranked_in_full_and_given_back(method, rows):
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(12, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
    ).bfloat16()
    report = pruned(model, method, rows.bfloat16())
    assert model[0].weight.dtype == torch.bfloat16
    assert report.layers[0].links == int(model[0].weight_mask.sum())
    assert report.layers[0].error_after is not None

"""Scores, masks and adjusted weights of single layers equal the reference codes'.

Tolerances: masks exact; statistics and scores rtol 1e-5; weights 1e-4 of the largest.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import topospike as ts
from topospike.pruning.methods import PRUNING_METHODS, keep_largest
from topospike.pruning.moments import Geometry, InputMoments
from topospike.pruning.reconstruction import output_error, reconstruct

FOLDER = Path(__file__).parents[1] / "oracles" / "pruning"
FILES = sorted(FOLDER.glob("linear_*.npz"))
every_file = pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
few_rows = pytest.mark.filterwarnings("ignore:fewer calibration inputs")


def load(file):
    with np.load(file, allow_pickle=False) as data:
        arrays = {name: torch.from_numpy(data[name]) for name in data.files}
    moments = InputMoments("layer", Geometry(), products=True)
    for part in arrays["X"].split(1):
        moments.add(part)
    return arrays, arrays["W"].unsqueeze(0), moments


def test_there_are_five_files():
    assert len(FILES) == 5


@every_file
def test_statistics(file):
    arrays, _, moments = load(file)
    close(moments.values[0], arrays["H"])
    close(moments.norms[0].square(), arrays["sumsq_over_N"])
    diagonal = InputMoments("layer", Geometry(), products=False)
    diagonal.add(arrays["X"])
    close(diagonal.norms, moments.norms)


def close(ours, reference):
    torch.testing.assert_close(ours, reference, rtol=1e-5, atol=1e-5 * float(reference.abs().max()))


@every_file
@pytest.mark.parametrize("name", ["magnitude", "ri", "wanda", "ria"])
def test_scores_and_masks(file, name):
    arrays, weight, moments = load(file)
    scores = PRUNING_METHODS[name].score(weight, moments.norms, 0.5)
    torch.testing.assert_close(scores[0], arrays[f"score_{name}"], rtol=1e-5, atol=1e-7)
    compared = [name for name in arrays if name.startswith(f"pruned_{name}_")]
    for key in [f"pruned_{name}_{group}" for group in ("row", "layer")]:
        if key in arrays:
            mask = keep_largest(scores, float(arrays["p"]), comparison=key.rpartition("_")[2])
            assert torch.equal(~mask[0], arrays[key]), key
    assert any(key in arrays for key in (f"pruned_{name}_row", f"pruned_{name}_layer")), compared


@every_file
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["wanda", "ria"])
@pytest.mark.parametrize("group", ["row", "layer"])
def test_reconstructed_weights(file, name, group, dtype):
    arrays, weight, moments = load(file)
    mask = ~arrays[f"pruned_{name}_{group}"].unsqueeze(0)
    done = reconstruct(weight, moments.values.to(dtype), mask=mask)
    assert torch.equal(done.mask, mask)
    expect_weights(done.weight[0], arrays[f"W_{name}_rec_{group}"])
    errors = (
        output_error(new - weight, weight, moments.values)
        for new in (weight.masked_fill(~mask, 0.0), done.weight)
    )
    assert next(errors) > next(errors) > 0


@every_file
def test_sparsegpt(file):
    arrays, weight, moments = load(file)
    keys = [key for key in arrays if key.startswith("W_sparsegpt_bs")]
    assert keys
    for key in keys:
        block = int(key.rpartition("bs")[2])
        done = reconstruct(weight, moments.values, sparsity=float(arrays["p"]), block=block)
        expect_weights(done.weight[0], arrays[key])
        zeros = [int((~part).sum()) for part in done.mask[0].split(block, dim=1)]
        assert zeros == arrays[f"zeros_per_block_bs{block}"].flatten().tolist()


def expect_weights(ours, reference):
    torch.testing.assert_close(ours, reference, rtol=0, atol=1e-4 * float(reference.abs().max()))


@few_rows
@pytest.mark.slow
@every_file
def test_the_whole_call_gives_the_same(file):
    arrays, _, _ = load(file)
    for method, group, key in [
        ("wanda-rec", "row", "W_wanda_rec_row"),
        ("ria-rec", "layer", "W_ria_rec_layer"),
        ("sparsegpt", None, "W_sparsegpt_bs128"),
    ]:
        outputs, inputs = arrays["W"].shape
        model = nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU(), nn.Linear(outputs, 2))
        model[0].weight.data.copy_(arrays["W"])
        ts.prune(
            model,
            method=method,
            sparsity=float(arrays["p"]),
            calibration=arrays["X"],
            comparison=group,
            chunk=4,
        )
        expect_weights(model[0].weight.detach(), arrays[key])

"""The recipe of ViT-B on ImageNet, in miniature: two processes, evolved, resumed, converted."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

# Everything else, DeiT's augmentation and mixing among it, is the recipe's own.
MINIATURE = [
    "--data.image_size", "[16, 16]", "--data.batch_size", "9", "--data.eval_batch_size", "8",
    "--data.validation_fraction", "0.2", "--data.workers", "0", "--data.memory_gib", "0",
    "--model.widths", "[16]", "--model.blocks", "[1]", "--model.hidden", "[32]",
    "--model.heads", "2", "--model.patch", "8", "--train.epochs", "5",
    "--train.warmup_epochs", "1", "--train.bf16", "false", "--sparsity.update_interval", "1",
    "--measure.timesteps", "4", "--analyse", "false", "--threads", "1",
]  # fmt: skip


@pytest.fixture(scope="module")
def starter():
    path = Path(__file__).with_name("launch.py")
    spec = importlib.util.spec_from_file_location("launch", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """A folder with ImageNet's columns and splits; pictures differ in size and form."""
    from datasets import ClassLabel, Dataset, Features, Image
    from PIL import Image as Pillow

    folder = tmp_path_factory.mktemp("data") / "imagenet-1k"
    folder.mkdir()
    features = Features({"image": Image(), "label": ClassLabel(names=["cat", "dog", "owl"])})
    generator = np.random.default_rng(0)
    for split, count in (("train", 24), ("validation", 9)):
        sizes = generator.integers(18, 30, (count, 2))
        arrays = [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
        table = {
            "image": [Pillow.fromarray(a) for a in arrays],
            "label": [i % 3 for i in range(count)],
        }
        Dataset.from_dict(table, features=features).to_parquet(
            str(folder / f"{split}-00000-of-00001.parquet")
        )
    return folder


def run(starter, imagenet, folder, *options):
    process = starter.torchrun(
        "run", "imagenet-vit-b", "--data.source", imagenet, "--folder", folder, *MINIATURE, *options
    )
    with starter.killed_at_the_end([process]):
        output, errors = process.communicate(timeout=2 * starter.DEADLINE)
    assert process.returncode == 0, errors
    return output


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_two_processes_train_evolve_resume_convert_and_measure(starter, imagenet, tmp_path):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    run(starter, imagenet, whole, "--dense_twin", "false")
    lines = metrics(whole)
    assert [line["epoch"] for line in lines if line["kind"] == "epoch"] == list(range(5))
    updates = [line for line in lines if line["kind"] == "topology_update"]
    assert updates
    assert sum(change["grown"] for line in updates for change in line["layers"].values()) > 0
    record = json.loads((whole / "record.json").read_text())
    assert record["processes"] == 2
    assert record["data"]["classes"] == 3

    # As if both processes had been killed after an earlier checkpoint.
    shutil.copytree(whole, resumed)
    for name in ("model.safetensors", "topology.npz", "stages.json", "summary.json"):
        (resumed / name).unlink()
    shutil.rmtree(resumed / "conversions")
    newest = max((resumed / "checkpoint").iterdir())
    shutil.rmtree(newest) if newest.is_dir() else newest.unlink()
    run(starter, imagenet, resumed, "--dense_twin", "false")
    keep = ("epoch", "train_loss", "validation_accuracy")
    seen, expected = (
        [[line[name] for name in keep] for line in metrics(folder) if line["kind"] == "epoch"]
        for folder in (resumed, whole)
    )
    assert seen == expected

    evaluation = json.loads((whole / "conversions/dcgs/evaluation.json").read_text())
    assert evaluation["timesteps"] == [1, 2, 3, 4]
    assert evaluation["images"] == 9
    assert evaluation["sops"][-1] > 0

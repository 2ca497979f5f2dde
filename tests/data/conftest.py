from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing a test opens stays in the user's cache, and no test reaches for the network."""
    import datasets
    import huggingface_hub

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def pictures(count: int, *, size: tuple[int, int] = (8, 8), channels: int = 3, seed: int = 0):
    shape = (count, *size, channels) if channels > 1 else (count, *size)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


Writer = Callable[..., Path]


@pytest.fixture
def parquet_folder(tmp_path: Path) -> Writer:
    """Write a folder in the layout of the hub; `columns` maps label columns to class counts."""
    from datasets import ClassLabel, Dataset, Features, Image
    from PIL import Image as Pillow

    def write(
        name: str = "tiny",
        *,
        image: str = "img",
        labels: dict[str, int] | None = None,
        train: int = 24,
        test: int = 9,
        channels: int = 3,
        size: tuple[int, int] = (8, 8),
        splits: tuple[str, str] = ("train", "test"),
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        labels = {"label": 3} if labels is None else labels
        features = Features(
            {
                image: Image(),
                **{k: ClassLabel(names=[f"{k}{c}" for c in range(n)]) for k, n in labels.items()},
            }
        )
        for seed, (split, count) in enumerate(zip(splits, (train, test), strict=True)):
            arrays = pictures(count, size=size, channels=channels, seed=seed)
            table = {
                image: [Pillow.fromarray(a) for a in arrays],
                **{k: [i % n for i in range(count)] for k, n in labels.items()},
            }
            Dataset.from_dict(table, features=features).to_parquet(
                str(folder / f"{split}-00000-of-00001.parquet")
            )
        return folder

    return write


@pytest.fixture
def image_folder(tmp_path: Path) -> Writer:
    """Write train/<class>/<number>.png and test/...; the pictures are those of `pictures`."""
    from PIL import Image as Pillow

    def write(
        name: str = "album",
        *,
        classes: tuple[str, ...] = ("cat", "dog"),
        per_class: int = 6,
        channels: int = 3,
        size: tuple[int, int] = (8, 8),
    ) -> Path:
        folder = tmp_path / name
        for split_seed, split in enumerate(("train", "test")):
            for class_number, label in enumerate(classes):
                place = folder / split / label
                place.mkdir(parents=True)
                seed = 10 * split_seed + class_number
                for i, array in enumerate(
                    pictures(per_class, size=size, channels=channels, seed=seed)
                ):
                    Pillow.fromarray(array).save(place / f"{i}.png")
        return folder

    return write


@pytest.fixture
def written_pictures():
    """The function that makes the arrays the folders hold."""
    return pictures

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data import make_dataset
from bench.data.mixture import augment
from bench.errors import BenchError


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Four green images."""
    for k in range(4):
        Image.new("RGB", (140, 130), (k, 200, k)).save(tmp_path / f"{k}.png")
    return tmp_path


def parts(folder: Path) -> dict[str, dict[str, object]]:
    return {
        "rendered": {"name": "synthfaces", "weight": 3},
        "files": {"name": "folder", "path": str(folder), "weight": 1, "augment": True},
    }


def test_deterministic_by_number_and_grouped_loading_changes_nothing(image_folder: Path) -> None:
    dataset = make_dataset({"name": "mixture", "parts": parts(image_folder), "size": 32})
    many = dataset.load_many(range(6))
    assert many.shape == (6, 32, 32, 3)
    for i in (0, 3, 5):
        assert (many[i] == dataset.load(i)).all()
    assert (dataset.load(2) == dataset.load(2)).all()


def test_train_and_val_differ(image_folder: Path) -> None:
    train, val = (
        make_dataset({"name": "mixture", "parts": parts(image_folder), "split": s, "size": 32})
        for s in ("train", "val")
    )
    assert not (train.load_many(range(4)) == val.load_many(range(4))).all()


def test_weights_are_shares(image_folder: Path) -> None:
    dataset = make_dataset({"name": "mixture", "parts": parts(image_folder), "size": 32})
    green = [x[..., 1].mean() - x[..., 0].mean() > 100 for x in dataset.load_many(range(80)).astype(float)]
    assert 0.12 < np.mean(green) < 0.40


def test_bad_settings(image_folder: Path) -> None:
    with pytest.raises(BenchError, match="no split of mixture"):
        make_dataset({"name": "mixture", "parts": parts(image_folder), "split": "test"})
    with pytest.raises(BenchError, match=r"dataset\.parts is empty"):
        make_dataset({"name": "mixture", "parts": {}})


def test_a_part_of_weight_0_is_never_drawn(image_folder: Path) -> None:
    mixed = parts(image_folder)
    mixed["rendered"]["weight"] = 0
    dataset = make_dataset({"name": "mixture", "parts": mixed, "size": 32})
    assert all(x[..., 1].mean() - x[..., 0].mean() > 100 for x in dataset.load_many(range(40)).astype(float))


@pytest.mark.parametrize("weights", [(0, 0), (-1, 2), (float("nan"), 1), (float("inf"), 1)])
def test_weights_that_are_no_shares_are_refused(image_folder: Path, weights: tuple[float, float]) -> None:
    mixed = parts(image_folder)
    for part, weight in zip(mixed.values(), weights, strict=True):
        part["weight"] = weight
    with pytest.raises(BenchError, match="weights must be finite"):
        make_dataset({"name": "mixture", "parts": mixed, "size": 32})


def test_another_augmentation_is_another_dataset(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = make_dataset({"name": "mixture", "parts": parts(image_folder), "size": 32})
    before = dataset.fingerprint(range(8))
    monkeypatch.setattr("bench.data.mixture.ZOOM", 0.1)
    assert dataset.fingerprint(range(8)) != before


def test_augmentation_keeps_the_middle_and_varies() -> None:
    image = np.full((64, 64, 3), 20, np.uint8)
    image[16:48, 16:48] = 200
    drawn = [augment(image, 32, np.random.default_rng(i)) for i in range(8)]
    for x in drawn:
        assert x.shape == (32, 32, 3)
        assert x[14:18, 14:18].mean() > 130
        assert x[:2].mean() < 60
    assert len({x.tobytes() for x in drawn}) == 8

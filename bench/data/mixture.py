"""Several datasets mixed by weight, each with or without augmentation: what the shipped weights were trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from bench.data import DataFacts, Dataset, datasets, make_dataset, register_dataset
from bench.data.portraits256 import crop_quad
from bench.errors import BenchError

LENGTH = {"train": 1_000_000, "val": 1_000}
KEY = 0x31C
ZOOM, SHIFT, TURN = 0.10, 0.04, 0.12
"""Augmentation: relative size, shift in sides, turn in radians, each uniform within plus and minus."""


def augment(image: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
    """Flip, zoom, shift, turn and change brightness and contrast a little; uint8 [S, S, 3] to [size, size, 3]."""
    side = image.shape[0]
    zoom, turn = 1 + ZOOM * random.uniform(-1, 1), TURN * random.uniform(-1, 1)
    centre = side * (0.5 + SHIFT * random.uniform(-1, 1, 2))
    corners = np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]]) * (side / 2 / zoom)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    quad = corners @ rotation + centre - 0.5
    if random.random() < 0.5:
        quad = quad[[3, 2, 1, 0]]
    square = crop_quad(Image.fromarray(image), quad, side=side, size=size).astype(np.float32)
    gain, gamma = 1 + 0.15 * random.uniform(-1, 1), 1 + 0.15 * random.uniform(-1, 1)
    tint = 1 + 0.04 * random.uniform(-1, 1, 3)
    return (255 * np.clip(square / 255 * gain * tint, 0, 1) ** gamma).round().astype(np.uint8)


@register_dataset("mixture")
class Mixture(Dataset):
    """An endless mixture: image i is drawn by its number alone.

    Args:
        parts: one entry per dataset: its ``name`` and settings, ``weight``, and ``augment`` (its images are then read
            at 4 times the size at most and augmented).
        split: train or val. Parts without a val split give augmented train images to both.
        size: side in pixels.

    """

    facts = DataFacts(title="Mixture", licence="those of its parts", how_to_get="its parts", default_limit=1000)

    def __init__(self, parts: Mapping[str, Mapping[str, Any]], split: str = "train", size: int = 64) -> None:
        if split not in LENGTH:
            raise BenchError(f"dataset.split={split} is no split of mixture: use train or val.")
        if not parts:
            raise BenchError("dataset.parts is empty: give at least one dataset.")
        self.size = size
        self.split = split
        self.ids = _Numbers(split)
        weights = np.array([float(p["weight"]) for p in parts.values()])
        self.cumulative = np.cumsum(weights / weights.sum())
        self.augmented = [bool(p.get("augment", False)) for p in parts.values()]
        self.parts = [self._part(dict(p), split, size) for p in parts.values()]
        self.kept: dict[tuple[int, int], np.ndarray] = {}

    @staticmethod
    def _part(config: dict[str, Any], split: str, size: int) -> Dataset:
        config.pop("weight")
        larger = 4 if config.pop("augment", False) else 1
        return make_dataset(with_split(config, split, {"size": size * larger}))

    def load(self, index: int) -> np.ndarray:
        """Choose a part and an image of it; augment."""
        return self.load_many([index])[0]

    def load_many(self, indices: Sequence[int]) -> np.ndarray:
        """Several images, those of one part together."""
        first = LENGTH["train"] if self.split == "val" else 0
        random = [np.random.Generator(np.random.Philox(key=[KEY, first + i])) for i in indices]
        which = np.array([np.searchsorted(self.cumulative, r.random(), side="right") for r in random])
        inner = [int(r.integers(len(self.parts[w]))) for r, w in zip(random, which, strict=True)]
        images = np.empty((len(indices), self.size, self.size, 3), np.uint8)
        for w, part in enumerate(self.parts):
            rows = np.flatnonzero(which == w)
            if self.augmented[w]:
                for row in rows:
                    if (w, inner[row]) not in self.kept:
                        self.kept[w, inner[row]] = part.load(inner[row])
                    images[row] = augment(self.kept[w, inner[row]], self.size, random[row])
            elif len(rows):
                images[rows] = part.load_many([inner[row] for row in rows])
        return images


class _Numbers(Sequence[str]):
    def __init__(self, split: str) -> None:
        self.split = split

    def __len__(self) -> int:
        return LENGTH[self.split]

    def __getitem__(self, i: Any) -> Any:
        return f"{self.split}-{range(len(self))[i]:06d}"


def with_split(config: Mapping[str, Any], split: str, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Ask a dataset's configuration for a split and other settings, as far as the dataset knows them."""
    import inspect

    known = inspect.signature(datasets.get(str(config["name"]))).parameters
    merged = dict(config)
    for key, value in {"split": split, **(changes or {})}.items():
        if key in known:
            merged[key] = value
    return merged

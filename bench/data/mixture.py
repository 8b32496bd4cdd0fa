"""Several datasets mixed by weight, each with or without augmentation, as the shipped weights were trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from PIL import Image
from pydantic import Field

from bench.data import DataFacts, Dataset, Numbered, SplitError, register_dataset
from bench.data.portraits256 import crop_quad
from bench.data.splits import train_and_val
from bench.errors import BenchError

LENGTH = {"train": 1_000_000, "val": 1_000}
KEY = 0x31C
ZOOM, SHIFT, TURN = 0.20, 0.06, 0.20
"""Augmentation: relative size, shift in sides, turn in radians, each uniform within plus and minus."""
LIGHT, TINT = 0.25, 0.12
"""The same for brightness, gamma, and the gain of each colour."""


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
    gain, gamma = 1 + LIGHT * random.uniform(-1, 1), 1 + LIGHT * random.uniform(-1, 1)
    tint = 1 + TINT * random.uniform(-1, 1, 3)
    return (255 * np.clip(square / 255 * gain * tint, 0, 1) ** gamma).round().astype(np.uint8)


@register_dataset("mixture")
class Mixture(Dataset):
    """An endless mixture: image i is drawn by its number alone.

    Args:
        parts: one entry per dataset: its ``name`` and settings, ``weight``, and ``augment`` (its images are then read
            at 4 times the size at most and augmented).
        split: train or val. Of parts without a val split one image of 20 is held out for it.
        size: side in pixels.

    """

    facts = DataFacts(title="Mixture", licence="those of its parts", how_to_get="its parts", default_limit=1000)

    def __init__(
        self, parts: Mapping[str, Mapping[str, Any]], split: str = "train", size: Annotated[int, Field(ge=1)] = 64
    ) -> None:
        if split not in LENGTH:
            raise SplitError(f"dataset.split={split} is no split of mixture: use train or val.")
        if not parts:
            raise BenchError("dataset.parts is empty: give at least one dataset.")
        self.size = size
        self.split = split
        self.ids = Numbered(split, LENGTH[split])
        weights = np.array([float(p["weight"]) for p in parts.values()])
        if not (weights >= 0).all() or not 0 < weights.sum() < np.inf:
            raise BenchError("dataset.parts: weights must be finite, none below 0 and at least one above.")
        self.cumulative = np.cumsum(weights / weights.sum())
        self.augmented = [bool(p.get("augment", False)) for p in parts.values()]
        self.parts = [self._part(dict(p), split, size) for p in parts.values()]
        self.kept: dict[tuple[int, int], np.ndarray] = {}

    @staticmethod
    def _part(config: dict[str, Any], split: str, size: int) -> Dataset:
        config.pop("weight")
        larger = 4 if config.pop("augment", False) else 1
        train, val = train_and_val(config, {"size": size * larger})
        return train if split == "train" else val

    def load(self, index: int) -> np.ndarray:
        """Choose a part and an image of it; augment."""
        return self.load_many([index])[0]

    def load_many(self, indices: Sequence[int]) -> np.ndarray:
        """Several images, those of one part together."""
        random, which, inner = self._draw(indices)
        images = np.empty((len(indices), self.size, self.size, 3), np.uint8)
        for w, part in enumerate(self.parts):
            rows = np.flatnonzero(np.equal(which, w))
            if self.augmented[w]:
                for row in rows:
                    if (w, inner[row]) not in self.kept:
                        self.kept[w, inner[row]] = part.load(inner[row])
                    images[row] = augment(self.kept[w, inner[row]], self.size, random[row])
            elif len(rows):
                images[rows] = part.load_many([inner[row] for row in rows])
        return images

    def fingerprint(self, indices: Sequence[int]) -> str:
        """Identify the draws, and of every part the images that are drawn."""
        _, which, inner = self._draw(indices)
        chosen = [sorted({i for w, i in zip(which, inner, strict=True) if w == k}) for k in range(len(self.parts))]
        parts = [part.fingerprint(numbers) for part, numbers in zip(self.parts, chosen, strict=True)]
        changes = [[ZOOM, SHIFT, TURN, LIGHT, TINT] if augmented else None for augmented in self.augmented]
        return self.identify(indices, [self.split, list(self.cumulative), changes, parts])

    def _draw(self, indices: Sequence[int]) -> tuple[list[np.random.Generator], list[int], list[int]]:
        """Each image's generator, its part and its number in that part."""
        first = LENGTH["train"] if self.split == "val" else 0
        random = [np.random.Generator(np.random.Philox(key=[KEY, first + int(i)])) for i in indices]
        which = [int(np.searchsorted(self.cumulative, r.random(), side="right")) for r in random]
        return random, which, [int(r.integers(len(self.parts[w]))) for r, w in zip(random, which, strict=True)]

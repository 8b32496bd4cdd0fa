"""A procedural renderer of portraits: a dataset of any size and resolution that needs no download.

Every image follows from its index alone (:mod:`scene`), is aligned as FFHQ's faces are, and comes with its attributes.
The renderer works on batches of pixels with PyTorch, on any device: :func:`renderer.render`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.data import DataFacts, Dataset, Numbered, check_split, register_dataset
from bench.errors import BenchError

RANGES = {"train": range(0, 1_000_000), "val": range(1_000_000, 1_001_000), "test": range(2_000_000, 2_001_000)}
"""Indices of the splits."""
TOGETHER = 2**19
"""Pixels that are rendered at once: 128 images of 64 pixels a side, 8 of 256."""


@register_dataset("synthfaces")
class Synthfaces(Dataset):
    """Rendered portraits, 64 pixels by default."""

    facts = DataFacts(
        title="Synthfaces",
        licence="MIT, as this project",
        how_to_get="built in: rendered on the fly",
        default_limit=12,
    )

    together = True

    def __init__(self, split: str = "test", size: int = 64) -> None:
        check_split("synthfaces", split)
        if size % 8 or not 32 <= size <= 1024:
            raise BenchError(f"dataset.size={size} is not a multiple of 8 from 32 to 1024.")
        self.size = size
        self.indices = RANGES[split]
        self.ids = Numbered(split, len(self.indices))

    def load(self, index: int) -> np.ndarray:
        """Render one image on the CPU."""
        return self.load_many([index])[0]

    def load_many(self, indices: Sequence[int]) -> np.ndarray:
        """Render a batch on the CPU, so many at once as keep the memory below 200 MB (or one)."""
        from bench.data.synthfaces.renderer import render  # what a dataset declares can be read without PyTorch

        most = max(1, TOGETHER // self.size**2)
        parts = [indices[i : i + most] for i in range(0, len(indices), most)]
        return np.concatenate([render([self.indices[i] for i in part], self.size).numpy() for part in parts])

    def attributes(self, index: int) -> dict[str, object]:
        """Glasses, beard, hair and so on."""
        from bench.data.synthfaces.scene import Scene

        return Scene.draw([self.indices[index]]).attributes()[0]

    def fingerprint(self, indices: Sequence[int]) -> str:
        """Identify the portraits by their numbers."""
        return self.identify([self.indices[i] for i in indices], "rendered")

"""Faces from a Gaussian mixture of low rank: images whose posterior is known exactly for every linear operator.

The mixture was fitted to rendered faces at 64 pixels (``python -m scripts.fit_gaussians``); at 32 pixels it is that of
their 2x2 averages, which has the same form. Its images are floats that are neither clipped nor rounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.data import DataFacts, Dataset, Numbered, check_split, register_dataset
from bench.errors import BenchError
from bench.files import sha256

if TYPE_CHECKING:
    from bench.posterior import GaussianMixture

FILE = Path(__file__).parent / "gaussians64.safetensors"
SIZES = (32, 64)
COUNT = {"train": 1_000_000, "val": 10_000, "test": 10_000}
SEED = {"train": 1, "val": 2, "test": 3}


def load_mixture(size: int, path: Path = FILE) -> GaussianMixture:
    """Read the mixture for images of `size` pixels, float64 on the CPU.

    Raises:
        BenchError: there is none for that size, or the file is damaged.

    """
    from bench.posterior import GaussianMixture
    from bench.weights import read_tensors

    if size not in SIZES:
        raise BenchError(f"dataset.size={size} is no size of gaussians: use {' or '.join(map(str, SIZES))}.")
    tensors = {name: t.double() for name, t in read_tensors(path).items()}
    weights = tensors["weights"] / tensors["weights"].sum()
    mixture = GaussianMixture(weights, tensors["means"], tensors["factors"], tensors["stds"])
    return mixture if size == max(SIZES) else mixture.averaged(max(SIZES) // size)


@register_dataset("gaussians")
class Gaussians(Dataset):
    """Images drawn from the mixture, 64 pixels by default; every one follows from its number alone."""

    facts = DataFacts(
        title="Gaussians",
        licence="MIT, as this project",
        how_to_get="built in: drawn from a Gaussian mixture whose posterior is known",
        default_limit=40,
        default_tau=1.0,
        posterior=True,
    )
    range = None

    def __init__(self, split: str = "test", size: int = 64) -> None:
        check_split("gaussians", split)
        self.size = size
        self.split = split
        self.mixture: GaussianMixture = load_mixture(size)
        self.ids = Numbered(split, COUNT[split])

    def load(self, index: int) -> np.ndarray:
        """Draw one image, float32 [size, size, 3]; most intensities lie in [0, 1]."""
        return self.load_many([index])[0]

    def load_many(self, indices: Sequence[int]) -> np.ndarray:
        """Draw several images, float32 [N, size, size, 3]."""
        from bench.contract import Noise

        x = self.mixture.sample(Noise(SEED[self.split], [self.ids[i] for i in indices], ["image"]))[:, 0]
        return x.permute(0, 2, 3, 1).float().numpy()

    def fingerprint(self, indices: Sequence[int]) -> str:
        """Identify the mixture and the numbers."""
        return self.identify(indices, [self.split, sha256(FILE)])

"""A procedural renderer of portraits: a dataset of any size and resolution that needs no download.

Every image follows from its index alone (:mod:`scene`), is aligned as FFHQ's faces are, and comes with its attributes.
The renderer works on batches of pixels with PyTorch, on any device: :func:`render`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bench.data import DataFacts, Dataset, Numbered, check_split, register_dataset
from bench.data.synthfaces import face, surroundings, things
from bench.data.synthfaces.hair import Hair
from bench.data.synthfaces.scene import Scene
from bench.data.synthfaces.view import View
from bench.errors import BenchError

RANGES = {"train": range(0, 1_000_000), "val": range(1_000_000, 1_001_000), "test": range(2_000_000, 2_001_000)}
"""Indices of the splits."""


def _blur(image: Tensor, side: float = 0.07) -> Tensor:
    """The point spread of a lens: three taps along both axes."""
    for axis in (-1, -2):
        padded = torch.cat([image.narrow(axis, 0, 1), image, image.narrow(axis, image.shape[axis] - 1, 1)], axis)
        around = padded.narrow(axis, 0, image.shape[axis]) + padded.narrow(axis, 2, image.shape[axis])
        image = torch.lerp(image, around / 2, 2 * side)
    return image


def render(indices: Sequence[int], size: int, device: torch.device | str = "cpu") -> Tensor:
    """Draw portraits.

    Args:
        indices: non-negative numbers of portraits.
        size: side in pixels.
        device: where to compute.

    Returns:
        uint8 [N, size, size, 3] on the device.

    """
    with torch.no_grad():
        s = View.make(Scene.draw(indices), size, torch.device(device))
        hair = Hair(s)
        image = surroundings.background(s)
        image = hair.back(image)
        bare = s.p["skin"].expand_as(image)
        image = surroundings.neck(s, image, bare)
        image = surroundings.clothes(s, image)
        image = hair.falls(image)
        image, eye = face.head(s, image)
        image = things.glasses(s, image, eye)
        image = things.earrings(s, image)
        image = hair.front(image)
        image = things.hat(s, image)
        return (_develop(s, image) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _develop(s: View, image: Tensor) -> Tensor:
    """What a camera adds: exposure, contrast, colour, vignette and grain."""
    p = s.p
    fall = 1 - p["vignette"] * (s.x.square() + s.y.square()) * 0.5
    warm = torch.stack([1 + p["warmth"], torch.ones_like(p["warmth"]), 1 - p["warmth"]], 1)
    image = image * (p["exposure"] * fall)[:, None] * warm
    grey = image.mean(1, keepdim=True)
    image = torch.lerp(grey, image, p["saturation"][:, None])
    image = (image - 0.45) * p["contrast"][:, None] + 0.45
    image = torch.where(image > 0.7, 0.7 + 0.3 * torch.tanh((image - 0.7) / 0.35), image)
    image = _blur(image)
    one, two = s.noise("fine", 0, s.x, s.y, 256)
    grain = torch.stack([one, 0.7 * one + 0.7 * two, two], 1)
    return (image + p["grain"][:, None] * grain).clamp(0, 1)


@register_dataset("synthfaces")
class Synthfaces(Dataset):
    """Rendered portraits, 64 pixels by default."""

    facts = DataFacts(
        title="Synthfaces",
        licence="MIT, as this project",
        how_to_get="built in: rendered on the fly",
        default_limit=12,
    )

    def __init__(self, split: str = "test", size: int = 64) -> None:
        check_split("synthfaces", split)
        if size % 8 or not 32 <= size <= 1024:
            raise BenchError(f"dataset.size={size} is not a multiple of 8 from 32 to 1024.")
        self.size = size
        self.indices = RANGES[split]
        self.ids = Numbered(split, len(self.indices))

    def load(self, index: int) -> np.ndarray:
        """Render one image on the CPU."""
        return render([self.indices[index]], self.size)[0].numpy()

    def load_many(self, indices: Sequence[int]) -> np.ndarray:
        """Render a batch on the CPU."""
        return render([self.indices[i] for i in indices], self.size).numpy()

    def attributes(self, index: int) -> dict[str, object]:
        """Glasses, beard, hair and so on."""
        return Scene.draw([self.indices[index]]).attributes()[0]

    def fingerprint(self, indices: Sequence[int]) -> str:
        """Identify the portraits by their numbers."""
        return self.identify([self.indices[i] for i in indices], "rendered")

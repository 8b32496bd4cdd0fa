"""Gaussian blur, then every `scale`-th pixel."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from pydantic import Field

from bench.operators import OperatorFacts, register_operator
from bench.operators.separable import Separable

REACH = 4.0
"""The kernel ends at this many standard deviations."""


def blur_matrix(side: int, scale: int, std: float) -> np.ndarray:
    """Weights of the samples at the centres of squares of `scale` pixels, float64 [side / scale, side].

    Each row sums to 1; the image is mirrored at its borders, the border pixel included.
    """
    centre = (np.arange(side // scale) + 0.5) * scale - 0.5
    reach = int(np.ceil(REACH * std)) + 1
    taps = np.floor(centre).astype(int)[:, None] + np.arange(-reach, reach + 2)
    distance = taps - centre[:, None]
    weights = np.where(np.abs(distance) <= REACH * std, np.exp(-0.5 * (distance / std) ** 2), 0.0)
    weights /= weights.sum(1, keepdims=True)
    mirrored = np.concatenate([np.arange(side), np.arange(side)[::-1]])[taps % (2 * side)]
    matrix = np.zeros((side // scale, side))
    np.add.at(matrix, (np.arange(side // scale)[:, None], mirrored), weights)
    return matrix


@register_operator("blur")
class Blur(Separable):
    """Gaussian blur with subsampling; scale=1 for blur alone.

    The wider the kernel against the scale, the smaller the smallest singular values: a pseudo-inverse multiplies the
    noise and the rounding of y by their inverse.

    Args:
        std: standard deviation of the kernel in pixels of the image.

    """

    facts = OperatorFacts(title="Gaussian blur", source="the BD degradation (standard deviation 1.6), mirrored borders")

    def __init__(
        self, size: int | tuple[int, int], scale: int, std: Annotated[float, Field(gt=0)] = 1.6, **common: Any
    ) -> None:
        self.std = float(std)
        super().__init__(size, scale, **common)

    @property
    def kind(self) -> str:
        """With the kernel's width."""
        return f"{self.name} {self.std:g}"

    def matrix(self, side: int) -> np.ndarray:
        """The kernel's weights."""
        return blur_matrix(side, self.scale, self.std)

"""MATLAB's bicubic ``imresize``, with antialiasing, as two small dense matrices per size.

MATLAB stretches Keys' cubic kernel (a = -0.5) by the scale factor when it shrinks an image (antialiasing), normalises
the weights of each output pixel and mirrors the image at its borders. Source: the paper, section 3; the authors' code
(github:jprost76/srvdvae, scripts/imresize.py) for the kernel; Bahat & Michaeli 2020 for the projection.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from bench.operators import OperatorFacts, register_operator
from bench.operators.separable import Separable, apply_matrices


def cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel with a = -0.5, support [-2, 2]."""
    a = np.abs(x)
    near = 1.5 * a**3 - 2.5 * a**2 + 1
    far = -0.5 * a**3 + 2.5 * a**2 - 4 * a + 2
    return np.where(a <= 1, near, np.where(a <= 2, far, 0.0))


def resize_matrix(source: int, target: int) -> np.ndarray:
    """Return the float64 matrix [target, source] of MATLAB's ``imresize`` (bicubic, antialiased) along one side."""
    ratio = target / source
    stretch = min(ratio, 1.0)  # a shrinking kernel is widened, an enlarging one is not
    width = 4 / stretch
    centre = (np.arange(target) + 0.5) / ratio - 0.5
    first = np.floor(centre - width / 2).astype(int)
    taps = first[:, None] + np.arange(math.ceil(width) + 2)
    weights = stretch * cubic(stretch * (centre[:, None] - taps))
    weights /= weights.sum(1, keepdims=True)
    mirrored = np.concatenate([np.arange(source), np.arange(source)[::-1]])[taps % (2 * source)]
    matrix = np.zeros((target, source))
    np.add.at(matrix, (np.arange(target)[:, None], mirrored), weights)
    return matrix


@lru_cache(maxsize=32)
def _enlarging(source: int, target: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(resize_matrix(source, target)).to(device, dtype)


def enlarge(y: Tensor, size: tuple[int, int]) -> Tensor:
    """MATLAB's bicubic enlargement: [..., h, w] -> [..., *size], float32 at least, neither clipped nor rounded."""
    dtype = torch.float64 if y.dtype == torch.float64 else torch.float32
    left, right = (_enlarging(y.shape[i - 2], size[i], y.device, dtype) for i in range(2))
    return apply_matrices(left, right, y)


@register_operator("bicubic")
class Bicubic(Separable):
    """MATLAB's bicubic shrinking."""

    facts = OperatorFacts(title="Bicubic (MATLAB)", source="paper, section 3; MATLAB imresize with antialiasing")

    def matrix(self, side: int) -> np.ndarray:
        """The kernel's weights."""
        return resize_matrix(side, side // self.scale)

"""MATLAB's bicubic ``imresize``, with antialiasing, as two small dense matrices per size.

MATLAB stretches Keys' cubic kernel (a = -0.5) by the scale factor when it shrinks an image (antialiasing), normalises
the weights of each output pixel and mirrors the image at its borders. Source: the paper, section 3; the authors' code
(github:jprost76/srvdvae, scripts/imresize.py) for the kernel; Bahat & Michaeli 2020 for the projection.

The authors' code has two variants, which docs/protocol.md compares: 8 bits after each axis, and the kernel of their
consistency module (CEM).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from bench.errors import BenchError
from bench.operators import OperatorFacts, register_operator
from bench.operators.separable import Separable, apply_matrices

if TYPE_CHECKING:
    from bench.contract import Noise


def cubic(x: np.ndarray, a: float = -0.5) -> np.ndarray:
    """Keys' cubic convolution kernel with the parameter `a`, support [-2, 2]."""
    d = np.abs(x)
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * (d**3 - 5 * d**2 + 8 * d - 4)
    return np.where(d <= 1, near, np.where(d <= 2, far, 0.0))


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


def cem_matrix(source: int, scale: int) -> np.ndarray:
    """Return the float64 matrix [source / scale, source] of the authors' CEM operator along one side.

    Its kernel is the response to an impulse of OpenCV's cubic enlargement (a = -0.75, which OpenCV computes in
    float32), and the image is continued by its border pixels.
    """
    target = source // scale
    centre = (np.arange(target) + 0.5) * scale - 0.5
    taps = np.floor(centre)[:, None].astype(int) + np.arange(-2 * scale, 2 * scale + 2)
    weights = cubic((centre[:, None] - taps) / scale, -0.75)
    weights /= weights.sum(1, keepdims=True)
    matrix = np.zeros((target, source))
    np.add.at(matrix, (np.arange(target)[:, None], taps.clip(0, source - 1)), weights)
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
    """MATLAB's bicubic shrinking, and the authors' variants of it.

    Args:
        rounding: "once", or "each_axis": y is clipped and rounded to 8 bits after the columns of the image are shrunk
            and again after its rows are, as the authors' code does with 8-bit images. A itself is the same.
        kernel: "matlab", or "cem" for the kernel and borders of the authors' consistency module, which is another A.

    """

    facts = OperatorFacts(title="Bicubic (MATLAB)", source="paper, section 3; MATLAB imresize with antialiasing")

    def __init__(
        self,
        size: int | tuple[int, int],
        scale: int,
        *,
        rounding: Literal["once", "each_axis"] = "once",
        kernel: Literal["matlab", "cem"] = "matlab",
        **common: Any,
    ) -> None:
        self.rounding = rounding
        self.kernel = kernel
        super().__init__(size, scale, **common)
        if rounding == "each_axis" and (self.sigma or self.range is None):
            raise BenchError(
                "operator.rounding=each_axis rounds y to 8 bits: it needs sigma=0 and images with a range."
            )

    @property
    def kind(self) -> str:
        """Rounding does not change A, another kernel does."""
        return self.name if self.kernel == "matlab" else f"{self.name}_{self.kernel}"

    def matrix(self, side: int) -> np.ndarray:
        """The kernel's weights."""
        if self.kernel == "cem":
            return cem_matrix(side, self.scale)
        return resize_matrix(side, side // self.scale)

    def observe(self, x: Tensor, noise: Noise | None = None) -> Tensor:
        """Return y, rounded as the settings say; see `Operator.observe`."""
        if self.rounding == "once":
            return super().observe(x, noise)
        rows, columns = self._down
        half = self.round(apply_matrices(rows, torch.eye(self.size[1]).to(columns), x))
        return self.round(apply_matrices(torch.eye(self.low_size[0]).to(rows), columns, half))

"""The degradation y = D x D^T: MATLAB's bicubic ``imresize`` as two small dense matrices per size.

MATLAB stretches Keys' cubic kernel (a = -0.5) by the scale factor when it shrinks an image (antialiasing), normalises
the weights of each output pixel and mirrors the image at its borders. Both directions are linear and separable, so
the adjoint and the pseudo-inverse D^+ = D^T (D D^T)^-1 are exact. Source: the paper, section 3; the authors' code
(github:jprost76/srvdvae, scripts/imresize.py) for the kernel; Bahat & Michaeli 2020 for the projection.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from bench.errors import BenchError


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


def quantise(x: Tensor) -> Tensor:
    """Clip to [0, 1] and round to the 256 levels of an 8-bit image; same shape and dtype."""
    return (x.clamp(0, 1) * 255).round() / 255


def to_uint8(x: Tensor) -> Tensor:
    """Clip [0, 1] and round to uint8."""
    return (x.clamp(0, 1) * 255).round().to(torch.uint8)


class Degradation:
    """Downscaling of square images from `size` to ``size / scale`` and its relatives.

    All operations take [..., H, W] tensors of any leading shape, are linear (no clipping, no rounding) and
    differentiable. The matrices are built in float64 and kept in `dtype`.

    Args:
        scale: integer factor s >= 2 (1 is the identity).
        size: side H of the high-resolution image in pixels; s must divide it.
        device: where the matrices live.
        dtype: float32 or float64.

    Raises:
        BenchError: `scale` does not divide `size`, or leaves fewer than two pixels.

    """

    def __init__(
        self, scale: int, size: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        if scale < 1 or size % scale:
            raise BenchError(f"scale={scale} does not divide the image size {size}: choose a divisor of {size}.")
        if size // scale < 2:
            raise BenchError(f"scale={scale} leaves an image of {size // scale} pixel: choose a smaller scale.")
        self.scale = scale
        self.size = size
        self.low_size = size // scale
        self.device = torch.device(device)
        self.dtype = dtype
        down = resize_matrix(size, self.low_size)
        # D has full row rank, so the small Gram matrix can be solved exactly.
        pinv = np.linalg.solve(down @ down.T, down).T
        self._down, self._pinv, self._up = (
            torch.from_numpy(m).to(device=self.device, dtype=dtype)
            for m in (down, pinv, resize_matrix(self.low_size, size))
        )

    def down(self, x: Tensor) -> Tensor:
        """D x: [..., H, H] -> [..., H/s, H/s]."""
        return self._apply(self._down, x)

    def adjoint(self, y: Tensor) -> Tensor:
        """D^T y: [..., H/s, H/s] -> [..., H, H]; <D x, y> = <x, D^T y>."""
        return self._apply(self._down.T, y)

    def pinv(self, y: Tensor) -> Tensor:
        """D^+ y = D^T (D D^T)^-1 y, the smallest x with D x = y: [..., H/s, H/s] -> [..., H, H]."""
        return self._apply(self._pinv, y)

    def project(self, x: Tensor, y: Tensor) -> Tensor:
        """Return x + D^+ (y - D x), the image nearest to `x` whose downscaled version is `y` (before any clipping)."""
        return x + self.pinv(y - self.down(x))

    def consistent(self, x: Tensor, y: Tensor, rounds: int = 8) -> Tensor:
        """Return an image in [0, 1] near `x` whose downscaled version is nearly `y`.

        Clipping after `project` spoils the consistency where an image is black or white. Projecting and clipping in
        turns converges to an image that is in range and consistent (projections onto convex sets). The paper projects
        once.
        """
        for _ in range(rounds):
            x = self.project(x, y).clamp(0, 1)
        return x

    def up(self, y: Tensor) -> Tensor:
        """MATLAB's bicubic enlargement: [..., H/s, H/s] -> [..., H, H]."""
        return self._apply(self._up, y)

    def observe(self, x: Tensor) -> Tensor:
        """The 8-bit observation: `down`, then `quantise`."""
        return quantise(self.down(x))

    def _apply(self, matrix: Tensor, x: Tensor) -> Tensor:
        if x.shape[-2:] != (matrix.shape[1], matrix.shape[1]):
            raise BenchError(
                f"Expected images of {matrix.shape[1]}x{matrix.shape[1]} pixels, got {x.shape[-2]}x{x.shape[-1]}."
            )
        # A method may sample within autocast; in bf16 this product would be wrong by 1/256 and consistency meaningless.
        with torch.autocast(x.device.type, enabled=False):
            x = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
            return matrix @ x @ matrix.T

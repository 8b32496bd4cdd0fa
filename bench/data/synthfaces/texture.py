"""Periodic noise textures that all images share; each image looks at its own place, angle and scale."""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

SIZE = 512
"""Side of a texture in texels."""


def _spectral_noise(slope: float, seed: int) -> Tensor:
    """Periodic Gaussian noise [SIZE, SIZE] of unit variance whose amplitude falls as frequency^-slope."""
    white = torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    fy = torch.fft.fftfreq(SIZE)[:, None] * SIZE
    fx = torch.fft.rfftfreq(SIZE)[None] * SIZE
    radius = (fx.square() + fy.square()).sqrt().clamp(min=3.0).double()
    noise = torch.fft.irfft2(torch.fft.rfft2(white) * radius**-slope, s=(SIZE, SIZE))
    return (noise - noise.mean()) / noise.std()


@cache
def _mips(name: str, device: torch.device) -> list[Tensor]:
    """Texture [1, 2, S + 1, S + 1] at S = SIZE, SIZE / 2, ..., one texel repeated at the far borders."""
    slope, seed = {"fine": (0.15, 1), "cloud": (1.45, 2), "blob": (2.1, 3)}[name]
    level = torch.stack([_spectral_noise(slope, seed), _spectral_noise(slope, seed + 100)])[None]
    levels = []
    while level.shape[-1] >= 8:
        levels.append(F.pad(level, (0, 1, 0, 1), mode="circular").float().to(device))
        level = F.avg_pool2d(level, 2)
    return levels


def noise(name: str, x: Tensor, y: Tensor, texels: float, pixel: float, blur: float = 0.0) -> tuple[Tensor, Tensor]:
    """Look a texture up.

    Args:
        name: "fine" (almost white), "cloud" (natural image slope) or "blob" (smooth).
        x: coordinates [B, H, W], in units of the image's half side, offsets included.
        y: likewise.
        texels: texels per unit; sets the size of the grain.
        pixel: size of a pixel in the same units; a level is chosen so that a texel is not smaller than that.
        blur: additional levels to go up (out of focus).

    Returns:
        two independent fields [B, H, W], of unit variance before band limiting.

    """
    mips = _mips(name, x.device)
    level = min(max(0, round(math.log2(max(texels * pixel, 1e-6)) + blur)), len(mips) - 1)
    texture = mips[level]
    size = texture.shape[-1] - 1
    step = texels / SIZE  # one texture period is one unit of these
    grid = torch.stack([x, y], -1).mul(step)
    grid = (grid - grid.floor()) * (2.0 * size / (size + 1)) - (size / (size + 1))
    found = F.grid_sample(texture, grid.reshape(1, -1, x.shape[-1], 2), mode="bilinear", align_corners=False)
    return found[0, 0].view_as(x), found[0, 1].view_as(x)

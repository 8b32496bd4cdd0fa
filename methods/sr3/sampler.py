"""Sampling of SR3: ancestral, with all 2000 steps or fewer of them, or deterministic (DDIM).

Sources: Saharia et al. 2021, algorithm 2; Song et al., ICLR 2021, eq. 12 with eta 1 and 0. The images predicted on the
way are kept within [-1, 1], as in the public implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

TRAIN_STEPS = 2000
BETAS = (1e-6, 1e-2)
"""Ends of the linear schedule (public implementation)."""

SamplerName = Literal["ancestral", "ddim"]


def signal_levels() -> Tensor:
    """sqrt(alpha_bar) after 0, 1, ... 2000 steps, float64 [2001]."""
    beta = torch.linspace(*BETAS, TRAIN_STEPS, dtype=torch.float64)
    return torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - beta, 0)]).sqrt()


def sampling_levels(steps: int) -> list[float]:
    """alpha_bar of `steps` levels, evenly spaced from the noisiest of the 2000 to the cleanest, and 1 (no noise)."""
    kept = np.cumprod(1 - np.linspace(*BETAS, TRAIN_STEPS))
    return [*kept[np.linspace(TRAIN_STEPS - 1, 0, steps).round().astype(int)].tolist(), 1.0]


@torch.no_grad()
def sample(
    network: nn.Module,
    levels: Sequence[float],
    condition: Tensor,
    start: Tensor,
    normal: Callable[[], Tensor] | None = None,
    sampler: SamplerName = "ancestral",
) -> Tensor:
    """Sample x given the upsampled observation.

    Args:
        network: as :class:`methods.sr3.unet.Sr3Unet`.
        levels: alpha_bar of `start` and after every step, from :func:`sampling_levels`.
        condition: bicubic upsample of y, [B, 3, H, W] in [-1, 1].
        start: standard normal x_T [B, 3, H, W].
        normal: draws standard normal [B, 3, H, W], the noise of an ancestral step; "ddim" draws nothing.
        sampler: "ancestral" or "ddim".

    Returns:
        all B images, [B, 3, H, W] in [-1, 1].

    """
    x = start
    for now, then in pairwise(levels):  # every step ends at the very level where the next one begins
        noise = network(x, condition, torch.full((len(x),), now**0.5, device=x.device))
        clean = ((x - (1 - now) ** 0.5 * noise) / now**0.5).clamp(-1, 1)
        if sampler == "ddim":
            x = then**0.5 * clean + (1 - then) ** 0.5 * noise
            continue
        kept = now / then
        x = then**0.5 * (1 - kept) / (1 - now) * clean + kept**0.5 * (1 - then) / (1 - now) * x
        if then < 1:
            assert normal is not None
            x = x + ((1 - then) / (1 - now) * (1 - kept)) ** 0.5 * normal()
    return x

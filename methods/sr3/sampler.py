"""Sampling of SR3: ancestral, with all 2000 steps or fewer of them, or deterministic (DDIM).

Sources: Saharia et al. 2021, algorithm 2; Song et al., ICLR 2021, eq. 12 with eta 1 and 0. The images predicted on the
way are kept within [-1, 1], as in the public implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from methods.diffusion.prior import DiffusionPrior, pairs
from methods.diffusion.schedule import linear

TRAIN_STEPS = 2000
BETAS = (1e-6, 1e-2)
"""Ends of the linear schedule (public implementation)."""
ALPHA_BAR = linear(TRAIN_STEPS, *BETAS)
"""float64 [2000]: in float32, 1 - 1e-6 has an error of 6% in what matters."""

SamplerName = Literal["ancestral", "ddim"]


def signal_levels() -> Tensor:
    """sqrt(alpha_bar) after 0, 1, ... 2000 steps, float64 [2001]."""
    return torch.cat([torch.ones(1, dtype=torch.float64), ALPHA_BAR]).sqrt()


def moves_of(steps: int) -> list[tuple[int, int]]:
    """`steps` of the 2000, evenly spaced from the noisiest to the cleanest, each with the next one."""
    return pairs(np.linspace(TRAIN_STEPS - 1, 0, steps).round().astype(int).tolist())


@torch.no_grad()
def sample(
    network: nn.Module,
    moves: Sequence[tuple[int, int]],
    condition: Tensor,
    normal: Callable[[], Tensor],
    sampler: SamplerName = "ancestral",
) -> Tensor:
    """Sample x given the upsampled observation.

    Args:
        network: as :class:`methods.sr3.unet.Sr3Unet`.
        moves: from which step to which, of 1999 to 0 and -1 for no noise; from :func:`moves_of`.
        condition: bicubic upsample of y, [B, 3, H, W] in [-1, 1].
        normal: draws standard normal [B, 3, H, W]: x_T, then, for "ancestral", the noise of all steps but the last.
        sampler: "ancestral" or "ddim".

    Returns:
        all B images, [B, 3, H, W] in [-1, 1].

    """
    signal = ALPHA_BAR.sqrt().float().to(condition.device)
    prior = DiffusionPrior(lambda x, t: network(x, condition, signal[t]), ALPHA_BAR)
    x = normal()
    for t, u in moves:  # every step ends at the very level where the next one begins
        estimate = prior(x, t)
        estimate = estimate._replace(x0=estimate.x0.clamp(-1, 1))
        if sampler == "ddim":
            x = prior.noised(estimate.x0, estimate.noise, u)
        else:
            x = prior.ancestral(x, estimate, t, u, normal() if u >= 0 else x)
    return x

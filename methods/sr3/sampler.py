"""Sampling of SR3 on diffusers' schedulers: ancestral, with all 2000 steps or respaced, or deterministic (DDIM)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor, nn

TRAIN_STEPS = 2000
BETAS = (1e-6, 1e-2)
"""Ends of the linear schedule (public implementation)."""

SamplerName = Literal["ancestral", "ddim"]


def signal_levels() -> Tensor:
    """sqrt(alpha_bar) after 0, 1, ... 2000 steps, float64 [2001]."""
    return torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - _betas(), 0)]).sqrt()


def _betas() -> Tensor:
    return torch.linspace(*BETAS, TRAIN_STEPS, dtype=torch.float64)


def make_scheduler(steps: int, sampler: SamplerName = "ancestral") -> DDPMScheduler | DDIMScheduler:
    """`steps` of the 2000 steps, evenly spaced; predicted images are kept within [-1, 1]."""
    common = {
        "num_train_timesteps": TRAIN_STEPS,
        "beta_start": BETAS[0],
        "beta_end": BETAS[1],
        "beta_schedule": "linear",
        "clip_sample": True,
        "timestep_spacing": "linspace",
    }
    if sampler == "ddim":
        scheduler = DDIMScheduler(**common, set_alpha_to_one=True)
    else:
        scheduler = DDPMScheduler(**common, variance_type="fixed_small")
    # in diffusers' float32, 1 - 1e-6 has an error of 6% in what matters
    scheduler.betas = _betas()
    scheduler.alphas = 1 - scheduler.betas
    scheduler.alphas_cumprod = torch.cumprod(scheduler.alphas, 0)
    scheduler.set_timesteps(steps)
    return scheduler


@torch.no_grad()
def sample(
    network: nn.Module,
    scheduler: DDPMScheduler | DDIMScheduler,
    condition: Tensor,
    start: Tensor,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """Sample x given the upsampled observation.

    Args:
        network: as :class:`methods.sr3.unet.Sr3Unet`.
        scheduler: from :func:`make_scheduler`.
        condition: bicubic upsample of y, [B, 3, H, H] in [-1, 1].
        start: standard normal x_T [B, 3, H, H].
        generators: one per row, for the noise of the ancestral steps.

    Returns:
        all B images, [B, 3, H, H] in [-1, 1] or a little beyond.

    """
    levels = scheduler.alphas_cumprod.sqrt().float().to(start.device)
    x = start
    for t in scheduler.timesteps:
        noise = network(x, condition, levels[t].expand(len(x)))
        x = scheduler.step(noise, t, x, generator=list(generators)).prev_sample
    return x

"""Diffusion posterior sampling (Chung et al. 2023, algorithm 1) on diffusers' ancestral scheduler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn

from bench.contract import Degradation
from methods.dps.schedule import TRAIN_STEPS

GuidanceSchedule = Literal["constant", "noise"]


def make_scheduler(steps: int, clip: bool = True) -> DDPMScheduler:
    """Ancestral sampling with learned-range variance on `steps` of the 1000 steps of a linear schedule.

    `clip` keeps the predicted clean image within [-1, 1].
    """
    scheduler = DDPMScheduler(
        num_train_timesteps=TRAIN_STEPS,
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        variance_type="learned_range",
        clip_sample=clip,
        timestep_spacing="linspace",
    )
    scheduler.set_timesteps(steps)
    return scheduler


def posterior_sample(
    prior: nn.Module,
    scheduler: DDPMScheduler,
    y: Tensor,
    degradation: Degradation,
    start: Tensor,
    generators: Sequence[torch.Generator],
    guidance: float,
    schedule: GuidanceSchedule = "constant",
    coupled: bool = False,
) -> Tensor:
    """Sample x given y.

    Args:
        prior: predicts noise and variance, as :class:`methods.dps.unet.Prior`.
        scheduler: from :func:`make_scheduler`.
        y: observations [B, 3, h, w] in [0, 1].
        degradation: the operator D.
        start: standard normal x_T [B, 3, H, H].
        generators: one per row, for the noise of the steps.
        guidance: step size zeta of the gradient of the distance (published: 0.3).
        schedule: "constant" (published); "noise" multiplies zeta by the standard deviation of the noise in x_t, so
            that guidance fades out at the end.
        coupled: take one norm over the whole batch, as the published code does; its results depend on the batch size
            (its issue 12). Off, each row has its own norm, so that a batch gives what single images give.

    Returns:
        [B, 3, H, H] in [-1, 1] or a little beyond.

    """
    x, target = start, 2 * y - 1
    for t in scheduler.timesteps:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            step = scheduler.step(prior(x, t), t, x, generator=list(generators))
            residual = (target - degradation.down(step.pred_original_sample)).flatten(1)
            distance = residual.norm() if coupled else residual.norm(dim=1).sum()
            (gradient,) = torch.autograd.grad(distance, x)
        fade = 1.0 if schedule == "constant" else float(1 - scheduler.alphas_cumprod[t]) ** 0.5
        x = step.prev_sample.detach() - guidance * fade * gradient
    return x.detach()

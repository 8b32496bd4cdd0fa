"""Training of the unconditional diffusion prior: noise prediction with learned variance.

Source of the loss: Nichol & Dhariwal 2021 (github:openai/improved-diffusion), L_hybrid: the mean square error of the
noise, plus the variational bound in bits per dimension with the mean's gradient stopped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bench.contract import BatchNoise, Trainable, register_trainable
from methods.dps.sampler import TRAIN_STEPS, make_scheduler
from methods.dps.unet import UnetConfig, make_unet

PREVIEW_STEPS = 50


class Schedule(nn.Module):
    """Coefficients of the linear schedule, one per step, as float32 buffers [1000]."""

    def __init__(self) -> None:
        super().__init__()
        beta = torch.linspace(1e-4, 0.02, TRAIN_STEPS, dtype=torch.float64)
        kept = torch.cumprod(1 - beta, 0)
        before = torch.cat([torch.ones(1, dtype=torch.float64), kept[:-1]])
        posterior = beta * (1 - before) / (1 - kept)
        posterior[0] = posterior[1]  # the first one is 0, its logarithm is needed
        for name, value in {
            "signal": kept.sqrt(),
            "noise": (1 - kept).sqrt(),
            "log_beta": beta.log(),
            "log_posterior": posterior.log(),
            "from_x0": beta * before.sqrt() / (1 - kept),
            "from_xt": (1 - before) * (1 - beta).sqrt() / (1 - kept),
        }.items():
            self.register_buffer(name, value.float(), persistent=False)

    def at(self, name: str, t: Tensor) -> Tensor:
        """Values of a coefficient at steps t [B], as [B, 1, 1, 1]."""
        buffer = getattr(self, name)
        assert isinstance(buffer, Tensor)
        return buffer[t][:, None, None, None]


def bound(s: Schedule, x0: Tensor, xt: Tensor, t: Tensor, eps: Tensor, mixing: Tensor) -> Tensor:
    """Term of the variational bound at step t, in bits per dimension [B].

    Args:
        s: the schedule.
        x0: images in [-1, 1].
        xt: noisy images at step t.
        t: steps [B] from 0 to 999.
        eps: predicted noise.
        mixing: the network's variance output: from -1 (posterior variance) to 1 (beta).

    """
    log_low, log_high = s.at("log_posterior", t), s.at("log_beta", t)
    log_variance = torch.lerp(log_low, log_high, (mixing + 1) / 2)
    predicted = ((xt - s.at("noise", t) * eps) / s.at("signal", t)).clamp(-1, 1)
    mean = s.at("from_x0", t) * predicted + s.at("from_xt", t) * xt
    truth = s.at("from_x0", t) * x0 + s.at("from_xt", t) * xt
    difference = log_low - log_variance
    kl = 0.5 * (difference.exp() - difference - 1 + (truth - mean).square() * torch.exp(-log_variance))
    std = torch.exp(0.5 * log_variance)
    above = torch.where(x0 > 0.999, torch.ones_like(x0), torch.special.ndtr((x0 - mean + 1 / 255) / std))
    below = torch.where(x0 < -0.999, torch.zeros_like(x0), torch.special.ndtr((x0 - mean - 1 / 255) / std))
    likelihood = -(above - below).clamp(min=1e-12).log()
    return torch.where(t[:, None, None, None] == 0, likelihood, kl).mean((1, 2, 3)) / math.log(2)


def unet_config(settings: Mapping[str, Any]) -> UnetConfig:
    """Make the U-Net's configuration from plain settings."""
    return UnetConfig(**settings)


@register_trainable("diffusion")
class DiffusionTraining(Trainable):
    """Fit the prior of DPS.

    Args:
        unet: keys of :class:`methods.dps.unet.UnetConfig`.

    """

    def __init__(self, unet: Mapping[str, Any]) -> None:
        super().__init__()
        self.config = unet_config(unet)
        self.unet = make_unet(self.config)
        self.schedule = Schedule()

    def trained(self) -> dict[str, nn.Parameter]:
        """All parameters, by diffusers' names."""
        return dict(self.unet.named_parameters())

    def forward(self, x: Tensor, y: Tensor | None, noise: BatchNoise) -> dict[str, Tensor]:
        """L_hybrid, its mean square error and its bound."""
        s = self.schedule
        t = (noise.uniform() * TRAIN_STEPS).long()
        eps = noise.normal(*x.shape[1:])
        x0 = 2 * x - 1
        xt = s.at("signal", t) * x0 + s.at("noise", t) * eps
        out = self.unet(xt, t).sample.float()
        predicted, mixing = out.chunk(2, 1)
        error = (predicted - eps).square().mean()
        vlb = bound(s, x0, xt, t, predicted.detach(), mixing).mean()
        return {"loss": error + vlb, "mse": error, "vlb": vlb}

    @torch.no_grad()
    def preview(self, x: Tensor, y: Tensor | None, noise: BatchNoise) -> Tensor:
        """Unconditional samples in 50 steps."""
        scheduler = make_scheduler(PREVIEW_STEPS)
        sample = noise.normal(*x.shape[1:])
        for t in scheduler.timesteps:
            seed = int(1e6 * float(noise.uniform().flatten()[0]))
            generator = torch.Generator(x.device).manual_seed(seed)
            sample = scheduler.step(self.unet(sample, t).sample.float(), t, sample, generator=generator).prev_sample
        return ((sample + 1) / 2).clamp(0, 1)

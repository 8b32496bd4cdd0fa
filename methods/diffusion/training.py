"""Training of the unconditional diffusion prior: noise prediction with learned variance.

Source of the loss: Nichol & Dhariwal 2021 (github:openai/improved-diffusion), L_hybrid: the mean square error of the
noise, plus the variational bound in bits per dimension with the mean's gradient stopped.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from bench.training.trainable import BatchNoise, Trainable, register_trainable
from methods.diffusion.checkpoints import load_weights
from methods.diffusion.prior import DiffusionPrior, pairs, spread
from methods.diffusion.schedule import TRAIN_STEPS, Schedule
from methods.diffusion.unet import PriorNetwork, UnetConfig

PREVIEW_STEPS = 50


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


@register_trainable("diffusion")
class DiffusionTraining(Trainable):
    """Fit the prior of DPS.

    Args:
        unet: shape of the network. With ``prediction: velocity`` the square error is that of
            the velocity: the noise's, divided by the share of the signal.
        weights: file to begin with, or None.

    """

    def __init__(self, unet: UnetConfig, weights: str | None = None) -> None:
        super().__init__()
        self.network = PriorNetwork(unet)
        if weights:
            load_weights(self.network, weights)
        self.schedule = Schedule(self.network.config.alpha_bar)

    def trained(self) -> dict[str, nn.Parameter]:
        """All parameters, by diffusers' names."""
        return dict(self.network.unet.named_parameters())

    def forward(self, x: Tensor, y: Tensor | None, noise: BatchNoise) -> dict[str, Tensor]:
        """L_hybrid, its mean square error and its bound."""
        s = self.schedule
        t = (noise.uniform() * TRAIN_STEPS).long()
        eps = noise.normal(*x.shape[1:])
        x0 = 2 * x - 1
        xt = s.at("signal", t) * x0 + s.at("noise", t) * eps
        predicted, mixing = self.network(xt, t).chunk(2, 1)
        if self.network.config.prediction == "velocity":
            error = (predicted - (s.at("signal", t) * eps - s.at("noise", t) * x0)).square().mean()
            predicted = s.at("noise", t) * xt + s.at("signal", t) * predicted
        else:
            error = (predicted - eps).square().mean()
        vlb = bound(s, x0, xt, t, predicted.detach(), mixing).mean()
        return {"loss": error + vlb, "mse": error, "vlb": vlb}

    @torch.no_grad()
    def preview(self, x: Tensor, y: Tensor | None, noise: BatchNoise) -> Tensor:
        """Unconditional samples in 50 steps."""
        shape = self.network.config
        prior = DiffusionPrior(self.network, shape.alpha_bar, shape.prediction, learned=shape.learned_variance)
        sample = noise.normal(*x.shape[1:])
        for t, u in pairs(spread(TRAIN_STEPS, PREVIEW_STEPS)):
            estimate = prior(sample, t)
            estimate = estimate._replace(x0=estimate.x0.clamp(-1, 1))
            sample = prior.ancestral(sample, estimate, t, u, noise.normal(*x.shape[1:]))
        return ((sample + 1) / 2).clamp(0, 1)

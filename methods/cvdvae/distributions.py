"""The two distributions of a VD-VAE: diagonal Gaussians of its latents and the mixture of logistics of its output.

Sources: Child 2021 and github:openai/vdvae for the parametrisation; Salimans et al. 2017 (PixelCNN++) for the mixture.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

MIN_LOG_SCALE = -7.0
"""Of the published output."""
EDGE = 1e-5
"""Uniform numbers stay this far from 0 and 1 where their logarithms are taken."""


class Gaussian(NamedTuple):
    """A diagonal Gaussian; both tensors have one shape."""

    mean: Tensor
    log_std: Tensor

    @classmethod
    def from_parameters(
        cls, parameters: Tensor, min_log_std: float | None = None, max_log_std: float | None = None
    ) -> Gaussian:
        """Means and logarithms of the deviations, each one half of the channels of [B, 2 * C, H, W].

        Half precision becomes float32: the KL is a difference of numbers that bf16 rounds to three digits.
        """
        if parameters.dtype in (torch.bfloat16, torch.float16):
            parameters = parameters.float()
        mean, log_std = parameters.chunk(2, 1)
        if min_log_std is not None or max_log_std is not None:
            log_std = log_std.clamp(min_log_std, max_log_std)
        return cls(mean, log_std)

    def draw(self, normal: Tensor, tau: float = 1.0) -> Tensor:
        """Mean plus tau times the standard deviation times a standard normal draw."""
        return self.mean + torch.exp(self.log_std + math.log(tau)) * normal

    def kl(self, other: Gaussian) -> Tensor:
        """KL(self || other) in nats, elementwise."""
        variance = torch.exp(2 * self.log_std) + (self.mean - other.mean).square()
        return other.log_std - self.log_std - 0.5 + 0.5 * variance * torch.exp(-2 * other.log_std)


class LogisticMixture:
    """A mixture of discretised logistics over RGB pixels; green depends on red, blue on both.

    Args:
        parameters: [B, 10 * M, H, W] for M components: M logits, then for each colour M means, M log scales and M
            coefficients.
        bits: 8 or 5 bits per channel, which sets the width of a bin. Values are in [-1, 1].
        min_log_scale, max_log_scale: bounds of the log scales; -7 and none as published.

    """

    def __init__(
        self,
        parameters: Tensor,
        bits: int = 8,
        min_log_scale: float = MIN_LOG_SCALE,
        max_log_scale: float | None = None,
    ) -> None:
        b, channels, h, w = parameters.shape
        m = channels // 10
        self.half_bin = 1 / (2**bits - 1)
        self.logits = parameters[:, :m]
        rest = parameters[:, m:].reshape(b, 3, 3, m, h, w)
        self.means = rest[:, :, 0]
        self.log_scales = rest[:, :, 1].clamp(min_log_scale, max_log_scale)
        self.coefficients = torch.tanh(rest[:, :, 2])  # red to green, red to blue, green to blue

    def log_prob(self, x: Tensor) -> Tensor:
        """Log probability [B] in nats of images [B, 3, H, W] with values in [-1, 1], summed over pixels."""
        red, green = x[:, 0, None], x[:, 1, None]
        c = self.coefficients
        shift = torch.stack([torch.zeros_like(c[:, 0]), c[:, 0] * red, c[:, 1] * red + c[:, 2] * green], 1)
        x = x[:, :, None]
        centred = x - self.means - shift
        inverse = torch.exp(-self.log_scales)
        above, below = inverse * (centred + self.half_bin), inverse * (centred - self.half_bin)
        inside = torch.sigmoid(above) - torch.sigmoid(below)
        middle = inverse * centred
        # where a bin has almost no mass its logarithm is taken from the density in its middle
        density = middle - self.log_scales - 2 * F.softplus(middle) + math.log(2 * self.half_bin)
        log_inside = torch.where(inside > 1e-5, torch.log(inside.clamp(min=1e-12)), density)
        log_prob = torch.where(x > 0.999, -F.softplus(below), log_inside)
        log_prob = torch.where(x < -0.999, above - F.softplus(above), log_prob)
        mixed = torch.logsumexp(log_prob.sum(1) + F.log_softmax(self.logits, 1), 1)
        return mixed.sum((1, 2))

    def draw(self, gumbel: Tensor, logistic: Tensor) -> Tensor:
        """Draw images [B, 3, H, W] in [-1, 1].

        Args:
            gumbel: uniform [B, M, H, W] in [0, 1) that chooses the component.
            logistic: uniform [B, 3, H, W] in [0, 1) that draws from it.

        """
        gumbel, u = (EDGE + (1 - 2 * EDGE) * t for t in (gumbel, logistic))
        chosen = self._component((self.logits - torch.log(-torch.log(gumbel))).argmax(1, keepdim=True))
        means, log_scales, coefficients = chosen
        return self._couple(means + torch.exp(log_scales) * (torch.log(u) - torch.log1p(-u)), coefficients)

    def mode(self) -> Tensor:
        """Means of the most probable component, [B, 3, H, W] in [-1, 1]."""
        means, _, coefficients = self._component(self.logits.argmax(1, keepdim=True))
        return self._couple(means, coefficients)

    def mean(self) -> Tensor:
        """Expected image [B, 3, H, W] in [-1, 1], the clipping of each component's mean included."""
        weight = F.softmax(self.logits, 1)
        b, m, h, w = self.logits.shape
        flat = [t.transpose(1, 2).reshape(b * m, 3, h, w) for t in (self.means, self.coefficients)]
        return (self._couple(*flat).view(b, m, 3, h, w) * weight[:, :, None]).sum(1)

    def _component(self, index: Tensor) -> list[Tensor]:
        index = index[:, None].expand(-1, 3, -1, -1, -1)
        return [t.gather(2, index)[:, :, 0] for t in (self.means, self.log_scales, self.coefficients)]

    @staticmethod
    def _couple(x: Tensor, coefficients: Tensor) -> Tensor:
        red = x[:, 0].clamp(-1, 1)
        green = (x[:, 1] + coefficients[:, 0] * red).clamp(-1, 1)
        blue = (x[:, 2] + coefficients[:, 1] * red + coefficients[:, 2] * green).clamp(-1, 1)
        return torch.stack([red, green, blue], 1)

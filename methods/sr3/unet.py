"""The conditional U-Net of SR3 (Saharia et al. 2021) in the shape of the public implementation.

Source of the shape and of the parameters' names, so that its checkpoints load unchanged:
github:Janspiry/Image-Super-Resolution-via-Iterative-Refinement, model/sr3_modules/unet.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.diffusion.shape import UnetShape


class Sr3Config(UnetShape):
    """Shape of the network; the defaults are those of FFHQ-256 with 64 base channels.

    Attributes:
        groups: groups of the normalisation.
        dropout: probability, in training.

    """

    channels: int = 64
    multipliers: Sequence[int] = (1, 2, 4, 8, 16)
    attention: Sequence[int] = ()
    groups: int = 16
    dropout: float = 0.0


class NoiseLevel(nn.Module):
    """Sines and cosines [B, dim] of the noise level sqrt(alpha_bar) [B, 1]."""

    frequencies: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        half = dim // 2
        frequencies = torch.exp(-math.log(1e4) * torch.arange(half, dtype=torch.float32) / half)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, level: Tensor) -> Tensor:
        """[B, 1] to [B, dim]."""
        phase = level * self.frequencies
        return torch.cat([phase.sin(), phase.cos()], -1)


class Convolved(nn.Module):
    """Normalisation, SiLU, dropout and a 3x3 convolution."""

    def __init__(self, inputs: int, outputs: int, groups: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.GroupNorm(groups, inputs), nn.SiLU(), nn.Dropout(dropout), nn.Conv2d(inputs, outputs, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, r, r] to [B, outputs, r, r]."""
        out: Tensor = self.block(x)
        return out


class Shift(nn.Module):
    """What the noise level adds to each channel."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.noise_func = nn.Sequential(nn.Linear(inputs, outputs))

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """Add to [B, C, r, r]."""
        return x + self.noise_func(level)[:, :, None, None]


class Residual(nn.Module):
    """Two convolutions, with the noise level between them."""

    def __init__(self, inputs: int, outputs: int, config: Sr3Config) -> None:
        super().__init__()
        self.noise_func = Shift(config.channels, outputs)
        self.block1 = Convolved(inputs, outputs, config.groups)
        self.block2 = Convolved(outputs, outputs, config.groups, config.dropout)
        self.res_conv = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """[B, inputs, r, r] to [B, outputs, r, r]."""
        return self.block2(self.noise_func(self.block1(x), level)) + self.res_conv(x)


class Attention(nn.Module):
    """Self-attention with one head over all pixels."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, r, r] to the same."""
        q, k, v = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).chunk(3, 2)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return x + self.out(mixed.unflatten(2, x.shape[2:]))


class Stage(nn.Module):
    """A residual block, with attention behind it or not."""

    def __init__(self, inputs: int, outputs: int, config: Sr3Config, attention: bool) -> None:
        super().__init__()
        self.res_block = Residual(inputs, outputs, config)
        if attention:
            self.attn = Attention(outputs, config.groups)
        self.attention = attention

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """[B, inputs, r, r] to [B, outputs, r, r]."""
        x = self.res_block(x, level)
        return self.attn(x) if self.attention else x


class Down(nn.Module):
    """Halve the resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, r, r] to [B, C, r/2, r/2]."""
        return self.conv(x)


class Up(nn.Module):
    """Double the resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, r, r] to [B, C, 2r, 2r]."""
        return self.conv(F.interpolate(x, scale_factor=2.0))


class Sr3Unet(nn.Module):
    """Predicts the noise in x_t given the upsampled observation and the continuous noise level."""

    def __init__(self, config: Sr3Config) -> None:
        super().__init__()
        self.config = config
        c, levels = config.channels, len(config.multipliers)
        colours = 3 * config.patch**2
        self.noise_level_mlp = nn.Sequential(NoiseLevel(c), nn.Linear(c, 4 * c), nn.SiLU(), nn.Linear(4 * c, c))
        resolution, width, kept = config.size // config.patch, c, [c]
        self.downs = nn.ModuleList([nn.Conv2d(2 * colours, c, 3, padding=1)])
        for level, multiplier in enumerate(config.multipliers):
            for _ in range(config.blocks):
                self.downs.append(Stage(width, c * multiplier, config, resolution in config.attention))
                width = c * multiplier
                kept.append(width)
            if level < levels - 1:
                self.downs.append(Down(width))
                kept.append(width)
                resolution //= 2
        self.mid = nn.ModuleList([Stage(width, width, config, attention) for attention in (True, False)])
        self.ups = nn.ModuleList()
        for level, multiplier in reversed(list(enumerate(config.multipliers))):
            for _ in range(config.blocks + 1):
                attention = resolution in config.attention
                self.ups.append(Stage(width + kept.pop(), c * multiplier, config, attention))
                width = c * multiplier
            if level > 0:
                self.ups.append(Up(width))
                resolution *= 2
        self.final_conv = Convolved(width, colours, config.groups)

    def forward(self, x: Tensor, condition: Tensor, level: Tensor) -> Tensor:
        """Predict the noise.

        Args:
            x: noisy images x_t [B, 3, H, H], of clean ones in [-1, 1].
            condition: the upsampled observation [B, 3, H, H] in [-1, 1].
            level: sqrt(alpha_bar) [B].

        Returns:
            float32 [B, 3, H, H].

        """
        patch = self.config.patch
        embedded = self.noise_level_mlp(level[:, None])
        h = torch.cat([F.pixel_unshuffle(condition, patch), F.pixel_unshuffle(x, patch)], 1)
        kept = []
        for layer in self.downs:
            h = layer(h, embedded) if isinstance(layer, Stage) else layer(h)
            kept.append(h)
        for layer in self.mid:
            h = layer(h, embedded)
        for layer in self.ups:
            h = layer(torch.cat([h, kept.pop()], 1), embedded) if isinstance(layer, Stage) else layer(h)
        out = F.pixel_shuffle(self.final_conv(h).float(), patch)
        if self.config.prediction == "noise":
            return out
        signal = level[:, None, None, None]
        return (1 - signal.square()).sqrt() * x + signal * out

"""The hierarchical conditional flow of Liang et al. (ICCV 2021) for super-resolution.

Source of the shape and of the parameters' names, so that its checkpoints load unchanged: github:JingyunLiang/HCFlow,
codes/models/modules. An image is squeezed level by level; each level keeps some channels and explains the others by a
conditional flow that sees what was kept and the features of the coarser levels. What is left at the end is the
low-resolution image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.errors import BenchError
from bench.network import Settings

SLOPE = 0.2
RESIDUAL = 0.2
LOG_STD_LR = -6.0
"""Logarithm of the standard deviation of the narrow Gaussian around the observation."""


class HcflowConfig(Settings):
    """Shape of the flow; the defaults are those of the official x8 configuration.

    Attributes:
        levels: times the image is squeezed; the scale factor is 2 ** levels.
        steps: flow steps of a level, of which `conditional` are conditional ones.
        conditional: conditional flow steps of a level.
        hidden: channels inside an affine coupling.
        features: channels of the RRDB features.
        growth: channels that each convolution adds inside an RRDB.
        blocks: RRDBs of the two trunks of a level.
        quant: levels of the dequantisation: noise uniform in [0, 1 / quant).

    """

    levels: int = 3
    steps: int = 26
    conditional: int = 13
    hidden: int = 64
    features: int = 64
    growth: int = 32
    blocks: Sequence[int] = (5, 5)
    quant: int = 256


class ActNorm(nn.Module):
    """A shift and a scale per channel, which the first batch sets so that its answers have mean 0 and variance 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.logs = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.pending = False

    @torch.no_grad()
    def set_by(self, x: Tensor) -> None:
        """Take the statistics of [B, C, r, r]."""
        mean = x.mean((0, 2, 3), keepdim=True)
        std = (x - mean).square().mean((0, 2, 3), keepdim=True).sqrt()
        self.bias.copy_(-mean)
        self.logs.copy_(-(std + 1e-6).log())
        self.pending = False

    def forward(self, x: Tensor) -> Tensor:
        """Normalise."""
        if self.pending:
            self.set_by(x)
        return (x + self.bias) * self.logs.exp()

    def inverse(self, x: Tensor) -> Tensor:
        """Undo `forward`."""
        return x * (-self.logs).exp() - self.bias

    def log_det(self, pixels: int) -> Tensor:
        """Logarithm of the Jacobian's determinant for an image of so many pixels."""
        return self.logs.sum() * pixels


class InvertibleConv(nn.Module):
    """An invertible 1x1 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linalg.qr(torch.randn(channels, channels))[0].contiguous())
        self.frozen: Tensor | None = None

    def inverted(self) -> Tensor:
        """The inverse matrix, computed in float64."""
        return torch.linalg.inv(self.weight.double()).to(self.weight.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Mix the channels."""
        return F.conv2d(x, self.weight[:, :, None, None])

    def inverse(self, x: Tensor) -> Tensor:
        """Undo `forward`."""
        inverse = self.inverted() if self.frozen is None else self.frozen
        return F.conv2d(x, inverse[:, :, None, None])

    def log_det(self, pixels: int) -> Tensor:
        """Logarithm of the Jacobian's determinant for an image of so many pixels."""
        return torch.linalg.slogdet(self.weight)[1] * pixels


class NormedConv(nn.Conv2d):
    """A convolution without bias, and an ActNorm behind it."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        nn.init.xavier_normal_(self.weight)
        self.weight.data.mul_(0.1)
        self.actnorm = ActNorm(outputs)

    def forward(self, input: Tensor) -> Tensor:
        """[B, inputs, r, r] to [B, outputs, r, r]."""
        return self.actnorm(super().forward(input))


class ZeroConv(nn.Conv2d):
    """A 3x3 convolution that begins at zero, with a learned scale per channel."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)
        assert self.bias is not None
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)
        self.logs = nn.Parameter(torch.zeros(outputs, 1, 1))

    def forward(self, input: Tensor) -> Tensor:
        """[B, inputs, r, r] to [B, outputs, r, r]."""
        return super().forward(input) * torch.exp(3 * self.logs)


class CouplingNet(nn.Module):
    """Three convolutions."""

    def __init__(self, inputs: int, outputs: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = NormedConv(inputs, hidden, 3)
        self.conv2 = NormedConv(hidden, hidden, 1)
        self.conv3 = ZeroConv(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, r, r] to [B, outputs, r, r]."""
        return self.conv3(F.relu(self.conv2(F.relu(self.conv1(x)))))


class Coupling(nn.Module):
    """Affine coupling: the first half of the channels, and a condition, shift and scale the second half."""

    def __init__(self, channels: int, condition: int, hidden: int) -> None:
        super().__init__()
        self.kept = channels // 2
        self.f = CouplingNet(self.kept + condition, 2 * (channels - self.kept), hidden)

    def _parameters_of(self, kept: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        h = self.f(kept if condition is None else torch.cat([kept, condition], 1))
        return h[:, 0::2], 0.318 * torch.atan(2 * h[:, 1::2])

    def forward(self, x: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the answer and log-determinants [B]."""
        kept, rest = x[:, : self.kept], x[:, self.kept :]
        shift, log_scale = self._parameters_of(kept, condition)
        return torch.cat([kept, (rest + shift) * log_scale.exp()], 1), log_scale.sum((1, 2, 3))

    def inverse(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """Undo `forward`."""
        kept, rest = x[:, : self.kept], x[:, self.kept :]
        shift, log_scale = self._parameters_of(kept, condition)
        return torch.cat([kept, rest * (-log_scale).exp() - shift], 1)


class FlowStep(nn.Module):
    """ActNorm, invertible convolution and affine coupling."""

    def __init__(self, channels: int, condition: int, hidden: int) -> None:
        super().__init__()
        self.actnorm = ActNorm(channels)
        self.permute = InvertibleConv(channels)
        self.affine = Coupling(channels, condition, hidden)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the answer and log-determinants [B]."""
        pixels = x.shape[2] * x.shape[3]
        out, log_det = self.affine(self.permute(self.actnorm(x)), condition)
        return out, log_det + self.actnorm.log_det(pixels) + self.permute.log_det(pixels)

    def inverse(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Undo `forward`."""
        return self.actnorm.inverse(self.permute.inverse(self.affine.inverse(x, condition)))


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees the answers of those before it."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        for i in range(1, 6):
            layer = nn.Conv2d(features + (i - 1) * growth, growth if i < 5 else features, 3, padding=1)
            nn.init.xavier_normal_(layer.weight)
            layer.weight.data.mul_(0.1)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
            self.add_module(f"conv{i}", layer)

    def forward(self, x: Tensor) -> Tensor:
        """[B, features, r, r] to the same."""
        seen = x
        *inner, last = self.children()
        for layer in inner:
            seen = torch.cat([seen, F.leaky_relu(layer(seen), SLOPE, inplace=True)], 1)
        return torch.add(x, last(seen), alpha=RESIDUAL)


class Rrdb(nn.Module):
    """Residual in residual dense block (ESRGAN)."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.RDB1 = DenseBlock(features, growth)
        self.RDB2 = DenseBlock(features, growth)
        self.RDB3 = DenseBlock(features, growth)

    def forward(self, x: Tensor) -> Tensor:
        """[B, features, r, r] to the same."""
        return torch.add(x, self.RDB3(self.RDB2(self.RDB1(x))), alpha=RESIDUAL)


class ConditionalFlow(nn.Module):
    """The distribution of a level's other channels given those it keeps and the coarser levels' features."""

    def __init__(self, config: HcflowConfig, channels: int, kept: int, coarser: int) -> None:
        super().__init__()
        features = config.features
        self.conv_first = nn.Conv2d(kept + 2 * features * coarser, features, 3, padding=1)
        self.RRDB_trunk0, self.RRDB_trunk1 = (
            nn.Sequential(*(Rrdb(features, config.growth) for _ in range(n))) for n in config.blocks
        )
        self.trunk_conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.additional_flow_steps = nn.ModuleList(
            FlowStep(channels - kept, 2 * features, config.hidden) for _ in range(config.conditional)
        )
        self.f = ZeroConv(2 * features, 2 * (channels - kept))

    def features(self, u: Tensor) -> Tensor:
        """RRDB features [B, 2 * features, r, r] of the condition."""
        first = self.conv_first(u)
        middle = self.RRDB_trunk0(first)
        return torch.cat([middle, self.trunk_conv1(self.RRDB_trunk1(middle)) + first], 1)

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        """Log-probability [B] of x in nats."""
        total = x.new_zeros(len(x))
        for step in self.additional_flow_steps:
            x, log_det = step(x, features)
            total = total + log_det
        h = self.f(features)
        return total + gaussian_log_prob(x, h[:, 0::2], h[:, 1::2])

    def draw(self, normal: Tensor, features: Tensor) -> Tensor:
        """Turn scaled normal noise [B, C, r, r] into a sample."""
        h = self.f(features)
        x = h[:, 0::2] + h[:, 1::2].exp() * normal
        for step in reversed(self.additional_flow_steps):
            assert isinstance(step, FlowStep)
            x = step.inverse(x, features)
        return x


def gaussian_log_prob(x: Tensor, mean: Tensor, log_std: Tensor | float) -> Tensor:
    """Log-density [B] in nats of a diagonal Gaussian."""
    log_std = torch.as_tensor(log_std, dtype=x.dtype, device=x.device)
    terms = log_std + 0.5 * (x - mean).square() * (-2 * log_std).exp() + 0.5 * math.log(2 * math.pi)
    return -terms.sum((1, 2, 3))


class _Place(nn.Module):
    """Takes the number that the official code gives to a layer without parameters."""


class FlowNet(nn.Module):
    """All levels; the finest is level 0."""

    def __init__(self, config: HcflowConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList()
        self.kept: list[int] = []
        channels = 3
        for level in range(config.levels):
            last = level == config.levels - 1
            channels *= 4
            kept = 3 if last else channels // 2
            self.layers.append(_Place())  # squeeze
            self.layers.extend(FlowStep(channels, 0, config.hidden) for _ in range(config.steps - config.conditional))
            self.layers.append(_Place())  # split
            flow = ConditionalFlow(config, channels, kept, config.levels - 1 - level)
            self.add_module(f"level{level}_condFlow", flow)
            self.kept.append(kept)
            channels = kept

    def conditional(self, level: int) -> ConditionalFlow:
        """The conditional flow of a level."""
        flow = self.get_submodule(f"level{level}_condFlow")
        assert isinstance(flow, ConditionalFlow)
        return flow

    def steps(self, level: int) -> list[FlowStep]:
        """The unconditional steps of a level."""
        count = self.config.steps - self.config.conditional
        first = level * (count + 2) + 1
        return list(self.layers[first : first + count])  # type: ignore[arg-type]


class Hcflow(nn.Module):
    """x to y and latents, and back."""

    def __init__(self, config: HcflowConfig) -> None:
        super().__init__()
        if config.steps <= config.conditional:
            raise BenchError(f"steps={config.steps} of the flow must be more than conditional={config.conditional}.")
        self.config = config
        self.flow = FlowNet(config)

    def act_norms(self) -> Iterator[ActNorm]:
        """All ActNorms."""
        return (m for m in self.modules() if isinstance(m, ActNorm))

    def freeze(self) -> None:
        """Invert all convolutions once; the weights must not change afterwards."""
        for module in self.modules():
            if isinstance(module, InvertibleConv):
                module.frozen = module.inverted()

    def log_prob(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Log-density of dequantised images and observations.

        Args:
            x: [B, 3, H, H], 8-bit levels in [0, 1] plus uniform noise in [0, 1 / quant).
            y: [B, 3, h, h] in [0, 1].

        Returns:
            log p(x, y) [B] in nats, the observation as a narrow Gaussian around the flow's one, and the flow's
            observation [B, 3, h, h], which is rounded to 8 bits with the gradient of the identity.

        """
        total = x.new_zeros(len(x))
        kept, others = [], []
        for level in range(self.config.levels):
            x = F.pixel_unshuffle(x, 2)
            for step in self.flow.steps(level):
                x, log_det = step(x)
                total = total + log_det
            others.append(x[:, self.flow.kept[level] :])
            x = x[:, : self.flow.kept[level]]
            kept.append(x)
        features: list[Tensor] = []  # from the coarsest level
        for level in reversed(range(self.config.levels)):
            flow = self.flow.conditional(level)
            features.append(flow.features(condition(kept[level], features)))
            total = total + flow(others[level], features[-1])
        rounded = x + ((x.clamp(0, 1) * 255).round() / 255 - x).detach()
        return total + gaussian_log_prob(rounded, y, LOG_STD_LR), rounded

    def bits_per_dimension(self, log_prob: Tensor, dimensions: int) -> Tensor:
        """Negative log-likelihood [B] of quantised images."""
        return (math.log(self.config.quant) - log_prob / dimensions) / math.log(2)

    def shapes(self, size: tuple[int, int]) -> list[tuple[int, int, int]]:
        """Shapes of the latents of an image of sides `size`, from the coarsest level."""
        found = []
        channels, (height, width) = 3, size
        for level in range(self.config.levels):
            channels, height, width = channels * 4, height // 2, width // 2
            found.append((channels - self.flow.kept[level], height, width))
            channels = self.flow.kept[level]
        return found[::-1]

    def coarse_features(self, y: Tensor) -> Tensor:
        """Features of the coarsest level, which depend on y alone: all samples of an image share them."""
        return self.flow.conditional(self.config.levels - 1).features(y)

    def generate(self, y: Tensor, latents: list[Tensor], coarse: Tensor | None = None) -> Tensor:
        """Images from observations and latents.

        Args:
            y: [B, 3, h, h] in [0, 1].
            latents: normal noise times the temperature, of `shapes`, each [B, ...].
            coarse: `coarse_features` of y where they are known already.

        Returns:
            [B, 3, H, H], not clipped.

        """
        x = y
        features: list[Tensor] = []
        for level, normal in zip(reversed(range(self.config.levels)), latents, strict=True):
            flow = self.flow.conditional(level)
            known = coarse if level == self.config.levels - 1 else None
            found = flow.features(condition(x, features)) if known is None else known
            features.append(found)
            x = torch.cat([x, flow.draw(normal, found)], 1)
            for step in reversed(self.flow.steps(level)):
                x = step.inverse(x)
            x = F.pixel_shuffle(x, 2)
        return x


def condition(kept: Tensor, features: list[Tensor]) -> Tensor:
    """What a level's conditional flow sees: its kept channels and the features of all coarser levels, enlarged."""
    size = kept.shape[-1]
    enlarged = [F.interpolate(f, scale_factor=size // f.shape[-1]) for f in reversed(features)]
    return torch.cat([kept, *enlarged], 1)

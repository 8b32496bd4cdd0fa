"""The very deep VAE of Child 2021 (github:openai/vdvae), with the low-resolution encoder of CVDVAE beside its own.

Parameter names follow the published checkpoints, so that they load unchanged. Block strings are theirs too:
``32x17`` is 17 blocks at 32 pixels, ``32d2`` a block that halves the resolution afterwards (bottom-up), ``32m16`` a
block that begins with the features of 16 pixels, enlarged (top-down).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.errors import BenchError
from bench.network import Settings
from methods.cvdvae.distributions import MIN_LOG_SCALE, Gaussian, LogisticMixture

Features = dict[int, Tensor]
"""Bottom-up features [B, C, r, r] by their resolution r."""


class VdvaeConfig(Settings):
    """Shape of a VD-VAE; the defaults are those of the published FFHQ-256 checkpoint.

    Attributes:
        size: side of the images in pixels.
        decoder: top-down blocks.
        encoder: bottom-up blocks.
        width: channels at resolutions that `widths` does not name.
        widths: channels by resolution; None for none.
        zdim: channels of a latent group.
        bottleneck: width of a block's inner convolutions relative to its features.
        mixtures: components of the output's mixture.
        no_bias_above: largest resolution with a learned constant input.
        bits: 8, or 5 for the low-bit training target of FFHQ-256.
        shift: added to intensities in [0, 255] before they enter.
        scale: multiplied afterwards.
        patch: side of the squares of pixels that the network takes as one: it works at size / patch and has patch^2
            times the channels at its input and its output. 1 as published; 2 saves the blocks of the largest
            resolution, which take most time and hold least.
        min_log_std, max_log_std: bounds of the logarithm of a latent's standard deviation, in the prior and in both
            encoders; None for none (published). A young prior can run away: rare latents give states it has not seen,
            for which it predicts still larger deviations. An encoder can too, for a y unlike any it was trained on.
        min_log_scale, max_log_scale: bounds of the log-scales of the output's logistics, whose values are in [-1, 1];
            -7 and none as published. What is finer than the smallest scale costs no likelihood if it is lost; what is
            coarser than the largest cannot pass as noise and must come from the latents.

    """

    size: int = 256
    decoder: str = "1x2,4m1,4x3,8m4,8x4,16m8,16x9,32m16,32x21,64m32,64x13,128m64,128x7,256m128"
    encoder: str = "256x3,256d2,128x8,128d2,64x12,64d2,32x17,32d2,16x7,16d2,8x5,8d2,4x5,4d4,1x4"
    width: int = 512
    widths: Mapping[int, int] | None = None
    zdim: int = 16
    bottleneck: float = 0.25
    mixtures: int = 10
    no_bias_above: int = 64
    bits: int = 5
    shift: float = -112.8666757481
    scale: float = 1 / 69.84780273
    patch: int = 1
    min_log_std: float | None = None
    max_log_std: float | None = None
    min_log_scale: float = MIN_LOG_SCALE
    max_log_scale: float | None = None

    def channels(self, resolution: int) -> int:
        """Channels of the features at a resolution."""
        return (self.widths or {}).get(resolution, self.width)

    @property
    def finest(self) -> int:
        """Largest resolution of the network in positions a side."""
        return self.size // self.patch


class LowResolutionConfig(Settings):
    """Shape of CVDVAE's low-resolution encoder.

    Attributes:
        encoder: bottom-up blocks, beginning at the resolution of y.
        k: number of latent groups that it infers; None for as many as the file of its weights has.
        width: channels at resolutions that `widths` does not name.
        widths: channels by resolution; where top-down blocks are conditioned they must be the prior's.

    """

    encoder: str
    k: int | None
    width: int = 512
    widths: Mapping[int, int] | None = None

    def channels(self, resolution: int) -> int:
        """Channels of the features at a resolution."""
        return (self.widths or {}).get(resolution, self.width)


def parse_blocks(text: str) -> list[tuple[int, int | None]]:
    """Parse a block string into (resolution, factor of "d" or source of "m", or None)."""
    blocks: list[tuple[int, int | None]] = []
    for part in text.split(","):
        for mark in "xdm":
            left, found, right = part.partition(mark)
            if found:
                blocks += [(int(left), None)] * int(right) if mark == "x" else [(int(left), int(right))]
                break
        else:
            blocks.append((int(part), None))
    return blocks


def conv(inputs: int, outputs: int, kernel: int, zero: bool = False) -> nn.Conv2d:
    """Make a convolution that keeps the size, with zero bias and optionally zero weights."""
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    if zero:
        nn.init.zeros_(layer.weight)
    return layer


class Block(nn.Module):
    """Four convolutions with GELU before each: 1x1 down to `middle`, two 3x3 (1x1 at resolutions up to 2), 1x1 up."""

    def __init__(self, inputs: int, middle: int, outputs: int, resolution: int, residual: bool, zero: bool = False):
        super().__init__()
        kernel = 3 if resolution > 2 else 1
        self.residual = residual
        self.c1 = conv(inputs, middle, 1)
        self.c2 = conv(middle, middle, kernel)
        self.c3 = conv(middle, middle, kernel)
        self.c4 = conv(middle, outputs, 1, zero)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, r, r] to [B, outputs, r, r]."""
        y = self.rest(self.c1(F.gelu(x)))
        return x + y.to(x.dtype) if self.residual else y  # a CPU adds bf16 to float32 seven times as slowly

    def rest(self, h: Tensor) -> Tensor:
        """All but the first convolution."""
        return self.c4(F.gelu(self.c3(F.gelu(self.c2(F.gelu(h))))))

    def project(self, features: Tensor) -> Tensor:
        """The first convolution's answer to its last input channels, bias included: what samples of an image share."""
        weight = self.c1.weight[:, -features.shape[1] :]
        return F.conv2d(F.gelu(features), weight, self.c1.bias)

    def with_projected(self, x: Tensor, projected: Tensor) -> Tensor:
        """Equal ``self(cat([x, features]))`` given ``projected = self.project(features)``."""
        return self.rest(F.conv2d(F.gelu(x), self.c1.weight[:, : x.shape[1]]) + projected)


class Encoder(nn.Module):
    """The bottom-up network."""

    def __init__(
        self, blocks: str, inputs: int, first_width: int, channels: Callable[[int], int], bottleneck: float
    ) -> None:
        super().__init__()
        self.channels = channels
        self.in_conv = conv(inputs, first_width, 3)
        parsed = parse_blocks(blocks)
        self.factors = [factor for _, factor in parsed]
        self.enc_blocks = nn.ModuleList()
        for resolution, _ in parsed:
            c = channels(resolution)
            block = Block(c, int(c * bottleneck), c, resolution, residual=True)
            block.c4.weight.data.mul_(len(parsed) ** -0.5)
            self.enc_blocks.append(block)

    def forward(self, x: Tensor) -> Features:
        """Normalised images [B, inputs, r, r] to the last features of each resolution."""
        x = self.in_conv(x)
        features = {x.shape[-1]: x}
        for block, factor in zip(self.enc_blocks, self.factors, strict=True):
            x = block(x)
            if factor is not None:
                x = F.avg_pool2d(x, factor)
            more = self.channels(x.shape[-1]) - x.shape[1]
            x = F.pad(x, (0, 0, 0, 0, 0, more)) if more > 0 else x
            features[x.shape[-1]] = x
        return features


class TopDownBlock(nn.Module):
    """One latent group: prior p(z | z_<l), posterior q(z | z_<l, x), optionally q(z | z_<l, y), and what z adds."""

    def __init__(self, config: VdvaeConfig, resolution: int, source: int | None, blocks: int, low: bool) -> None:
        super().__init__()
        c = config.channels(resolution)
        middle = int(c * config.bottleneck)
        self.resolution = resolution
        self.source = source
        self.channels = c
        self.zdim = config.zdim
        self.bounds = config.min_log_std, config.max_log_std
        self.enc = Block(2 * c, middle, 2 * config.zdim, resolution, residual=False)
        if low:
            self.enc_y = Block(2 * c, middle, 2 * config.zdim, resolution, residual=False)
        self.prior = Block(c, middle, 2 * config.zdim + c, resolution, residual=False, zero=True)
        self.z_proj = conv(config.zdim, c, 1)
        self.z_proj.weight.data.mul_(blocks**-0.5)
        self.resnet = Block(c, middle, c, resolution, residual=True)
        self.resnet.c4.weight.data.mul_(blocks**-0.5)

    def begin(self, xs: Features) -> Tensor:
        """The state of this resolution (zeros before its first block) plus the enlarged one of a lower resolution."""
        x = xs.get(self.resolution)
        if self.source is None:
            assert x is not None
            return x
        lower = xs[self.source][:, : self.channels]
        enlarged = F.interpolate(lower, scale_factor=self.resolution // self.source)
        if enlarged.shape[1] < self.channels:
            enlarged = F.pad(enlarged, (0, 0, 0, 0, 0, self.channels - enlarged.shape[1]))
        return enlarged if x is None else x + enlarged

    def prior_of(self, x: Tensor) -> tuple[Gaussian, Tensor]:
        """p(z | z_<l) and what the prior's branch adds to the state."""
        parameters, more = self.prior(x).split([2 * self.zdim, self.channels], 1)
        return self.gaussian(parameters), more

    def posterior(self, branch: Block, x: Tensor, features: Tensor) -> Gaussian:
        """q(z | z_<l, .) from the state and bottom-up features [B, C, r, r]; `branch` is `enc` or `enc_y`."""
        return self.gaussian(branch(torch.cat([x.expand(len(features), -1, -1, -1), features], 1)))

    def gaussian(self, parameters: Tensor) -> Gaussian:
        """The distribution of z from a branch's answer [B, 2 * zdim, r, r], its deviations within bounds."""
        return Gaussian.from_parameters(parameters, *self.bounds)

    def update(self, x: Tensor, more: Tensor, z: Tensor) -> Tensor:
        """The state after this group, from that before it, what the prior's branch adds, and the latents."""
        return self.resnet(x + more.to(x.dtype) + self.z_proj(z).to(x.dtype))


Choose = Callable[[int, TopDownBlock, Tensor, Gaussian], Tensor]
"""Chooses the latents [B, zdim, r, r] of group l: (l, its block, the state before it, its prior)."""


class OutputNet(nn.Module):
    """The last convolution, from features to the parameters of the mixture."""

    def __init__(self, config: VdvaeConfig) -> None:
        super().__init__()
        self.out_conv = conv(config.channels(config.finest), config.patch**2 * 10 * config.mixtures, 1)


class Decoder(nn.Module):
    """The top-down network."""

    def __init__(self, config: VdvaeConfig, k: int = 0) -> None:
        super().__init__()
        self.config = config
        parsed = parse_blocks(config.decoder)
        self.dec_blocks = nn.ModuleList(
            TopDownBlock(config, r, source, len(parsed), low=i < k) for i, (r, source) in enumerate(parsed)
        )
        resolutions = sorted({r for r, _ in parsed if r <= config.no_bias_above})
        self.bias_xs = nn.ParameterList(nn.Parameter(torch.zeros(1, config.channels(r), r, r)) for r in resolutions)
        self.out_net = OutputNet(config)
        c = config.channels(config.finest)
        self.gain = nn.Parameter(torch.ones(1, c, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, c, 1, 1))

    @property
    def blocks(self) -> list[TopDownBlock]:
        """The top-down blocks, one per latent group."""
        return list(self.dec_blocks)  # type: ignore[arg-type]

    def run(self, choose: Choose, groups: int | None = None) -> Features:
        """Go down the first `groups` groups (None: all); `choose` gives their latents.

        States have the batch size 1 until the first latents, whose batch size is that of everything after them: what
        does not depend on an image or a sample is computed once.
        """
        xs: Features = {b.shape[-1]: b for b in self.bias_xs}
        for l, block in enumerate(self.blocks[:groups]):
            x = block.begin(xs)
            prior, more = block.prior_of(x)
            z = choose(l, block, x, prior)
            xs[block.resolution] = block.update(x, more, z)
        return xs

    def forward(self, choose: Choose) -> Tensor:
        """Parameters of the output's mixture [B, 10 * M, H, H] given the latents that `choose` gives."""
        xs = self.run(choose)
        parameters = self.out_net.out_conv(xs[self.config.finest] * self.gain + self.bias)
        return F.pixel_shuffle(parameters, self.config.patch)


class Vdvae(nn.Module):
    """A VD-VAE; with `low`, a CVDVAE: the same network and a low-resolution encoder.

    Raises:
        BenchError: `low` does not say how many groups it infers.

    """

    def __init__(self, config: VdvaeConfig, low: LowResolutionConfig | None = None) -> None:
        super().__init__()
        self.config = config
        self.low = low
        if low and low.k is None:
            raise BenchError("The low-resolution encoder has no number of latent groups: give k, as k=43.")
        self.k: int = (low and low.k) or 0
        first_width = config.channels(config.finest)
        self.encoder = Encoder(config.encoder, 3 * config.patch**2, first_width, config.channels, config.bottleneck)
        self.decoder = Decoder(config, self.k)
        if low:
            first = parse_blocks(low.encoder)[0][0]
            self.encoder_y = Encoder(low.encoder, 3, low.channels(first), low.channels, config.bottleneck)

    def normalise(self, x: Tensor) -> Tensor:
        """Images in [0, 1] to the network's input."""
        return (255 * x + self.config.shift) * self.config.scale

    def features(self, x: Tensor) -> Features:
        """Bottom-up features of images [B, 3, H, H] in [0, 1]."""
        return self.encoder(F.pixel_unshuffle(self.normalise(x), self.config.patch))

    def target(self, x: Tensor) -> Tensor:
        """Images in [0, 1] to what the likelihood is taken of, in [-1, 1]; cut to 5 bits for a low-bit model."""
        levels = (255 * x).round()
        if self.config.bits == 5:
            levels = (levels / 8).floor() * 8
        return levels / 127.5 - 1

    def mixture(self, parameters: Tensor) -> LogisticMixture:
        """The output's distribution."""
        return LogisticMixture(parameters, self.config.bits, self.config.min_log_scale, self.config.max_log_scale)

    def infer(self, x: Tensor, draw: Callable[[int, Gaussian], Tensor]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Encode and decode images.

        Args:
            x: [B, 3, H, H] in [0, 1].
            draw: latents from group l's posterior.

        Returns:
            parameters of the mixture, KL(q || p) in nats per image [B] of each group, and the latents.

        """
        features = self.features(x)
        kls: list[Tensor] = []
        latents: list[Tensor] = []

        def choose(l: int, block: TopDownBlock, state: Tensor, prior: Gaussian) -> Tensor:
            q = block.posterior(block.enc, state, features[block.resolution])
            kls.append(q.kl(prior).sum((1, 2, 3)))
            latents.append(draw(l, q))
            return latents[-1]

        return self.decoder(choose), kls, latents

    def elbo(self, x: Tensor, draw: Callable[[int, Gaussian], Tensor]) -> tuple[Tensor, Tensor]:
        """Distortion and rate [B] in nats per dimension; their sum is the negative ELBO."""
        parameters, kls, _ = self.infer(x, draw)
        dimensions = x[0].numel()
        distortion = -self.mixture(parameters.float()).log_prob(self.target(x)) / dimensions
        return distortion, torch.stack(kls).sum(0) / dimensions

    def match(self, x: Tensor, y: Tensor, draw: Callable[[int, Gaussian], Tensor]) -> list[Tensor]:
        """KL(q_phi(z_l | z_<l, x) || q_psi(z_l | z_<l, y)) of eq. (14) for l < k, elementwise [B, zdim, r, r] each."""
        assert self.low is not None
        with torch.no_grad():
            features = self.features(x)
        low = self.encoder_y(self.normalise(y))
        kls: list[Tensor] = []

        def choose(l: int, block: TopDownBlock, state: Tensor, prior: Gaussian) -> Tensor:
            q = block.posterior(block.enc, state, features[block.resolution])
            kls.append(q.kl(block.posterior(block.enc_y, state, low[block.resolution])))
            return draw(l, q)

        self.decoder.run(choose, self.k)
        return kls

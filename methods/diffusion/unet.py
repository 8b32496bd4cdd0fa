"""The unconditional diffusion prior: a ``diffusers.UNet2DModel`` of the shape of guided-diffusion's U-Net.

Source of the shape: github:openai/guided-diffusion as used by github:DPS2022/diffusion-posterior-sampling
(configs/model_config.yaml): scale-shift norm, residual blocks for up- and downsampling, learned variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from torch import Tensor, nn

from bench.network import Settings


class UnetConfig(Settings):
    """Shape of the U-Net; the defaults are those of the published ``ffhq_10m.pt``.

    Attributes:
        size: side of the images.
        channels: channels at full resolution.
        multipliers: channels of each resolution relative to that, from the full one down.
        blocks: residual blocks per resolution.
        attention: resolutions with self-attention (the lowest has it in any case).
        head_channels: channels of an attention head.
        patch: the network sees squares of patch x patch pixels as channels, at `size / patch` pixels; `channels`,
            `multipliers` and `attention` count from there. 1 for the published network; 2 costs a small network 2.5
            times less at the same width.
        prediction: what the network's output stands for: "noise" (published) or "velocity" (Salimans & Ho 2022). A
            small network cannot copy its input exactly enough to predict nearly pure noise: at step 990 an error of
            0.05 in the noise is one of 7 in the image.

    """

    size: int = 256
    channels: int = 128
    multipliers: Sequence[int] = (1, 1, 2, 2, 4, 4)
    blocks: int = 1
    attention: Sequence[int] = (16,)
    head_channels: int = 64
    patch: int = 1
    prediction: Literal["noise", "velocity"] = "noise"

    @property
    def resolution(self) -> int:
        """Side of the first features."""
        return self.size // self.patch

    def attends(self, level: int) -> bool:
        """Whether a level (0: full resolution) has self-attention."""
        return self.resolution // 2**level in self.attention


def make_unet(config: UnetConfig) -> UNet2DModel:
    """Build diffusers' network; see :class:`PriorNetwork` for its use."""
    levels = range(len(config.multipliers))
    down = ["AttnDownBlock2D" if config.attends(i) else "ResnetDownsampleBlock2D" for i in levels]
    up = ["AttnUpBlock2D" if config.attends(i) else "ResnetUpsampleBlock2D" for i in reversed(levels)]
    unet = UNet2DModel(
        sample_size=config.resolution,
        in_channels=3 * config.patch**2,
        out_channels=6 * config.patch**2,
        block_out_channels=tuple(config.channels * m for m in config.multipliers),
        layers_per_block=config.blocks,
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        downsample_type="resnet",
        upsample_type="resnet",
        attention_head_dim=config.head_channels,
        resnet_time_scale_shift="scale_shift",
        norm_num_groups=32,
        attn_norm_num_groups=32,
        norm_eps=1e-5,
        flip_sin_to_cos=True,
        freq_shift=0,
    )
    # Normalisation in float32 under autocast, as in the published network and as on a GPU. On a CPU, bf16 would take
    # four (forward) to seven times (backward) as long there.
    for module in unet.modules():
        if isinstance(module, nn.GroupNorm):
            module.register_forward_pre_hook(lambda norm, inputs: tuple(x.to(norm.weight.dtype) for x in inputs))
    return unet


class PriorNetwork(nn.Module):
    """The network, for sampling (within a `DiffusionPrior`) and training."""

    def __init__(self, config: UnetConfig) -> None:
        super().__init__()
        self.config = config
        self.unet = make_unet(config)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Predict the noise or the velocity, and the mixing of the variance (learned range, -1 to 1).

        Args:
            x: noisy images [B, 3, H, H], of clean ones in [-1, 1].
            t: step or steps [B] from 0 to 999.

        Returns:
            float32 [B, 6, H, H] (float64 for a float64 network).

        """
        patch = self.config.patch
        out = self.unet(F.pixel_unshuffle(x, patch), t).sample
        return F.pixel_shuffle(out.float() if out.dtype in (torch.bfloat16, torch.float16) else out, patch)

"""The unconditional diffusion prior: a ``diffusers.UNet2DModel`` of the shape of guided-diffusion's U-Net.

Source of the shape: github:openai/guided-diffusion as used by github:DPS2022/diffusion-posterior-sampling
(configs/model_config.yaml): scale-shift norm, residual blocks for up- and downsampling, learned variance.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from torch import Tensor, nn

from methods.diffusion.shape import UnetShape


class UnetConfig(UnetShape):
    """Shape of the U-Net; the defaults are those of the published ``ffhq_10m.pt``.

    Attributes:
        head_channels: channels of an attention head.

    """

    channels: int = 128
    multipliers: Sequence[int] = (1, 1, 2, 2, 4, 4)
    attention: Sequence[int] = (16,)
    head_channels: int = 64


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

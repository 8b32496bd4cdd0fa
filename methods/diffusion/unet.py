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

from methods.diffusion.schedule import SCHEDULES
from methods.diffusion.shape import UnetShape


class UnetConfig(UnetShape):
    """Shape of the U-Net; the defaults are those of the published ``ffhq_10m.pt``.

    Attributes:
        head_channels: channels of an attention head.
        schedule: of the noise that the network is trained on: "linear" (all published files that are known here) or
            "cosine" (Nichol & Dhariwal 2021), in 1000 steps.
        learned_variance: whether the variance that the network has learned is used where a sampler can; else that of
            DDPM's posterior is. A head that was trained little leaves its range, and samples with it are noise.

    """

    channels: int = 128
    multipliers: Sequence[int] = (1, 1, 2, 2, 4, 4)
    attention: Sequence[int] = (16,)
    head_channels: int = 64
    schedule: Literal["linear", "cosine"] = "linear"
    learned_variance: bool = True

    @property
    def alpha_bar(self) -> Tensor:
        """Of the schedule, float64 [1000], falling."""
        return SCHEDULES[self.schedule]()


def make_unet(config: UnetConfig) -> UNet2DModel:
    """Build diffusers' network; see :class:`PriorNetwork` for its use."""
    levels = range(len(config.multipliers))
    down = ["AttnDownBlock2D" if config.attends(i) else "ResnetDownsampleBlock2D" for i in levels]
    up = ["AttnUpBlock2D" if config.attends(i) else "ResnetUpsampleBlock2D" for i in reversed(levels)]
    return UNet2DModel(
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


class DiffusersNetwork(nn.Module):
    """A ``diffusers.UNet2DModel`` of any shape as the network of a prior.

    Args:
        unet: with as many channels as a square of patch x patch pixels has values.
        patch: side of the squares of pixels that it sees as channels.

    """

    def __init__(self, unet: UNet2DModel, patch: int = 1) -> None:
        super().__init__()
        self.unet, self.patch = unet, patch
        # Normalisation in float32 under autocast, as in the published network and as on a GPU. On a CPU, bf16 would
        # take four (forward) to seven times (backward) as long there.
        for module in unet.modules():
            if isinstance(module, nn.GroupNorm):
                module.register_forward_pre_hook(lambda norm, inputs: tuple(x.to(norm.weight.dtype) for x in inputs))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Predict what the network was trained to, and the mixing of a learned variance (-1 to 1) behind it.

        Args:
            x: noisy images [B, 3, H, H], of clean ones in [-1, 1].
            t: step or steps [B], the first one 0.

        Returns:
            float32 [B, 3, H, H], or [B, 6, H, H] with a learned variance (float64 for a float64 network).

        """
        out = self.unet(F.pixel_unshuffle(x, self.patch), t).sample
        return F.pixel_shuffle(out.float() if out.dtype in (torch.bfloat16, torch.float16) else out, self.patch)


class PriorNetwork(DiffusersNetwork):
    """The network of guided-diffusion's shape, for sampling (within a `DiffusionPrior`) and training."""

    def __init__(self, config: UnetConfig) -> None:
        super().__init__(make_unet(config), config.patch)
        self.config = config

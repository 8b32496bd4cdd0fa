"""The unconditional diffusion prior: a ``diffusers.UNet2DModel`` of the shape of guided-diffusion's U-Net.

Source of the shape: github:openai/guided-diffusion as used by github:DPS2022/diffusion-posterior-sampling
(configs/model_config.yaml): scale-shift norm, residual blocks for up- and downsampling, learned variance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from torch import Tensor, nn

from bench.errors import BenchError
from methods.dps.schedule import Schedule


@dataclass(frozen=True)
class UnetConfig:
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
        prediction: what the network's output stands for: "noise" (published) or "velocity" (Salimans & Ho 2022), from
            which :class:`Prior` computes the noise. A small network cannot copy its input exactly enough to predict
            nearly pure noise: at step 990 an error of 0.05 in the noise is one of 7 in the image.

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
    """Build diffusers' network; see :class:`Prior` for its use."""
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


class Prior(nn.Module):
    """The network as the sampler and the training use it."""

    def __init__(self, config: UnetConfig) -> None:
        super().__init__()
        self.config = config
        self.unet = make_unet(config)
        self.schedule = Schedule()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Predict the noise and the mixing of the variance (learned range, -1 to 1).

        Args:
            x: noisy images [B, 3, H, H], of clean ones in [-1, 1].
            t: step or steps [B] from 0 to 999.

        Returns:
            float32 [B, 6, H, H].

        """
        patch = self.config.patch
        out = F.pixel_shuffle(self.unet(F.pixel_unshuffle(x, patch), t).sample.float(), patch)
        if self.config.prediction == "noise":
            return out
        velocity, mixing = out.chunk(2, 1)
        t = t.reshape(-1)
        return torch.cat([self.schedule.at("noise", t) * x + self.schedule.at("signal", t) * velocity, mixing], 1)


RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def _places(config: UnetConfig) -> Iterator[tuple[str, str, str]]:
    """Triples (kind, name in diffusers, name in guided-diffusion) of all residual and attention blocks."""
    last = len(config.multipliers) - 1
    place = 1
    for level in range(last + 1):
        for i in range(config.blocks):
            yield "resnet", f"down_blocks.{level}.resnets.{i}", f"input_blocks.{place}.0"
            if config.attends(level):
                yield "attention", f"down_blocks.{level}.attentions.{i}", f"input_blocks.{place}.1"
            place += 1
        if level < last:
            yield "resnet", f"down_blocks.{level}.downsamplers.0", f"input_blocks.{place}.0"
            place += 1
    yield "resnet", "mid_block.resnets.0", "middle_block.0"
    yield "attention", "mid_block.attentions.0", "middle_block.1"
    yield "resnet", "mid_block.resnets.1", "middle_block.2"
    place = 0
    for index in range(last + 1):
        level = last - index
        for i in range(config.blocks + 1):
            yield "resnet", f"up_blocks.{index}.resnets.{i}", f"output_blocks.{place}.0"
            if config.attends(level):
                yield "attention", f"up_blocks.{index}.attentions.{i}", f"output_blocks.{place}.1"
            if level > 0 and i == config.blocks:
                behind = 2 if config.attends(level) else 1
                yield "resnet", f"up_blocks.{index}.upsamplers.0", f"output_blocks.{place}.{behind}"
            place += 1


def from_guided_diffusion(state: Mapping[str, Tensor], config: UnetConfig) -> dict[str, Tensor]:
    """Translate a guided-diffusion state dict into one of :func:`make_unet`'s network.

    The joint projection of an attention block holds, head by head, the rows of query, key and value (the published
    "legacy" order); they are taken apart.

    Raises:
        BenchError: a tensor is missing.

    """
    out: dict[str, Tensor] = {}

    def take(name: str) -> Tensor:
        if name not in state:
            raise BenchError(f"The checkpoint does not fit the U-Net: it has no {name}. Check the network's settings.")
        return state[name]

    def copy(target: str, source: str) -> None:
        for kind in ("weight", "bias"):
            out[f"{target}.{kind}"] = take(f"{source}.{kind}")

    copy("conv_in", "input_blocks.0.0")
    copy("time_embedding.linear_1", "time_embed.0")
    copy("time_embedding.linear_2", "time_embed.2")
    copy("conv_norm_out", "out.0")
    copy("conv_out", "out.2")
    for kind, target, source in _places(config):
        if kind == "resnet":
            for ours, theirs in RESNET.items():
                if ours != "conv_shortcut" or f"{source}.{theirs}.weight" in state:
                    copy(f"{target}.{ours}", f"{source}.{theirs}")
            continue
        copy(f"{target}.group_norm", f"{source}.norm")
        for suffix in ("weight", "bias"):
            joint = take(f"{source}.qkv.{suffix}").flatten(1) if suffix == "weight" else take(f"{source}.qkv.bias")
            heads = joint.unflatten(0, (-1, 3, config.head_channels))
            for i, name in enumerate(("to_q", "to_k", "to_v")):
                out[f"{target}.{name}.{suffix}"] = heads[:, i].flatten(0, 1)
        out[f"{target}.to_out.0.weight"] = take(f"{source}.proj_out.weight").flatten(1)
        out[f"{target}.to_out.0.bias"] = take(f"{source}.proj_out.bias")
    return out

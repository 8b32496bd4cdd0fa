"""Settings of the prior's network that a file shows, and those that are known of a public one."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

from torch import Tensor

from bench.weights import Seen
from methods.diffusion.unet import UnetConfig

PUBLIC_HEADS: dict[tuple[int, tuple[int, ...], int], int] = {
    (128, (1, 1, 2, 2, 4, 4), 1): 64,  # ffhq_10m.pt (github:DPS2022/diffusion-posterior-sampling, model_config.yaml)
    (256, (1, 1, 2, 2, 4, 4), 2): 64,  # 256x256_diffusion_uncond.pt (github:openai/guided-diffusion, README)
}
"""Channels of an attention head of guided-diffusion's networks, by channels, multipliers and blocks; no tensor shows
them."""


def seen(state: Mapping[str, Tensor], config: UnetConfig) -> Iterator[Seen]:
    """What a file in our names (diffusers') or in guided-diffusion's tells of the settings."""
    public = "input_blocks.0.0.weight" in state
    width, inputs = state["input_blocks.0.0.weight" if public else "conv_in.weight"].shape[:2]
    channels = width // config.multipliers[0]
    yield Seen("unet.patch", math.isqrt(inputs // 3), config.patch)
    yield Seen("unet.channels", channels, config.channels)
    if not public:
        yield from _seen_of_ours(state, channels, config)
        return
    blocks = _numbers(state, r"output_blocks\.(\d+)\.0\.in_layers\.0\.weight")
    ours = len(config.multipliers) * (config.blocks + 1)
    yield Seen("unet.multipliers and unet.blocks", blocks, ours, "number of residual blocks on the way up")
    attention = _numbers(state, r"input_blocks\.(\d+)\.1\.qkv\.weight")
    attending = [config.attends(i) for i in range(len(config.multipliers))].count(True)
    yield Seen("unet.attention", attention, attending * config.blocks, "number of attention blocks on the way down")
    yield Seen("unet.prediction", "noise", config.prediction)
    shape = (channels, tuple(config.multipliers), config.blocks)
    yield Seen("unet.head_channels", PUBLIC_HEADS.get(shape, config.head_channels), config.head_channels)


def _seen_of_ours(state: Mapping[str, Tensor], channels: int, config: UnetConfig) -> Iterator[Seen]:
    levels = range(_numbers(state, r"down_blocks\.(\d+)\.resnets\.0\.conv1\.weight"))
    multipliers = [state[f"down_blocks.{i}.resnets.0.conv1.weight"].shape[0] // channels for i in levels]
    yield Seen("unet.multipliers", multipliers, list(config.multipliers))
    yield Seen("unet.blocks", _numbers(state, r"down_blocks\.0\.resnets\.(\d+)\.conv1\.weight"), config.blocks)
    file = [config.resolution // 2**i for i in levels if f"down_blocks.{i}.attentions.0.to_q.weight" in state]
    ours = [config.resolution // 2**i for i in levels if config.attends(i)]
    yield Seen("unet.attention", file, ours)


def _numbers(state: Mapping[str, Tensor], pattern: str) -> int:
    """How many numbers stand at the pattern's place in names."""
    return len({found[1] for name in state if (found := re.fullmatch(pattern, name))})

"""Checkpoints of SR3: ours (safetensors) and the public implementation's ``*_gen.pth``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor

from bench import weights
from bench.weights import Seen
from methods.sr3.unet import Sr3Config, Sr3Unet

SHIPPED = Path(__file__).parent / "shipped"
PREFIX = "denoise_fn."
"""Of the network's names in the public checkpoints, which hold the schedule as well."""
SCHEDULE = frozenset(
    ("betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod",
     "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod", "posterior_variance",
     "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2")
)  # fmt: skip
"""Names of the schedule there (model/sr3_modules/diffusion.py); ours is computed."""
PUBLIC_GROUPS: dict[tuple[int, tuple[int, ...]], int] = {(2, (1, 2, 4, 8, 8)): 32, (1, (1, 2, 4, 8, 16)): 16}
"""Groups of the normalisation of the public networks, by blocks and multipliers; no tensor shows them. Sources:
config/sr_sr3_16_128.json, which leaves them to the default of define_G, and sr_sr3_64_512.json."""


def network_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take away the public prefixes, and the schedule's buffers from a public file."""
    state = {k.removeprefix("module."): v for k, v in state.items()}
    if any(k.startswith(PREFIX) for k in state):
        state = {k.removeprefix(PREFIX): v for k, v in state.items() if k not in SCHEDULE}
    return state


def seen(state: Mapping[str, Tensor], config: Sr3Config) -> Iterator[Seen]:
    """Settings that a file shows, and those that are known of a public one."""
    public = any(PREFIX in name for name in state)
    state = network_names(dict(state))
    channels, inputs = state["downs.0.weight"].shape[:2]
    yield Seen("unet.patch", math.isqrt(inputs // 6), config.patch)
    yield Seen("unet.channels", channels, config.channels)
    levels: list[list[int]] = [[]]  # channels of the blocks of each resolution
    attention = []
    resolution = config.size // config.patch
    place = 1
    while any(name.startswith(f"downs.{place}.") for name in state):
        if f"downs.{place}.conv.weight" in state:
            levels.append([])
            resolution //= 2
        else:
            levels[-1].append(state[f"downs.{place}.res_block.block1.block.3.weight"].shape[0])
            if f"downs.{place}.attn.qkv.weight" in state and resolution not in attention:
                attention.append(resolution)
        place += 1
    blocks, multipliers = len(levels[0]), tuple(level[-1] // channels for level in levels if level)
    yield Seen("unet.blocks", blocks, config.blocks)
    yield Seen("unet.multipliers", list(multipliers), list(config.multipliers))
    used = [r for r in (config.size // config.patch // 2**i for i in range(len(levels))) if r in config.attention]
    yield Seen("unet.attention", attention, used)
    if public:
        yield Seen("unet.prediction", "noise", config.prediction)
        yield Seen("unet.groups", PUBLIC_GROUPS.get((blocks, multipliers), config.groups), config.groups)


def load_weights(network: Sr3Unet, name: str | Path) -> Path:
    """Load a file into a network; see :func:`bench.weights.load_weights`."""
    return weights.load_weights(
        network, name, shipped=SHIPPED, rename=network_names, seen=lambda state: seen(state, network.config)
    )

"""Checkpoints of the prior: ours (safetensors) and guided-diffusion's, such as ffhq_10m.pt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor

from bench import weights
from bench.errors import BenchError
from methods.diffusion.seen import seen
from methods.diffusion.unet import PriorNetwork, UnetConfig

SHIPPED = Path(__file__).parent / "shipped"
GAUSSIANS = UnetConfig(
    size=32, patch=2, channels=64, multipliers=(1, 1, 1), attention=(8, 4), head_channels=32, prediction="velocity",
    learned_variance=False,  # of 1826 steps: out of its range by up to 17 (docs/samplers.md)
)  # fmt: skip
NAMED = {"gaussians": (GAUSSIANS, "gaussians32.safetensors")}
"""Shapes and files of shipped weights that have a name of their own; configs/network/unet/ has the same shapes."""


def load_weights(network: PriorNetwork, name: str | Path) -> Path:
    """Load ours or a guided-diffusion ``.pt`` into the network; see :func:`bench.weights.load_weights`."""

    def rename(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return from_guided_diffusion(state, network.config) if "input_blocks.0.0.weight" in state else state

    return weights.load_weights(
        network.unet, name, shipped=SHIPPED, rename=rename, seen=lambda state: seen(state, network.config)
    )


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
        BenchError: a tensor is missing, or left over.

    """
    out: dict[str, Tensor] = {}
    taken: set[str] = set()

    def take(name: str) -> Tensor:
        if name not in state:
            raise BenchError(f"The checkpoint does not fit the U-Net: it has no {name}. Check the network's settings.")
        taken.add(name)
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
    if unused := sorted(set(state) - taken):
        raise BenchError(
            f"The checkpoint does not fit the U-Net: nothing takes its {unused[0]} ({len(unused)} left over). "
            "Change the network's settings to those of the file."
        )
    return out

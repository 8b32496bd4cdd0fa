"""Checkpoints: ours (safetensors), OpenAI's (``.th`` state dict) and the authors' (Lightning)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor

from bench import weights
from bench.weights import Seen
from methods.cvdvae.vdvae import LowResolutionConfig, Vdvae, VdvaeConfig, parse_blocks

SHIPPED = Path(__file__).parent / "shipped"
PUBLISHED_PRIOR = re.compile(r"ffhq256-iter-\d+-model(-ema)?\.th")
"""Names of OpenAI's files of the FFHQ-256 model."""
CONSTANTS = ("shift", "scale")
"""Of the normalisation, which the authors' files hold; they are settings here."""


def published_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take away the prefixes of DistributedDataParallel ("module.") and of the authors' Lightning code ("cvae.").

    Their normalisation constants are taken away too.
    """
    return {_plain(k): v for k, v in state.items() if _plain(k) not in CONSTANTS}


def _plain(name: str) -> str:
    return name.removeprefix("module.").removeprefix("cvae.")


def is_low(name: str) -> bool:
    """Whether a parameter belongs to the low-resolution encoder."""
    return name.startswith("encoder_y.") or ".enc_y." in name


def is_prior(name: str) -> bool:
    """Whether a parameter belongs to the prior."""
    return not is_low(name)


def inferred_groups(state: Mapping[str, Tensor]) -> int:
    """K of a file: the latent groups that its low-resolution encoder infers, 0 where it has none."""
    return _count(state, r"decoder\.dec_blocks\.(\d+)\.enc_y\.c1\.weight")


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    return len({found[1] for name in state if (found := re.fullmatch(pattern, _plain(name)))})


def seen_of_prior(state: Mapping[str, Tensor], config: VdvaeConfig) -> Iterator[Seen]:
    """Settings of the prior that a file shows."""
    state = {_plain(k): v for k, v in state.items()}
    groups = parse_blocks(config.decoder)
    count = "number of blocks"
    yield Seen("prior.patch", math.isqrt(state["encoder.in_conv.weight"].shape[1] // 3), config.patch)
    yield Seen("prior.decoder", _count(state, r"decoder\.dec_blocks\.(\d+)\.prior\.c1\.weight"), len(groups), count)
    blocks = _count(state, r"encoder\.enc_blocks\.(\d+)\.c1\.weight")
    yield Seen("prior.encoder", blocks, len(parse_blocks(config.encoder)), count)
    for i, (resolution, _) in enumerate(groups):
        width = state[f"decoder.dec_blocks.{i}.z_proj.weight"].shape[0]
        setting = f"prior.widths.{resolution}" if resolution in (config.widths or {}) else "prior.width"
        yield Seen(setting, width, config.channels(resolution))
    yield Seen("prior.zdim", state["decoder.dec_blocks.0.z_proj.weight"].shape[1], config.zdim)
    middle, width = state["decoder.dec_blocks.0.resnet.c1.weight"].shape[:2]
    if middle != int(width * config.bottleneck):
        yield Seen("prior.bottleneck", middle / width, config.bottleneck)
    out = state["decoder.out_net.out_conv.weight"].shape[0]
    yield Seen("prior.mixtures", out // (10 * config.patch**2), config.mixtures)
    constants = [b.shape[-1] for name, b in state.items() if name.startswith("decoder.bias_xs.")]
    ours = [r for r, _ in groups if r <= config.no_bias_above]
    yield Seen("prior.no_bias_above", max(constants, default=0), max(ours, default=0))
    for name in CONSTANTS:
        if name in state:
            file, mine = float(state[name].flatten()[0]), getattr(config, name)
            yield Seen(f"prior.{name}", mine if math.isclose(file, mine, rel_tol=1e-5) else file, mine)


def seen_of_published(config: VdvaeConfig) -> Iterator[Seen]:
    """Settings of OpenAI's FFHQ-256 model that leave no trace in its tensors; the defaults are its own."""
    published = VdvaeConfig()
    yield Seen("prior.bits", published.bits, config.bits)
    for name in CONSTANTS:
        theirs, mine = getattr(published, name), getattr(config, name)
        yield Seen(f"prior.{name}", mine if math.isclose(theirs, mine, rel_tol=1e-5) else theirs, mine)


def seen_of_low(state: Mapping[str, Tensor], config: LowResolutionConfig, size: int) -> Iterator[Seen]:
    """Settings of the low-resolution encoder that a file shows; `size` is that of the prior's images."""
    state = {_plain(k): v for k, v in state.items()}
    blocks = parse_blocks(config.encoder)
    first = blocks[0][0]
    setting = f"low.x{size // first}"
    width = state["encoder_y.in_conv.weight"].shape[0]
    yield Seen(f"{setting}.k", inferred_groups(state), config.k)
    count = _count(state, r"encoder_y\.enc_blocks\.(\d+)\.c1\.weight")
    yield Seen(f"{setting}.encoder", count, len(blocks), "number of blocks")
    named = first in (config.widths or {})
    yield Seen(f"{setting}.widths.{first}" if named else f"{setting}.width", width, config.channels(first))


def load_weights(model: Vdvae, name: str | Path, part: str = "all") -> Path:
    """Load a checkpoint into a model; see :func:`bench.weights.load_weights`.

    Args:
        model: with or without a low-resolution encoder.
        name: path, or the name of a shipped file.
        part: "all", "prior" (everything but the low-resolution encoder, of whatever shape the file's is) or "low"
            (that encoder alone; the file may hold the prior too).

    """
    chosen = {"all": lambda n: True, "prior": is_prior, "low": is_low}[part]

    def rename(state: dict[str, Tensor]) -> dict[str, Tensor]:
        renamed = published_names(state)
        return {k: v for k, v in renamed.items() if is_prior(k)} if part == "prior" else renamed

    def seen(state: Mapping[str, Tensor]) -> Iterator[Seen]:
        if part != "prior" and model.low is not None:
            yield from seen_of_low(state, model.low, model.config.size)
        if part != "low":
            yield from seen_of_prior(state, model.config)
            if PUBLISHED_PRIOR.fullmatch(Path(name).name):
                yield from seen_of_published(model.config)

    return weights.load_weights(model, name, shipped=SHIPPED, rename=rename, part=chosen, seen=seen)

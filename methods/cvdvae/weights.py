"""Checkpoints: ours (safetensors), OpenAI's (``.th`` state dict) and the authors' (Lightning)."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from bench import weights
from methods.cvdvae.vdvae import Vdvae

SHIPPED = Path(__file__).parent / "shipped"


def published_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take away the prefixes of DistributedDataParallel ("module.") and of the authors' Lightning code ("cvae.").

    Their normalisation constants ("shift", "scale") are settings here.
    """
    return {
        k.removeprefix("module.").removeprefix("cvae."): v
        for k, v in state.items()
        if k.split(".")[-1] not in ("shift", "scale")
    }


def is_low(name: str) -> bool:
    """Whether a parameter belongs to the low-resolution encoder."""
    return name.startswith("encoder_y.") or ".enc_y." in name


def load_weights(model: Vdvae, name: str | Path, part: str = "all") -> Path:
    """Load a checkpoint into a model; see :func:`bench.weights.load_weights`.

    Args:
        model: with or without a low-resolution encoder.
        name: path, or the name of a shipped file.
        part: "all", "prior" (everything but the low-resolution encoder) or "low" (that encoder alone).

    """
    chosen = {"all": lambda n: True, "prior": lambda n: not is_low(n), "low": is_low}[part]
    return weights.load_weights(model, name, shipped=SHIPPED, rename=published_names, part=chosen)

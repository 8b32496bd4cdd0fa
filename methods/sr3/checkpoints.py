"""Checkpoints of SR3: ours (safetensors) and the public implementation's ``*_gen.pth``."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from bench import weights
from methods.sr3.unet import Sr3Unet

SHIPPED = Path(__file__).parent / "shipped"
PREFIX = "denoise_fn."
"""Of the network's names in the public checkpoints, which hold the schedule as well."""


def network_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take away the public prefixes, and the schedule's buffers from a public file."""
    state = {k.removeprefix("module."): v for k, v in state.items()}
    if any(k.startswith(PREFIX) for k in state):
        state = {k.removeprefix(PREFIX): v for k, v in state.items() if k.startswith(PREFIX)}
    return state


def load_weights(network: Sr3Unet, name: str | Path) -> Path:
    """Load a file into a network; see :func:`bench.weights.load_weights`."""
    return weights.load_weights(network, name, shipped=SHIPPED, rename=network_names)

"""Checkpoints of HCFlow: ours (safetensors) and the official ``.pth`` state dicts."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from bench import weights
from methods.hcflow.flow import Hcflow

SHIPPED = Path(__file__).parent / "shipped"


def flow_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take away the prefix of DistributedDataParallel."""
    return {k.removeprefix("module."): v for k, v in state.items()}


def load_weights(model: Hcflow, name: str | Path) -> Path:
    """Load a file into a flow; see :func:`bench.weights.load_weights`."""
    return weights.load_weights(model, name, shipped=SHIPPED, rename=flow_names)

"""Checkpoints: ours (safetensors), OpenAI's (``.th`` state dict) and the authors' (Lightning)."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from bench import weights as checkpoints

SHIPPED = Path(__file__).parent / "shipped"


def find_weights(name: str | Path) -> Path:
    """Return a path as it is, or, for a bare file name that is not here, that of the shipped file."""
    return checkpoints.find_weights(name, SHIPPED)


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Read a file into a state dict with the published names.

    Takes away the prefixes of DistributedDataParallel ("module.") and of the authors' Lightning code ("cvae.").

    Raises:
        BenchError: missing, truncated, or not weights.

    """
    return {
        k.removeprefix("module.").removeprefix("cvae."): v
        for k, v in checkpoints.read_tensors(find_weights(path)).items()
        if k.split(".")[-1] not in ("shift", "scale")
    }


def load_weights(model: nn.Module, path: str | Path, part: str = "all") -> None:
    """Load a checkpoint into a model.

    Args:
        model: a :class:`methods.cvdvae.vdvae.Vdvae`.
        path: the file.
        part: "all", "prior" (everything but the low-resolution encoder) or "low" (that encoder alone).

    Raises:
        BenchError: names or shapes do not fit; the sentence names the first.

    """
    wanted = {
        name: p
        for name, p in model.state_dict().items()
        if part == "all" or (part == "low") == (name.startswith("encoder_y.") or ".enc_y." in name)
    }
    checkpoints.fill_module(model, read_state(path), wanted, find_weights(path))

"""Checkpoints: ours (safetensors), OpenAI's (``.th`` state dict) and the authors' (Lightning)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from bench.errors import BenchError

SHIPPED = Path(__file__).parent / "shipped"


def find_weights(name: str | Path) -> Path:
    """Return a path as it is, or, for a bare file name that is not here, that of the shipped file."""
    path = Path(name)
    shipped = SHIPPED / path.name
    return shipped if not path.is_file() and path.name == str(name) and shipped.is_file() else path


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Read a file into a state dict with the published names.

    Handles ``.safetensors``; ``.th``/``.pt``/``.ckpt`` files that hold a state dict, with or without the prefix of
    DistributedDataParallel ("module."), or a Lightning checkpoint of the authors' code (``state_dict``, "cvae.").

    Raises:
        BenchError: missing, truncated, or not weights.

    """
    path = find_weights(path)
    if not path.is_file():
        raise BenchError(f"The weights {path} do not exist: give the path of a checkpoint.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise BenchError(f"{path} is truncated or no checkpoint ({error}): fetch it again.") from error
    except Exception as error:  # pickle.UnpicklingError: refused, since it would run code
        raise BenchError(f"{path} holds more than tensors and is not loaded ({str(error).splitlines()[0]}).") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise BenchError(f"{path} is no state dict: expected names and tensors.")
    return {
        k.removeprefix("module.").removeprefix("cvae."): v
        for k, v in state.items()
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
    state = read_state(path)
    wanted = {
        name: p
        for name, p in model.state_dict().items()
        if part == "all" or (part == "low") == (name.startswith("encoder_y.") or ".enc_y." in name)
    }
    missing = sorted(set(wanted) - set(state))
    if missing:
        raise BenchError(f"{path} does not fit the network: it has no {missing[0]} ({len(missing)} missing).")
    for name, p in wanted.items():
        if p.shape != state[name].shape:
            raise BenchError(
                f"{path} does not fit the network: {name} is {list(state[name].shape)}, expected {list(p.shape)}."
            )
    model.load_state_dict({name: state[name] for name in wanted}, strict=False)

"""Reading weights: safetensors, or PyTorch files that hold tensors and nothing that runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from bench import weights
from bench.errors import BenchError


def find_weights(name: str | Path, shipped: Path) -> Path:
    """Return a path as it is; a bare file name that is not here is looked for in `shipped` and among known checkpoints.

    Raises:
        BenchError: a known checkpoint has changed since it first arrived (:mod:`bench.weights`).

    """
    path = Path(name)
    if path.is_file() or path.name != str(name):
        return path
    if (shipped / path.name).is_file():
        return shipped / path.name
    known = weights.by_file(path.name)
    if known is not None and known.path.is_file():
        weights.verify(known, known.path)
        return known.path
    return path


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a file into names and tensors.

    Takes ``.safetensors``, and PyTorch files that hold a state dict or one under ``state_dict`` (Lightning).

    Raises:
        BenchError: missing, truncated, not weights, or a pickle that would run code.

    """
    if not path.is_file():
        known = weights.by_file(path.name)
        how = f"python -m bench weights get {known.name}" if known else "give the path of a checkpoint"
        raise BenchError(f"The weights {path} do not exist: {how}.")
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
    return state


def fill_module(module: nn.Module, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> None:
    """Copy the tensors named in `wanted` (part of the module's state dict) from `state`, read from `path`.

    Raises:
        BenchError: names or shapes do not fit; the sentence names the first.

    """
    missing = sorted(set(wanted) - set(state))
    if missing:
        raise BenchError(f"{path} does not fit the network: it has no {missing[0]} ({len(missing)} missing).")
    for name, p in wanted.items():
        if p.shape != state[name].shape:
            raise BenchError(
                f"{path} does not fit the network: {name} is {list(state[name].shape)}, expected {list(p.shape)}."
            )
    module.load_state_dict({name: state[name] for name in wanted}, strict=False)

"""What a training goes on from: written whole, read with care, refused where it belongs to another training.

The format: ``state`` (plain numbers), ``weights`` and ``ema`` (name to tensor), ``optimizer`` (PyTorch's), and since
November 2026 ``identity`` (JSON of :class:`Identity`), without which a checkpoint is resumed unchecked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.errors import BenchError
from bench.files import replacing
from bench.machine import is_out_of_memory
from bench.training.config import TrainConfig

CHECKPOINT = "checkpoint.pt"
FREE = {"steps", "budget", "log_every", "save_every", "val_every"}
"""Settings that may be others when a training goes on."""
BOUND = {"cosine": ("steps", "the rate"), "plateau": ("val_every", "the patience")}
"""Schedules that one of those settings belongs to, and what of them it changes."""
OF_IMAGES = {"pool", "val"}
"""Settings that matter only by the images that they choose, as do those of the dataset."""


def write_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write in full or not at all."""
    with replacing(path) as temporary:
        torch.save(content, temporary)


def read_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """Read a checkpoint onto a device.

    Raises:
        BenchError: cut, empty, or no checkpoint of a training.

    """
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # a truncated or foreign file fails in many ways
        if is_out_of_memory(error):
            raise
        reason = (str(error).splitlines() or [""])[0].rstrip(".") or type(error).__name__
        raise BenchError(f"{path} is damaged ({reason}): delete it to begin anew, or use another out=DIR.") from error
    missing = {"state", "weights", "ema", "optimizer"} - set(content if isinstance(content, dict) else ())
    if missing:
        raise BenchError(
            f"{path} is no checkpoint of a training (it has no {', '.join(sorted(missing))}): "
            "delete it to begin anew, or use another out=DIR."
        )
    return content


@dataclass(frozen=True)
class Identity:
    """What decides the result of a training besides the code: its settings and what its files hold.

    Attributes:
        settings: hydra's configuration as plain values.
        images: sha256 of the training and of the validation images.
        frozen: sha256 of the weights that are not trained.

    """

    settings: Mapping[str, Any]
    images: Sequence[str]
    frozen: str

    def as_json(self) -> str:
        """Plain text, for the checkpoint."""
        return json.dumps(vars(self), sort_keys=True, default=str)

    def check(self, path: Path, content: Mapping[str, Any]) -> None:
        """Refuse to go on from a checkpoint of other settings, images or frozen weights.

        Raises:
            BenchError: the sentence names what changed.

        """
        if "identity" not in content:
            return
        then, now = json.loads(content["identity"]), json.loads(self.as_json())
        other_images = then["images"] != now["images"]
        changed = list(_changes(_flat(then["settings"]), _flat(now["settings"]), other_images))
        if other_images:
            changed.append("the images of the dataset are others")
        if then["frozen"] != now["frozen"]:
            changed.append("the weights that are not trained are others")
        if changed:
            raise BenchError(
                f"{path} belongs to another training: {'; '.join(changed)}. Use another out=DIR, or what was used then."
            )


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Hash names and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _changes(then: Mapping[str, Any], now: Mapping[str, Any], other_images: bool) -> Iterator[str]:
    """Name the settings that are others and matter; those that choose images matter where the images are others."""
    schedule = now.get("schedule")
    added = {k: field.default for k, field in TrainConfig.model_fields.items() if k not in then}  # settings since then
    then = {**json.loads(json.dumps(added, default=str)), **then}
    bound, what = BOUND.get(str(schedule), ("", ""))
    for key in sorted((then.keys() - added.keys()) | now.keys()):
        old, new = then.get(key), now.get(key)
        of_images = key in OF_IMAGES or key.startswith("dataset.")
        if old == new or (key in FREE and key != bound) or (of_images and not other_images):
            continue
        why = f", and {what} of schedule={schedule} depends on it" if key == bound else ""
        yield f"{key}={_word(new)} (then {_word(old)}{why})"


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted keys to values that are no mappings."""
    if not isinstance(node, dict):
        return {prefix: node}
    return {k: v for key, child in node.items() for k, v in _flat(child, f"{prefix}.{key}" if prefix else key).items()}


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)

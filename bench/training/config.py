"""The typed configuration of a training run."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from pathlib import Path

from omegaconf import DictConfig

from bench.config import resolve_device
from bench.errors import BenchError, near_matches
from bench.training.trainable import Trainable, trainables
from bench.training.trainer import TrainConfig
from bench.values import boolean, integer, number, plain, whole

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_budget(text: str | None) -> float | None:
    """Device-seconds of "48h", "30m" or "48h*4"; None for none.

    Raises:
        BenchError: another form.

    """
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd])\s*(?:\*\s*(\d+))?\s*", str(text))
    if match is None:
        raise BenchError(f"budget={text} is no time: write 48h, 30m or 48h*4.")
    return float(match[1]) * UNITS[match[2]] * int(match[3] or 1)


def read_training(cfg: DictConfig) -> tuple[Trainable, TrainConfig]:
    """Check hydra's configuration, make it typed and build the network.

    Raises:
        BenchError: a value is missing, of the wrong type or out of range; the sentence names the key.

    """
    raw = plain(cfg)
    method = raw["method"]
    cls = trainables.get(method["name"])
    scale = None if raw["scale"] is None else whole(raw["scale"], "scale", 2)
    if cls.scaled and scale is None:
        raise BenchError(f"{method['name']} is trained for one scale: add scale=4 or scale=8.")
    known = [p for p in inspect.signature(cls).parameters if p != "scale"]
    for key in method["network"]:
        if key not in known:
            raise BenchError(f"method.network.{key} is no setting of {method['name']}.{near_matches(key, known)}")
    for key, options in (("precision", ("32", "bf16")), ("schedule", ("constant", "cosine", "plateau"))):
        if str(raw[key]) not in options:
            raise BenchError(f"{key}={raw[key]} is not one of {', '.join(options)}.")
    record = {k: v for k, v in raw.items() if k not in ("out", "device")}
    out = raw["out"]
    if out is None:
        digest = hashlib.sha256(json.dumps(record, sort_keys=True, default=str).encode()).hexdigest()[:8]
        out = f"results/training/{method['name']}{f'-x{scale}' if cls.scaled else ''}-{digest}"
    inf = float("inf")
    config = TrainConfig(
        dataset=raw["dataset"],
        scale=scale if cls.scaled else None,
        pool=integer(raw, "pool", 1),
        val=integer(raw, "val", 1),
        flip=boolean(raw, "flip"),
        batch=integer(raw, "batch", 1),
        steps=integer(raw, "steps", 1),
        budget=parse_budget(raw["budget"]),
        lr=number(raw["lr"], "lr", 0, inf),
        betas=(number(raw["betas"][0], "betas", 0, 1), number(raw["betas"][1], "betas", 0, 1)),
        weight_decay=number(raw["weight_decay"], "weight_decay", -1e-12, inf),
        warmup=integer(raw, "warmup", 0),
        schedule=str(raw["schedule"]),
        patience=integer(raw, "patience", 0),
        min_lr=number(raw["min_lr"], "min_lr", -1e-12, inf),
        clip=number(raw["clip"], "clip", 0, inf),
        skip=None if raw["skip"] is None else number(raw["skip"], "skip", 0, inf),
        ema=number(raw["ema"], "ema", 0, 1),
        precision=str(raw["precision"]),
        seed=integer(raw, "seed", 0),
        device=resolve_device(str(raw["device"])),
        out=Path(str(out)),
        log_every=integer(raw, "log_every", 1),
        save_every=number(raw["save_every"], "save_every", 0, inf),
        val_every=integer(raw, "val_every", 1),
        record=record,
    )
    return cls(**method["network"], **({"scale": scale} if cls.scaled else {})), config

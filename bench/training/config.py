"""The settings of a training run, described once: type, default, bounds and help."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from bench.config import Out, plain, resolve_device
from bench.errors import BenchError
from bench.files import digest
from bench.settings import Settings, as_text, build, setting, validate

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from bench.training.trainable import Trainable

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_budget(value: Any) -> Any:
    """Device-seconds of "48h", "30m" or "48h*4"; other values as they are."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd])\s*(?:\*\s*(\d+))?\s*", value)
    if match is None:
        raise ValueError("a time, as 48h, 30m or 48h*4 (hours times devices)")
    return float(match[1]) * UNITS[match[2]] * int(match[3] or 1)


class TrainConfig(Settings):
    """What a training run does; the keys are those of ``python -m bench train``.

    Attributes:
        method: the registered name of what is trained, and the settings of its network.
        record: the settings as they were given, without those that change nothing.

    """

    dataset: Mapping[str, Any]
    method: Mapping[str, Any]
    record: Mapping[str, Any]
    scale: int | None = setting(None, ge=2, help="scale factor of the methods that are trained for one")
    out: Out = setting(
        None, help="folder of the run; null for results/training/METHOD-HASH, where the same command goes on"
    )
    seed: int = setting(0, ge=0, lt=2**42, help="of all randomness")
    device: str = setting(
        "auto", help="auto, cpu, cuda or cuda:N; torchrun --nproc-per-node=N -m bench train ... trains on N devices"
    )
    precision: Annotated[Literal["32", "bf16"], BeforeValidator(as_text)] = setting("32", help="of the network")
    budget: Annotated[
        Annotated[float, Field(gt=0)] | None, BeforeValidator(parse_budget), WithJsonSchema({"text": "time or null"})
    ] = setting(None, help="device-seconds after which training ends, as 48h, 30m or 48h*4 (hours times devices)")
    batch: int = setting(32, ge=1, help="images per step, over all processes")
    steps: int = setting(10000, ge=1, help="number of steps")
    lr: float = setting(2e-4, gt=0, help="learning rate after `warmup` steps")
    betas: tuple[Annotated[float, Field(gt=0, lt=1)], Annotated[float, Field(gt=0, lt=1)]] = setting(
        (0.9, 0.9), help="of AdamW"
    )
    weight_decay: float = setting(0.0, ge=0, help="of AdamW; without any it is Adam")
    warmup: int = setting(100, ge=0, help="steps in which the learning rate rises")
    schedule: Literal["constant", "cosine", "plateau", "multistep"] = setting(
        "constant",
        help="cosine: to zero at `steps`; plateau: x 0.1 after `patience` validations without 1% of improvement; "
        "multistep: x `gamma` at each of `milestones`",
    )
    milestones: tuple[Annotated[int, Field(ge=1)], ...] = setting((), help="steps, counted from 1, of multistep")
    gamma: float = setting(0.5, gt=0, le=1, help="of multistep")
    patience: int = setting(5, ge=0, help="validations, of the plateau")
    min_lr: float = setting(0.0, ge=0, help="smallest learning rate of the plateau")
    clip: float | None = setting(200.0, gt=0, help="largest norm of the gradient; null for any")
    clip_value: float | None = setting(
        None, gt=0, help="largest absolute value of the gradient's elements, before `clip`; null for any"
    )
    skip: float | None = setting(
        None,
        gt=0,
        help="steps with a larger norm are skipped; null skips only those that are not finite; 100 in a row end it",
    )
    ema: float = setting(
        0.999,
        ge=0,
        le=1,
        help="decay of the averaged weights, shorter at first: min(ema, (1 + step) / (10 + step)); 0 for no average",
    )
    pool: int = setting(30000, ge=1, help="training images at most; made or read once and kept in the cache folder")
    val: int = setting(128, ge=1, help="validation images at most")
    flip: bool = setting(True, help="mirror half of the training images")
    crop: int | None = setting(
        None, ge=1, help="side of the random squares of images that are trained on; null for whole images"
    )
    log_every: int = setting(50, ge=1, help="steps between entries of the log")
    val_every: int = setting(1000, ge=1, help="steps between validations")
    save_every: float = setting(120.0, ge=0, help="seconds between checkpoints; 0 for one at every step")


def read_training(cfg: DictConfig) -> tuple[Trainable, TrainConfig]:
    """Check hydra's configuration, make it typed and build the network.

    Raises:
        BenchError: a value is missing, of the wrong type or out of range; the sentence names the key.

    """
    import torch

    from bench.training.trainable import trainables

    raw = plain(cfg)
    record = {k: v for k, v in raw.items() if k not in ("out", "device")}
    config: TrainConfig = validate(TrainConfig, {**raw, "record": record})
    name = str(config.method["name"])
    cls = trainables.get(name)
    if cls.scaled and config.scale is None:
        raise BenchError(f"{name} is trained for one scale: add scale=4 or scale=8.")
    scale = config.scale if cls.scaled else None
    out = config.out
    if out == Path():
        out = Path("results/training") / f"{name}{f'-x{scale}' if cls.scaled else ''}-{digest(record)[:8]}"
    config = config.model_copy(update={"scale": scale, "device": resolve_device(config.device), "out": out})
    torch.manual_seed(config.seed)  # initial weights
    given = {"scale": scale} if cls.scaled else {}
    try:
        return build(cls, config.method.get("network") or {}, "method.network", name, given), config
    except ValueError as error:  # of PyTorch, as where groups do not divide channels
        raise BenchError(f"method.network describes no network of {name}: {error}.") from error

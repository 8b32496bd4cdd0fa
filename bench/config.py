"""The typed configuration of a run, made from hydra's and checked before anything is computed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from bench.errors import BenchError

FROZEN = ("dataset", "n", "seed", "quantise", "save_images", "metrics")
"""Keys that change every row: a run directory is made with one value of each."""


@dataclass(frozen=True)
class TimingConfig:
    """How wall time is measured; see :mod:`bench.timing`. `budget` is in seconds."""

    warmup: int
    repeats: int
    budget: float
    max_batch: int


@dataclass(frozen=True)
class MethodConfig:
    """One entry of ``methods``: its label in tables, the registered method's name and its parameters."""

    label: str
    name: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class RunConfig:
    """What a run does; the keys are those of ``configs/run.yaml``."""

    methods: tuple[MethodConfig, ...]
    scales: tuple[int, ...]
    taus: tuple[float, ...]
    n: int
    dataset: Mapping[str, Any]
    limit: int | None
    seed: int
    device: str
    out: Path
    batch: int
    quantise: bool
    save_images: int
    paper: bool
    perceptual: str
    metrics: tuple[str, ...]
    timing: TimingConfig

    def record(self) -> dict[str, Any]:
        """Plain values, as written to ``config.yaml`` of the run directory."""
        return {
            "methods": {m.label: {"method": m.name, **m.parameters} for m in self.methods},
            "scale": list(self.scales),
            "tau": list(self.taus),
            "n": self.n,
            "dataset": dict(self.dataset),
            "limit": self.limit,
            "seed": self.seed,
            "device": self.device,
            "batch": self.batch,
            "quantise": self.quantise,
            "save_images": self.save_images,
            "paper": self.paper,
            "metrics": list(self.metrics),
            "timing": vars(self.timing),
        }


def read_config(cfg: DictConfig) -> RunConfig:
    """Check hydra's configuration and make it typed.

    Raises:
        BenchError: a value is missing, of the wrong type or out of range; the sentence names the key.

    """
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise BenchError(f"{missing[0]} has no value: add {missing[0]}=VALUE.")
    raw: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    if not raw.get("methods"):
        raise BenchError("methods is empty: give at least one, as in methods=[bicubic].")
    if not raw.get("dataset"):
        raise BenchError("dataset is empty: give one, as in dataset=synthfaces.")
    methods = []
    for label, parameters in raw["methods"].items():
        parameters = dict(parameters or {})
        methods.append(MethodConfig(label, parameters.pop("method", label), parameters))
    timing = TimingConfig(
        warmup=_integer(raw["timing"], "timing.warmup", 0),
        repeats=_integer(raw["timing"], "timing.repeats", 1),
        budget=_number(raw["timing"]["budget"], "timing.budget", 0, float("inf")),
        max_batch=_integer(raw["timing"], "timing.max_batch", 1),
    )
    config = RunConfig(
        methods=tuple(methods),
        scales=tuple(dict.fromkeys(_whole(s, "scale", 2) for s in _list(raw["scale"], "scale"))),
        taus=tuple(dict.fromkeys(_temperature(t) for t in _list(raw["tau"], "tau"))),
        n=_integer(raw, "n", 1),
        dataset=raw["dataset"],
        limit=None if raw["limit"] is None else _integer(raw, "limit", 1),
        seed=_integer(raw, "seed", 0),
        device=resolve_device(str(raw["device"])),
        out=Path(),
        batch=_integer(raw, "batch", 1),
        quantise=_boolean(raw, "quantise"),
        save_images=_integer(raw, "save_images", 0),
        paper=_boolean(raw, "paper"),
        perceptual=str(raw["perceptual"]),
        metrics=tuple(str(m) for m in _list(raw["metrics"], "metrics")),
        timing=timing,
    )
    return replace(config, out=Path(str(raw["out"])) if raw["out"] else _default_out(config))


def resolve_device(name: str) -> str:
    """Return "cpu" or "cuda:N" for a name or "auto"; BenchError where this machine has no such device."""
    if name == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise BenchError(f"device={name} is no device: use auto, cpu, cuda or cuda:N.") from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise BenchError(f"device={name} is not there ({count} CUDA devices found): use device=cpu or device=auto.")
        return f"cuda:{device.index or 0}"
    if device.type != "cpu":
        raise BenchError(f"device={name} is not supported: use auto, cpu, cuda or cuda:N.")
    return "cpu"


def _default_out(config: RunConfig) -> Path:
    record = {k: v for k, v in config.record().items() if k not in ("device", "batch", "timing", "paper")}
    record["perceptual"] = config.perceptual
    digest = hashlib.sha256(json.dumps(record, sort_keys=True, default=str).encode()).hexdigest()[:8]
    return Path("results/runs") / f"{config.dataset['name']}-{digest}"


def _list(value: Any, key: str) -> list[Any]:
    values = value if isinstance(value, list) else [value]
    if not values:
        raise BenchError(f"{key} is an empty list: give at least one value.")
    return values


def _integer(raw: Mapping[str, Any], key: str, least: int) -> int:
    return _whole(raw[key.rpartition(".")[2]], key, least)


def _whole(value: Any, key: str, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise BenchError(f"{key}={value} is not a whole number of at least {least}.")
    return value


def _number(value: Any, key: str, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low < value <= high:
        raise BenchError(f"{key}={value} is not a number above {low} and up to {high}.")
    return float(value)


def _temperature(value: Any) -> float:
    return _number(value, "tau", 0, 1)


def _boolean(raw: Mapping[str, Any], key: str) -> bool:
    if not isinstance(raw[key], bool):
        raise BenchError(f"{key}={raw[key]} is neither true nor false.")
    return raw[key]

"""The typed configuration of a run, made from hydra's and checked before anything is computed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from bench.errors import BenchError
from bench.values import Shard, boolean, integer, items, number, plain, shard, whole


@dataclass(frozen=True)
class TimingConfig:
    """How wall time is measured; see :mod:`bench.run.timing`. `budget` is in seconds."""

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
    operator: Mapping[str, Any]
    limit: int | None
    images: tuple[int, int | None] | None
    shard: Shard | None
    seed: int
    device: str
    out: Path
    batch: int
    quantise: bool
    save_samples: str
    save_budget: int
    resample: bool
    stale: str
    figure_images: int
    apd_images: int | None
    paper: bool
    perceptual: str
    metrics: tuple[str, ...]
    timing: TimingConfig

    @property
    def sigma(self) -> float:
        """Standard deviation of the operator's noise."""
        return float(self.operator.get("sigma", 0.0))

    def record(self) -> dict[str, Any]:
        """Plain values, as written to ``config.yaml`` of the run directory."""
        return {
            "methods": {m.label: {"method": m.name, **m.parameters} for m in self.methods},
            "scale": list(self.scales),
            "tau": list(self.taus),
            "n": self.n,
            "dataset": dict(self.dataset),
            "operator": dict(self.operator),
            "limit": self.limit,
            "seed": self.seed,
            "device": self.device,
            "batch": self.batch,
            "quantise": self.quantise,
            "images": None if self.images is None else list(self.images),
            "save_samples": self.save_samples,
            "save_budget": self.save_budget,
            "figure_images": self.figure_images,
            "apd_images": self.apd_images,
            "paper": self.paper,
            "metrics": list(self.metrics),
            "timing": vars(self.timing),
        }


def read_config(cfg: DictConfig) -> RunConfig:
    """Check hydra's configuration and make it typed.

    Raises:
        BenchError: a value is missing, of the wrong type or out of range; the sentence names the key.

    """
    raw = plain(cfg)
    if not raw.get("methods"):
        raise BenchError("methods is empty: give at least one, as in methods=[bicubic].")
    if not raw.get("dataset"):
        raise BenchError("dataset is empty: give one, as in dataset=synthfaces.")
    methods = []
    for label, parameters in raw["methods"].items():
        parameters = dict(parameters or {})
        methods.append(MethodConfig(label, parameters.pop("method", label), parameters))
    timing = TimingConfig(
        warmup=integer(raw["timing"], "timing.warmup", 0),
        repeats=integer(raw["timing"], "timing.repeats", 1),
        budget=number(raw["timing"]["budget"], "timing.budget", 0, float("inf")),
        max_batch=integer(raw["timing"], "timing.max_batch", 1),
    )
    config = RunConfig(
        methods=tuple(methods),
        scales=tuple(dict.fromkeys(whole(s, "scale", 2) for s in items(raw["scale"], "scale"))),
        taus=tuple(dict.fromkeys(number(t, "tau", 0, 1) for t in items(raw["tau"], "tau"))),
        n=integer(raw, "n", 1),
        dataset=raw["dataset"],
        operator=raw["operator"],
        limit=None if raw["limit"] is None else integer(raw, "limit", 1),
        images=_image_range(raw["images"]),
        shard=shard(raw["shard"]),
        seed=integer(raw, "seed", 0),
        device=resolve_device(str(raw["device"])),
        out=Path(),
        batch=integer(raw, "batch", 1),
        quantise=boolean(raw, "quantise"),
        save_samples=str(raw["save_samples"]),
        save_budget=integer(raw, "save_budget", 0),
        resample=boolean(raw, "resample"),
        stale=str(raw["stale"]),
        figure_images=integer(raw, "figure_images", 0),
        apd_images=None if raw["apd_images"] is None else integer(raw, "apd_images", 1),
        paper=boolean(raw, "paper"),
        perceptual=str(raw["perceptual"]),
        metrics=tuple(str(m) for m in items(raw["metrics"], "metrics")),
        timing=timing,
    )
    return replace(config, out=Path(str(raw["out"])) if raw["out"] else _default_out(config))


def _image_range(value: Any) -> tuple[int, int | None] | None:
    """A:B as (A, B), with B None for all from A on."""
    if value is None:
        return None
    first, colon, last = str(value).partition(":")
    if not colon or not first.isdecimal() or not (last == "" or (last.isdecimal() and int(last) > int(first))):
        raise BenchError(f"images={value} is no range: write images=200:400 for the images 200 to 399.")
    return int(first), int(last) if last else None


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
    keys = ("methods", "scale", "tau", "n", "dataset", "operator", "seed", "quantise")
    record = {k: config.record()[k] for k in keys}
    digest = hashlib.sha256(json.dumps(record, sort_keys=True, default=str).encode()).hexdigest()[:8]
    return Path("results/runs") / f"{config.dataset['name']}-{digest}"

"""The typed configuration of a run, made from hydra's and checked before anything is computed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from bench.errors import BenchError, near_matches
from bench.registry import plugin_config_dirs
from bench.values import Shard, boolean, integer, items, number, plain, shard, whole

FROZEN = ("dataset", "operator", "n", "seed", "quantise", "save_images", "metrics")
"""Keys that change every row: a run directory is made with one value of each."""


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
    shard: Shard | None
    seed: int
    device: str
    out: Path
    batch: int
    quantise: bool
    save_images: int
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
            "save_images": self.save_images,
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
        shard=shard(raw["shard"]),
        seed=integer(raw, "seed", 0),
        device=resolve_device(str(raw["device"])),
        out=Path(),
        batch=integer(raw, "batch", 1),
        quantise=boolean(raw, "quantise"),
        save_images=integer(raw, "save_images", 0),
        apd_images=None if raw["apd_images"] is None else integer(raw, "apd_images", 1),
        paper=boolean(raw, "paper"),
        perceptual=str(raw["perceptual"]),
        metrics=tuple(str(m) for m in items(raw["metrics"], "metrics")),
        timing=timing,
    )
    return replace(config, out=Path(str(raw["out"])) if raw["out"] else _default_out(config))


def method_config(name: str, settings: Mapping[str, Any] = {}, label: str | None = None) -> MethodConfig:
    """Read ``configs/methods/NAME.yaml``, here or in a plugin's folder, without a run.

    Args:
        name: of the configuration file.
        settings: merged into the file's, at every depth.
        label: name in tables; None for the file's name.

    Raises:
        BenchError: there is no such file, or its header is missing.

    """
    import hydra
    from hydra.errors import MissingConfigException

    check_label(name)
    try:
        with hydra.initialize_config_module("configs", version_base="1.3"):
            cfg = hydra.compose(overrides=[f"+methods={name}", *search_path()])
    except MissingConfigException as error:
        raise BenchError(f"There is no method '{name}'.{near_matches(name, error.options or [])}") from None
    found: dict[str, Any] = plain(cfg)["methods"]
    if name not in found:
        raise BenchError(f"methods/{name}.yaml has no header: write '# @package methods.{name}' into its first line.")
    merged = merge(found[name] or {}, settings)
    return MethodConfig(label or name, str(merged.pop("method", name)), merged)


def check_label(label: str) -> str:
    """Return a name of rows; BenchError unless it can be a folder's name and a key of the configuration."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", label):
        raise BenchError(f"'{label}' cannot be the name of rows: use letters, digits and - _ . + only.")
    return label


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Plain settings with others put over them, at every depth."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(below, Mapping)
        merged[key] = merge(below, value) if both else value
    return merged


def search_path() -> list[str]:
    """Where the yaml files of installed plugins are, as an override for hydra."""
    folders = [d for group in ("bench.methods", "bench.datasets") for d in plugin_config_dirs(group)]
    return [f"hydra.searchpath=[{','.join(f'file://{d}' for d in sorted(set(folders)))}]"] if folders else []


def resolve_device(name: str) -> str:
    """Return "cpu" or "cuda:N" for a name or "auto"; BenchError where this machine has no such device."""
    if name == "cpu":
        return name
    import torch

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
    record = {k: v for k, v in config.record().items() if k not in ("device", "batch", "timing", "apd_images", "paper")}
    record["perceptual"] = config.perceptual
    digest = hashlib.sha256(json.dumps(record, sort_keys=True, default=str).encode()).hexdigest()[:8]
    return Path("results/runs") / f"{config.dataset['name']}-{digest}"

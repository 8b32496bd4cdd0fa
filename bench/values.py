"""Values of a configuration, checked; every error is one sentence that names the key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from bench.errors import BenchError


@dataclass(frozen=True)
class Shard:
    """Part `index` (0 to ``count - 1``) of a run's images."""

    index: int
    count: int


def plain(cfg: DictConfig) -> dict[str, Any]:
    """Hydra's configuration as plain dictionaries and lists; BenchError where a value is missing."""
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise BenchError(f"{missing[0]} has no value: add {missing[0]}=VALUE.")
    return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]


def items(value: Any, key: str) -> list[Any]:
    """One value or a list of at least one, as a list."""
    values = value if isinstance(value, list) else [value]
    if not values:
        raise BenchError(f"{key} is an empty list: give at least one value.")
    return values


def integer(raw: Mapping[str, Any], key: str, least: int) -> int:
    """The whole number under the last part of a dotted key."""
    return whole(raw[key.rpartition(".")[2]], key, least)


def whole(value: Any, key: str, least: int) -> int:
    """A whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise BenchError(f"{key}={value} is not a whole number of at least {least}.")
    return value


def shard(value: Any) -> Shard | None:
    """Part I of N from "I/N", None for all."""
    if value is None:
        return None
    left, _, right = str(value).partition("/")
    if not (left.isdecimal() and right.isdecimal() and int(left) < int(right)):
        raise BenchError(f"shard={value} is no part: write 0/8, 1/8 ... 7/8 for eight parts.")
    return Shard(int(left), int(right))


def number(value: Any, key: str, low: float, high: float) -> float:
    """A number above `low` and up to `high`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low < value <= high:
        raise BenchError(f"{key}={value} is not a number above {low} and up to {high}.")
    return float(value)


def boolean(raw: Mapping[str, Any], key: str) -> bool:
    """The value true or false under a key."""
    if not isinstance(raw[key], bool):
        raise BenchError(f"{key}={raw[key]} is neither true nor false.")
    return raw[key]

"""What rows depend on, by role and content, and how to say what of it has changed."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.config import MethodConfig, RunConfig
from bench.contract import methods
from bench.files import cache_dir, file_identity, sha256
from bench.operators import operators
from bench.run.cell import Cell, CellKey

SHARED = ("operator", "dataset", "n", "seed", "quantise")
"""What all cells of one directory have in common."""
HASH = 12
"""Digits of a hash in a sentence."""


def settings_of(m: MethodConfig) -> dict[str, Any]:
    """A method's settings without its options of computing, which change nothing but by rounding."""
    return {k: v for k, v in m.parameters.items() if k != "compute"}


def compute_of(m: MethodConfig) -> dict[str, Any]:
    """A method's options of computing; empty for a method without a network."""
    return as_json(m.parameters.get("compute") or {})


def identity(config: RunConfig, m: MethodConfig, key: CellKey) -> dict[str, Any]:
    """All that a cell's rows depend on, but for the weights."""
    return as_json(
        {
            "method": m.name,
            "version": methods.facts(m.name).version,
            "settings": settings_of(m),
            "scale": key.scale,
            "tau": key.tau,
            "operator": {"sigma": 0.0, **config.operator, **_contents(config.operator)},
            "dataset": dict(config.dataset),
            "n": config.n,
            "seed": config.seed,
            "quantise": config.quantise,
        }
    )


def _contents(settings: Mapping[str, Any]) -> dict[str, str]:
    """The sha256 of files that an operator's settings name, as a mask: the same path may hold another one tomorrow."""
    named = operators.get(str(settings["name"])).files({k: v for k, v in settings.items() if k != "name"})
    return {f"{k} (content)": sha256(path) for k, path in named.items()}


def as_json(content: Any) -> Any:
    """What JSON makes of it."""
    return json.loads(json.dumps(content, default=str))


def file_states(files: Mapping[str, Path]) -> dict[str, Any]:
    """What tells the content of files without reading them, by role: where they are and their `file_identity`.

    A link is known by its own name, since it may lead to another file tomorrow. The last entry stands for all that a
    name is looked up by: in another folder, installation or cache the same name may be another file.
    """
    place = [os.getcwd(), str(Path(__file__).parents[2]), sys.prefix, sys.path[1:], str(cache_dir().absolute())]
    digest = hashlib.sha256(json.dumps(place).encode()).hexdigest()[:HASH]
    return {role: [str(path.absolute()), *file_identity(path)[1:], digest] for role, path in files.items()}


def hashes(files: Mapping[str, Path]) -> dict[str, str]:
    """The sha256 of files, by role."""
    return {role: sha256(path) for role, path in files.items()}


def is_unchanged(cell: Cell) -> bool:
    """Whether a cell's method would surely load here and now what the cell was made with.

    That is in the same place, where no file has changed and no setting names another one.
    """
    recorded = {role: Path(state[0]) for role, state in cell.files.items()}
    settings = (cell.identity or {}).get("settings")
    named = {str(Path(s).absolute()) for s in _strings(settings) if os.path.isfile(s)}
    return file_states(recorded) == cell.files and named <= set(map(str, recorded.values()))


def recorded_hashes(cell: Cell) -> dict[str, str]:
    """The sha256 that the files a cell was made with have now; those that are gone are as they were."""
    now = dict((cell.identity or {}).get("weights", {}))
    for role, state in cell.files.items():
        path = Path(state[0])
        if path.is_file() and file_states({role: path})[role] != state:  # gigabytes are not read without a reason
            now[role] = sha256(path)
    return now


def _strings(settings: Any) -> Iterator[str]:
    if isinstance(settings, str):
        yield settings
    elif isinstance(settings, Mapping | list):
        for value in settings.values() if isinstance(settings, Mapping) else settings:
            yield from _strings(value)


def differences(before: Mapping[str, Any], now: Mapping[str, Any], keys: tuple[str, ...] | None = None) -> list[str]:
    """Say what differs between two identities, as in "settings.output was draw, is mean"; of all keys or of some."""
    found = []
    for key in sorted(before.keys() | now.keys()):
        if keys is not None and key not in keys:
            continue
        found += _difference(key, before.get(key), now.get(key))
    return found


def _difference(key: str, before: Any, now: Any) -> list[str]:
    if before == now:
        return []
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        inner = sorted(before.keys() | now.keys())
        return [text for k in inner for text in _difference(f"{key}.{k}", before.get(k), now.get(k))]
    if key.startswith("weights."):
        was, is_ = (("none" if v is None else v[:HASH]) for v in (before, now))
        return [f"the weights '{key.removeprefix('weights.')}' were {was}, are {is_}"]
    if key == "version":
        return [f"the method was version {before}, is {now}"]
    return [f"{key} was {_text(before)}, is {_text(now)}"]


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict | list | bool) or value is None else str(value)

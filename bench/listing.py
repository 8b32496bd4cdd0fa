"""The tables of what there is: methods, metrics, datasets, operators and weights.

What a plugin declares is read from its source (:mod:`bench.registry`), so that a listing imports no network library.
Each function returns the text to be printed; :func:`broken_plugins` says afterwards what could not be read.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.errors import BenchError

Cell = str | int | None


def methods_table() -> str:
    """What can be run, and for which operators."""
    from bench.contract import Facts, cost_text, methods

    def row(name: str, f: Facts) -> list[Cell]:
        tau = "yes" if f.uses_tau else "no"
        cost = cost_text(f.evaluations, f.backward_passes)
        return [name, f.title, f.ability, tau, cost, f.version, f.weights_licence, f.citation]

    heads = ["name", "title", "what it does", "tau", "evaluations", "version", "weights' licence", "citation"]
    return _table(heads, _rows(methods, row), {"citation": 60, "weights' licence": 30})


def metrics_table() -> str:
    """What can be measured."""
    from bench.metrics import ARROWS, MetricFacts, metrics, unit

    def row(name: str, f: MetricFacts) -> list[Cell]:
        better = ARROWS[f.better] + (" at sigma 0" if f.of_residual else "")
        return [name, better, unit(f), f.domain, f.range, f.source]

    heads = ["name", "better", "unit", "per", "range", "source"]
    table = _table(heads, _rows(metrics, row), {"range": 30, "source": 60})
    return f"{table}\n\nAny metric of pyiqa as pyiqa:NAME (extra `iqa`, non-commercial licence)."


def data_table() -> str:
    """What can be measured on, and how to get it."""
    from bench.data import DataFacts, datasets

    def row(name: str, f: DataFacts) -> list[Cell]:
        return [name, f.title, "all" if f.default_limit is None else f.default_limit, f.licence, f.how_to_get]

    heads = ["name", "title", "images", "licence", "how to get it"]
    return _table(heads, _rows(datasets, row), {"licence": 30, "how to get it": 70})


def operators_table() -> str:
    """What images can be observed by."""
    from bench.operators import OperatorFacts, operators

    def row(name: str, f: OperatorFacts) -> list[Cell]:
        return [name, f.title, f.source]

    table = _table(["name", "title", "source"], _rows(operators, row), {"source": 70})
    return f"{table}\n\noperator=NAME operator.sigma=0.05 scale=8: y = A x + sigma n."


def weights_table() -> str:
    """Known checkpoints and whether they are here, and the weights that come with this project."""
    from bench import weights
    from bench.download import state

    rows: list[list[Cell]] = []
    for c in weights.CHECKPOINTS:
        size = f"{c.path.stat().st_size / 1e6:.0f}" if c.path.is_file() else ""
        rows.append([c.name, state(c), size, "get" if c.url else "add", c.file, c.used_by, c.licence, c.page])
    for path in _shipped():
        owner = path.parent.parent.name
        rows.append(
            [f"{owner}/{path.stem}", "shipped", _megabytes(path), "", path.name, f"methods.{owner}", "MIT",
             "this project"]
        )  # fmt: skip
    for s in weights.METRIC_FILES:
        rows.append([s.name, "shipped", _megabytes(s.path), "", s.path.name, s.used_by, s.licence, s.page])
    heads = ["name", "state", "MB", "how", "file", "used by", "licence", "origin"]
    table = _table(heads, rows, {"file": 34, "used by": 34, "origin": 40})
    return f"{table}\n\nKept in {weights.folder_of_weights()}. python -m bench weights get NAME, or add NAME FILE."


def broken_plugins(kind: str) -> list[str]:
    """Say, one sentence each, which plugins of a kind cannot be imported; known once its table has been made.

    Args:
        kind: "methods", "metrics", "data" or "operators".

    """
    return [f"plugin '{name}' could not be imported: {why}" for name, why in _registry(kind).broken.items()]


def _registry(kind: str) -> Any:
    from bench.contract import methods
    from bench.data import datasets
    from bench.metrics import metrics
    from bench.operators import operators

    return {"methods": methods, "metrics": metrics, "data": datasets, "operators": operators}[kind]


def _rows(registry: Any, row: Any) -> list[list[Cell]]:
    """One row for each plugin whose facts can be had; the others are among the registry's broken ones."""
    rows = []
    for name in registry.names():
        try:
            facts = registry.facts(name)
        except BenchError:
            if name not in registry.broken:
                raise
            continue
        rows.append(row(name, facts))
    return rows


def _shipped() -> list[Path]:
    spec = importlib.util.find_spec("methods")
    folders = spec.submodule_search_locations or [] if spec else []
    return sorted(p for folder in folders for p in Path(folder).glob("*/shipped/*.safetensors"))


def _megabytes(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[Cell]], widths: dict[str, int]) -> str:
    from tabulate import tabulate

    return tabulate(rows, headers=heads, tablefmt="simple", maxcolwidths=[widths.get(h) for h in heads])

"""What a report shows, read from run directories as plain values: all of it can be written as JSON."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import to_hex

from bench.files import read_json
from bench.metrics import PERCEPTUAL, Better, column, metric_facts
from bench.metrics.statistic import statistics
from bench.metrics.truth import covered, rank_curves, rank_table
from bench.report.figures import SPREAD
from bench.report.html.words import about_metric, about_statistic
from bench.report.notes import IMPOSSIBLE, below_table, impossible
from bench.report.stats import paired_difference
from bench.report.tables import (
    PREFIXES,
    Row,
    column_head,
    directions,
    latex,
    markdown,
    ranks_of_scales,
    read_rows,
    summarise,
)
from bench.report.truth import TruthRow, applies, conditions_of, figures_of, read_truth, ruled_out
from bench.run.store import RunDir

LEVELS = np.linspace(0, 1, 41)
"""Of the coverage curves."""
DIGITS = 7
"""Significant digits of figures in the page; the tables on disk have all."""
HASH = 12
"""Digits of a hash that is shown."""
ImageKey = tuple[str, str]
"""Name and content of an image: the same in two runs where both are equal."""


@dataclass(frozen=True)
class Entry:
    """A row of a run: one method at one scale and temperature.

    Attributes:
        run: number of its run.
        row: its figures.
        images: index in the dataset to key, of the images that it has rows of.

    """

    run: int
    row: Row
    images: dict[int, ImageKey]


@dataclass
class Collected:
    """What `collect` finds.

    Attributes:
        runs: the directories.
        entries: all rows, those of the first run first.
        images: all images in the order of the first run that has them.
        content: what the page shows, but for pictures.

    """

    runs: Sequence[RunDir]
    entries: list[Entry] = field(default_factory=list)
    images: list[ImageKey] = field(default_factory=list)
    content: dict[str, Any] = field(default_factory=dict)


def collect(runs: Sequence[RunDir]) -> Collected:
    """Read run directories.

    Raises:
        BenchError: one is no run directory, or a file in it is damaged.

    """
    found = Collected(runs)
    names: list[str] = []
    records = []
    shown: list[dict[str, Any]] = []
    statistic_names: list[str] = []
    labels = run_names(runs)
    read = [read_rows(run) for run in runs]
    # of all runs together: a metric that one of them cannot rank has no rank on the page
    better = directions([row for rows, _ in read for row in rows], list(dict.fromkeys(n for _, m in read for n in m)))
    for number, (run, (rows, metrics)) in enumerate(zip(runs, read, strict=True)):
        truths, known = read_truth(run)
        frame = summarise(rows, metrics)
        ranks = ranks_of_scales(rows, metrics, frame, better)
        names += [n for n in metrics if n not in names]
        statistic_names += [n for n in known if n not in statistic_names]
        for i, (row, truth) in enumerate(zip(rows, truths, strict=True)):
            found.entries.append(Entry(number, row, _images_of(row)))
            shown.append(
                _row(number, row, truth, frame.iloc[i], metrics, {n: r[i] for n, r in ranks.items() if i in r})
            )
        records.append(_run(run, labels[number], rows, metrics, frame))
    found.images = list(dict.fromkeys(key for e in found.entries for key in e.images.values()))
    number_of = {key: i for i, key in enumerate(found.images)}
    for record, entry in zip(shown, found.entries, strict=True):
        record["values"] = _values(entry, names, number_of)
    first = {key: index for e in reversed(found.entries) for index, key in e.images.items()}
    found.content = {
        "runs": records,
        "metrics": [_metric(name, better) for name in names],
        "statistics": [_statistic(name) for name in statistic_names],
        "rows": shown,
        "images": [{"index": first[key], "name": key[0]} for key in found.images],
        "differences": list(_differences(found.entries, names)),
        "curves": [_curves(e.row) for e in found.entries],
        "spread": {"most": SPREAD, "colours": [to_hex(c) for c in colormaps["magma"](range(256))]},
    }
    return found


def run_names(runs: Sequence[RunDir]) -> list[str]:
    """Names of the directories, with as many of the folders above as tell them apart."""
    paths = [run.path.resolve() for run in runs]
    for depth in range(1, max((len(p.parts) for p in paths), default=1) + 1):
        names = ["/".join(p.parts[-depth:]) for p in paths]
        if len(set(names)) == len(names):
            return names
    return [f"{name} ({i + 1})" for i, name in enumerate(names)]


def _images_of(row: Row) -> dict[int, ImageKey]:
    images = row.cell.read("images")
    return {
        int(i): (str(n), str(c)) for i, n, c in zip(images["index"], images["image"], images["content"], strict=True)
    }


def _number(value: Any) -> float | None:
    """A figure as JSON has it: None where it is not finite."""
    value = float(value)
    return float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None


def _run(run: RunDir, name: str, rows: list[Row], metrics: list[str], frame: pd.DataFrame) -> dict[str, Any]:
    config = run.config
    starts = [e for p in sorted(run.path.glob("environment*.json")) for e in read_json(p, list[dict[str, Any]])]
    last = starts[-1] if starts else {}
    return {
        "name": name,
        "dataset": _flat(config.get("dataset", {})),
        "operator": _flat(config.get("operator", {})),
        "samples": config.get("n"),
        "seed": config.get("seed"),
        "rounded": config.get("quantise", True),
        "environment": {
            "device": last.get("device_name", ""),
            "platform": last.get("platform", ""),
            "packages": last.get("packages", {}),
            "commit": (last.get("git") or {}).get("commit") or "",
            "changed": bool((last.get("git") or {}).get("dirty")),
            "starts": len(starts),
        },
        "failures": run.failures,
        "notes": [t for t in below_table(rows, metrics, config) if not t.startswith(IMPOSSIBLE)] if rows else [],
        "downloads": _downloads(rows, metrics, frame) if rows else {},
    }


def _flat(settings: Mapping[str, Any]) -> dict[str, str]:
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in settings.items() if v is not None}


def _downloads(rows: list[Row], metrics: list[str], frame: pd.DataFrame) -> dict[str, str]:
    """Files of a run, base64: the tables, and all rows per sample."""
    samples = io.BytesIO()
    frames = [row.cell.read("samples").drop(columns="metrics") for row in rows]
    pd.concat(frames, ignore_index=True).to_parquet(samples, index=False, compression="zstd")
    files = {
        "table.csv": frame.to_csv(index=False).encode(),
        "table.tex": latex(rows, metrics, frame).encode(),
        "table.md": (markdown(rows, metrics, frame, intervals=True) + "\n").encode(),
        "samples.parquet": samples.getvalue(),
    }
    return {name: base64.b64encode(content).decode() for name, content in files.items()}


def _metric(name: str, better: Mapping[str, Better]) -> dict[str, Any]:
    facts = metric_facts(name)
    says, right = about_metric(name)
    return {
        "name": name,
        "label": PREFIXES.get(facts.group, "") + facts.label,
        "head": column_head(name, better),
        "better": better.get(name, facts.better),
        "digits": facts.digits,
        "range": facts.range,
        "source": facts.source,
        "timing": facts.domain == "timing",
        "perceptual": name in PERCEPTUAL,
        "says": says,
        "right": right,
    }


def _statistic(name: str) -> dict[str, Any]:
    facts = statistics.facts(name)
    return {
        "name": name,
        "label": facts.label + (f" ({facts.unit})" if facts.unit else ""),
        "digits": facts.digits,
        "source": facts.source,
        "says": about_statistic(name),
        "bound": facts.bound,
    }


def _row(
    run: int, row: Row, truth: TruthRow, means: pd.Series, metrics: Sequence[str], ranks: Mapping[str, int]
) -> dict[str, Any]:
    key, identity, facts, timing = row.cell.key, row.cell.identity or {}, row.cell.facts, row.cell.timing or {}
    operator, holds = row.operator + (f", sigma {row.sigma:g}" if row.sigma else ""), applies(row.cell)
    return {
        "run": run,
        "id": f"{run}.{key.folder}",
        "title": row.title,
        "scale": key.scale,
        "tau": key.tau,
        "operator": operator,
        "citation": facts.get("citation", ""),
        "version": identity.get("version"),
        "evaluations": facts.get("evaluations"),
        "weights": {role: sha[:HASH] for role, sha in identity.get("weights", {}).items()},
        "licence": facts.get("weights_licence") or "",
        "timed": {"device": timing.get("device", ""), "threads": timing.get("threads")},
        "samples": row.n_samples,
        "images": row.n_images,
        "impossible": impossible(row),
        "missing": {n: [f"{what}: {reason}" for reason, what in m.items()] for n, m in row.missing.items()},
        "means": {
            n: [*(_number(means[column(n) + end]) for end in ("", "_lo", "_hi")), int(means[column(n) + "_n"])]
            for n in metrics
        },
        "ranks": dict(ranks),
        "truth": {n: _estimate(e, n) for n, e in truth.estimates.items() if not np.isnan(e.value)},
        "holds": holds,
    }


def _estimate(e: Any, name: str) -> dict[str, Any]:
    found = {f: _number(getattr(e, f)) for f in ("value", "lo", "hi", "right")}
    return {**found, "ruled_out": ruled_out(e, statistics.facts(name))}


def _values(entry: Entry, names: Sequence[str], number_of: Mapping[ImageKey, int]) -> dict[str, list[float | None]]:
    """Figures by image, in the order of all images; None where there is none."""
    found = {}
    for name in names:
        facts = metric_facts(name)
        if facts.domain == "timing" or name not in entry.row.values:
            continue
        values: list[float | None] = [None] * len(number_of)
        for image, value in _by_image(entry, name).items():
            values[number_of[image]] = _number(value * facts.factor)
        found[name] = values
    return found


def _by_image(entry: Entry, name: str) -> dict[ImageKey, float]:
    values = entry.row.values[name]
    return {entry.images[i]: float(v) for i, v in zip(values.index.tolist(), values.tolist(), strict=True)}


def _differences(entries: Sequence[Entry], names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Paired differences of every two rows of one scale: of one run, or of the same method in two runs."""
    for (i, a), (j, b) in combinations(enumerate(entries), 2):
        if a.row.cell.key.scale != b.row.cell.key.scale:
            continue
        if a.run != b.run and a.row.cell.key != b.row.cell.key:
            continue
        found = {}
        for name in names:
            facts = metric_facts(name)
            if facts.domain == "timing" or not all(name in e.row.values for e in (a, b)):
                continue
            estimate, count = paired_difference(*_aligned(a, b, name))
            numbers = (estimate.mean, estimate.lo, estimate.hi)
            found[name] = [*(_number(v * facts.factor) for v in numbers), count]
        yield {"a": i, "b": j, "metrics": found}


def _aligned(a: Entry, b: Entry, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Values of the images that both have, in one order."""
    of_a, of_b = (_by_image(e, name) for e in (a, b))
    shared = [key for key in of_a if key in of_b]
    return np.array([of_a[k] for k in shared]), np.array([of_b[k] for k in shared])


def _curves(row: Row) -> dict[str, Any]:
    """Calibration of a row: TARP, ranks and coverage; empty for a deterministic method or without statistics."""
    found: dict[str, Any] = {}
    if conditions_of(row.cell).deterministic:
        return found
    if (values := _figures(row, "tarp_error")) is not None:
        table = rank_table(values)
        curve = rank_curves(table[:, 0], table.shape[1]).mean(0)
        found["tarp"] = [[0, 0], *_points(np.arange(1, len(curve) + 1) / (len(curve) + 1), curve), [1, 1]]
    if (values := _figures(row, "rank_error")) is not None:
        table = rank_table(values)
        members = table.shape[1]
        share = np.bincount(table[:, 0].ravel(), minlength=members) / table[:, 0].size * members
        found["ranks"] = [_number(s) for s in share]
    if (values := _figures(row, "coverage50")) is not None:
        mean = values.mean(0)
        found["coverage"] = _points(LEVELS, np.array([covered(mean, level) for level in LEVELS]))
    return found


def _figures(row: Row, name: str) -> np.ndarray | None:
    values = figures_of(row.cell, name)
    values = None if values is None else values[~np.isnan(values).any(1)]
    return values if values is not None and len(values) else None


def _points(x: np.ndarray, y: np.ndarray) -> list[list[float | None]]:
    return [[_number(a), _number(b)] for a, b in zip(x, y, strict=True)]

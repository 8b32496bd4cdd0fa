"""``python -m bench tune``: run a grid of one method's settings on validation images, show it, name the best.

What decides is one metric (its mean over images, in its better direction) or one statistic: the nearest to its right
value, or the smallest where it is a score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tabulate import tabulate

from bench.config import RunConfig, TuneConfig
from bench.data import SplitError, make_dataset
from bench.errors import BenchError, near_matches
from bench.files import write_atomic
from bench.load import make_method
from bench.metrics import better_at, column, metric_facts, metrics, resolve_metrics, right_residual
from bench.metrics.statistic import Estimate, StatisticFacts, statistics
from bench.report.figures import plain_text, save
from bench.report.stats import told_apart
from bench.report.tables import UNDEFINED, Row, column_head, directions, interval_text, read_rows, summarise
from bench.report.truth import conditions_of, figures_of, images_with, scores_of, text_of
from bench.run.runner import run

BEST = "**"
EQUAL = "~"


@dataclass(frozen=True)
class Point:
    """One combination of the grid at one scale (and temperature).

    Attributes:
        row: of the run.
        settings: what was chosen, as it is written on the command line without the method's name.
        value, lo, hi: of what decides, with its 95% interval.
        loss: what is least at the best; NaN where the value is not defined.
        text: value and interval, for reading.

    """

    row: Row
    settings: dict[str, object]
    value: float
    lo: float
    hi: float
    loss: float
    text: str


def tune(config: TuneConfig) -> tuple[str, bool]:
    """Run what is missing of a grid; write ``tune.csv``, ``tune.md``, ``tune.png`` and ``tune.pdf`` into its directory.

    Returns:
        the table with the best settings below it, and whether everything succeeded.

    Raises:
        BenchError: no such metric or statistic, a dataset without validation images, or as a run.

    """
    try:
        make_dataset(config.run.dataset)
    except SplitError as error:
        raise BenchError(
            f"{config.run.dataset['name']} has no validation images, and settings are not chosen on others: use "
            "dataset=synthfaces, or dataset=folder with images of your own."
        ) from error
    for m in config.run.methods:  # with the names of the command line, not of the grid's rows
        make_method(replace(m, label=config.method))
    measured = with_metric(config.run, config.metric)
    name = measured.metrics[-1] if config.metric not in statistics.names() else config.metric
    directory, complete = run(measured)
    rows = [row for row in read_rows(directory)[0] if row.cell.key.label in config.grid]
    points = [point(row, dict(config.grid[row.cell.key.label]), name) for row in rows]
    if not points and directory.failures:
        raise BenchError(f"Nothing could be measured: {directory.failures[0]['reason']}")
    if not any(np.isfinite(p.loss) for p in points):
        raise BenchError(f"{name} is not defined for any combination: choose another metric=NAME, or more images or n.")
    scales = {s: [p for p in points if p.row.cell.key.scale == s] for s in measured.scales}
    names = [n for n in directory.config["metrics"] if n != name]
    frame = pd.concat([frame_of(group, name) for group in scales.values()], ignore_index=True)
    write_atomic(directory.path / "tune.csv", frame.to_csv(index=False))
    tables = "\n\n".join(table(group, name, names, "pipe") for group in scales.values())
    below = "\n\n".join(sentences(config, measured, group, name) for group in scales.values() if group)
    write_atomic(directory.path / "tune.md", f"{tables}\n\n{below}\n")
    save(plot(list(scales.values()), name), directory.path / "tune")
    shown = "\n\n".join(table(group, name, names, "simple") for group in scales.values())
    return f"{shown}\n\n{below}", complete


def with_metric(run: RunConfig, name: str) -> RunConfig:
    """The run with what decides as its last metric, or with statistics; nothing else is timed."""
    if name in statistics.names():
        needed = [*run.metrics, *statistics.facts(name).metrics]
        return run.model_copy(update={"metrics": tuple(dict.fromkeys(needed)), "statistics": True})
    if "perceptual" not in name and not name.startswith("pyiqa:") and name not in metrics.names():
        known = [*metrics.names(), *statistics.names()]
        raise BenchError(f"There is no metric or statistic '{name}'.{near_matches(name, known)}")
    kept = (m for m in resolve_metrics(run.metrics, run.perceptual)[0])
    name = resolve_metrics([name], run.perceptual)[0][0]
    if metric_facts(name).better == "neither":
        raise BenchError(
            f"{name} can be too large and too small, so that none is the best: choose another metric=NAME, as its "
            "ratio to what is right (docs/truth.md)."
        )
    if better_at(name, run.sigma) == "neither":
        raise BenchError(
            f"With noise (sigma {run.sigma:g}) more {name} than {right_residual(run.sigma):.2f} dB is fitted to the "
            "noise: choose metric=lr_residual, which takes the nearest to that."
        )
    return run.model_copy(update={"metrics": (*(m for m in kept if m != name), name), "statistics": False})


def point(row: Row, settings: dict[str, object], name: str) -> Point:
    """Estimate what decides for a row."""
    if row.cell.key.tau is not None:
        settings = {**settings, "tau": row.cell.key.tau}
    if name in statistics.names():
        facts: StatisticFacts = statistics.facts(name)
        figures = figures_of(row.cell, name)
        if figures is None:
            return Point(row, settings, np.nan, np.nan, np.nan, np.nan, UNDEFINED)
        e = statistics.get(name)().estimate(figures, conditions_of(row.cell))
        return Point(row, settings, e.value, e.lo, e.hi, loss_of(e, facts), text_of(e, facts))
    frame, key = summarise([row], [name]), column(name)
    value, lo, hi = (float(frame[k].iloc[0]) for k in (key, f"{key}_lo", f"{key}_hi"))
    loss = -value if metric_facts(name).better == "higher" else value
    return Point(row, settings, value, lo, hi, loss, interval_text(frame, 0, name))


def loss_of(e: Estimate, facts: StatisticFacts) -> float:
    """How far a statistic is from the right value; a score itself."""
    off = e.value - e.right
    if facts.bound:
        off = max(off, 0.0)  # below the right value, as a c2st of 0.4, is chance
    return e.value if facts.score else abs(off)


def best_of(points: Sequence[Point], name: str) -> Point:
    """The one of least loss, among those with the most images: without the hard ones a mean says nothing."""
    return min(points, key=lambda p: (np.isnan(p.loss), -len(images_of(p.row, name)), p.loss))


def images_of(row: Row, name: str) -> frozenset[int]:
    """The images by which a row is judged."""
    if name in statistics.names():
        return images_with(row.cell, name)
    if metric_facts(name).domain == "timing":
        return frozenset(row.mse.index)
    return frozenset(row.values[name].dropna().index)


def _every(points: Sequence[Point], name: str) -> frozenset[int]:
    """The images that any point has."""
    return frozenset().union(*(images_of(p.row, name) for p in points))


def indistinct(a: Point, b: Point, name: str) -> bool:
    """Whether the images do not tell two points of the same ones apart (`told_apart`).

    Only of means over images: of metrics but times, and of scores (`scores_of`); False for any other statistic.
    """
    if images_of(a.row, name) != images_of(b.row, name):
        return False
    if name in statistics.names():
        one, other = (scores_of(p.row.cell, name) for p in (a, b))
    elif metric_facts(name).domain == "timing":
        return False
    else:
        one, other = a.row.values[name], b.row.values[name]
    if one is None or other is None:
        return False
    x, y = one.align(other, join="inner")
    return int((x - y).notna().sum()) > 1 and not told_apart(x.to_numpy(dtype=float), y.to_numpy(dtype=float))


def frame_of(points: Sequence[Point], name: str) -> pd.DataFrame:
    """One row per point: scale, settings, what decides with its interval, and whether it is the best."""
    best = best_of(points, name) if points else None
    records = [
        {"scale": p.row.cell.key.scale, **p.settings, name: p.value, f"{name}_lo": p.lo, f"{name}_hi": p.hi}
        | {"n_images": p.row.n_images, "best": p is best}
        for p in points
    ]
    return pd.DataFrame(records)


def head(name: str) -> str:
    """Name of what decides, with its direction."""
    if name not in statistics.names():
        return column_head(name)
    facts: StatisticFacts = statistics.facts(name)
    return facts.label + (f" ({facts.unit})" if facts.unit else "")


def table(points: Sequence[Point], name: str, others: Sequence[str], style: str) -> str:
    """All points of a scale with what decides and the other metrics (`style` is tabulate's)."""
    if not points:
        return ""
    best, every = best_of(points, name), len(_every(points, name))
    others = [n for n in others if metric_facts(n).domain != "timing"]
    frame = summarise([p.row for p in points], list(others))
    better = directions([p.row for p in points], others)
    heads = ["scale", *points[0].settings, head(name), "", *(column_head(n, better) for n in others)]
    lines = []
    for i, p in enumerate(points):
        mark = BEST if p is best else EQUAL if indistinct(p, best, name) else ""
        had = len(images_of(p.row, name))
        text = p.text if had in (0, every) else f"{p.text} (of {had} of {every} images)"
        figures = [interval_text(frame, i, n) for n in others]
        lines.append([f"x{p.row.cell.key.scale}", *map(str, p.settings.values()), text, mark, *figures])
    return tabulate(lines, headers=heads, tablefmt=style, disable_numparse=True)


def sentences(config: TuneConfig, measured: RunConfig, points: Sequence[Point], name: str) -> str:
    """The best of a scale as settings, and on what it was chosen."""
    best = best_of(points, name)
    judged, every = images_of(best.row, name), len(_every(points, name))
    fewer = sum(images_of(p.row, name) != judged for p in points)
    equal = sum(p is not best and indistinct(p, best, name) for p in points)
    words = [f"{k}={v}" if k == "tau" else f"methods.{config.method}.{k}={v}" for k, v in best.settings.items()]
    sigma = f", sigma {measured.sigma:g}" if measured.sigma else ""
    chosen = (
        f"{BEST}: best of {len(points) - fewer} by {name} on {len(judged)} validation images of "
        f"{measured.dataset['name']}, x{best.row.cell.key.scale}{sigma}, {best.row.n_samples} samples each."
    )
    if fewer:
        chosen += f" {fewer} others have no value on some of these images, or are of others, and are out of the choice."
    if len(judged) < every:
        chosen += f" No setting has a value on all {every} images: see failures.jsonl."
    if equal:
        chosen += f" {EQUAL}: {equal} others that these images do not tell from it."
    return f"{chosen}\n\n    {' '.join(words)}"


def plot(groups: Sequence[Sequence[Point]], name: str) -> Figure:
    """What decides against the setting with most values, a line per combination of the others, a plot per scale."""
    groups = [g for g in groups if g]
    figure = Figure(figsize=(4.6 * len(groups), 3.6), layout="constrained")
    for axes, group in zip(figure.subplots(1, len(groups), squeeze=False)[0], groups, strict=True):
        _plot(axes, group, name)
    return figure


def _plot(axes: Axes, points: Sequence[Point], name: str) -> None:
    values = {key: list(dict.fromkeys(p.settings[key] for p in points)) for key in points[0].settings}
    along = max(values, key=lambda key: len(values[key]))
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values[along])
    best = best_of(points, name)
    lines: dict[str, list[Point]] = {}
    for p in points:
        label = ", ".join(f"{k}={v}" for k, v in p.settings.items() if k != along)
        lines.setdefault(label, []).append(p)
    for label, line in lines.items():
        x = [float(str(p.settings[along])) if numbers else values[along].index(p.settings[along]) for p in line]
        y = np.array([p.value for p in line])
        errors = np.nan_to_num(np.abs([[p.value - p.lo for p in line], [p.hi - p.value for p in line]]))
        axes.errorbar(x, y, yerr=errors, marker="o", markersize=4, elinewidth=0.6, label=plain_text(label))
        axes.plot([a for a, p in zip(x, line, strict=True) if p is best], [p.value for p in line if p is best], "k*")
    if not numbers:
        axes.set_xticks(range(len(values[along])), [str(v) for v in values[along]])
    axes.set_xlabel(plain_text(along))
    axes.set_ylabel(head(name))
    axes.set_title(f"x{points[0].row.cell.key.scale}", fontsize="medium")
    if len(lines) > 1:
        axes.legend(fontsize="x-small")

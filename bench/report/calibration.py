"""Figures of calibration: TARP curves, rank histograms, coverage against level."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.files import write_atomic
from bench.metrics.truth import covered, rank_curves, rank_table
from bench.report.figures import COLOURS, plain_text, save
from bench.report.truth import TruthRow, figures_of
from bench.run.store import RunDir

LEVELS = np.linspace(0, 1, 51)


def write_calibration(run: RunDir, rows: Sequence[TruthRow]) -> list[Path]:
    """Write ``figures/tarp_xS``, ``ranks_xS`` and ``coverage_xS`` of methods that are not deterministic.

    TARP's curves are in ``figures/tarp_xS.csv``, too: method, level and share, a line for each point.
    """
    written = []
    drawn = (("tarp", "tarp_error", tarp), ("ranks", "rank_error", histograms), ("coverage", "coverage50", coverages))
    for scale in sorted({r.row.cell.key.scale for r in rows}):
        for name, statistic, draw in drawn:
            found = _labelled([r for r in rows if r.row.cell.key.scale == scale], statistic)
            if found:
                written += save(draw(found), run.path / "figures" / f"{name}_x{scale}")
            if found and name == "tarp":
                points = [(label, *point) for label, f in found.items() for point in zip(*tarp_curve(f), strict=True)]
                table = pd.DataFrame(points, columns=["method", "level", "share"])
                written.append(run.path / "figures" / f"{name}_x{scale}.csv")
                write_atomic(written[-1], table.to_csv(index=False))
    return written


def _labelled(rows: Sequence[TruthRow], statistic: str) -> dict[str, np.ndarray]:
    """Titles to figures [N, K] without undefined ones."""
    found = {}
    for r in rows:
        values = figures_of(r.row.cell, statistic)
        values = None if values is None else values[~np.isnan(values).any(1)]
        if values is not None and len(values):
            tau = r.row.cell.key.tau
            found[plain_text(r.row.title) + ("" if tau is None else f" τ={tau:g}")] = values
    return found


def tarp(values: dict[str, np.ndarray]) -> Figure:
    """Coverage of balls around reference points against their level, the mean over reference points."""
    return _curves(values, tarp_curve, "level", "share of images covered (TARP)")


def tarp_curve(figures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Levels, and the share of images that they cover, of figures [N, K]."""
    table = rank_table(figures)
    found = rank_curves(table[:, 0], table.shape[1]).mean(0)
    return np.linspace(0, 1, len(found) + 2), np.concatenate([[0], found, [1]])


def coverages(values: dict[str, np.ndarray]) -> Figure:
    """Share of intensities within central intervals against their level."""

    def curve(figures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean = figures.mean(0)
        return LEVELS, np.array([covered(mean, level) for level in LEVELS])

    return _curves(values, curve, "level of the interval", "share of intensities covered")


def _curves(
    values: dict[str, np.ndarray], curve: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], x: str, y: str
) -> Figure:
    figure = Figure(figsize=(4.2, 4.2 + 0.18 * (len(values) + 1) / 2), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, linestyle="--", label="right")
    for i, (label, figures) in enumerate(values.items()):
        style = "-" if i < len(COLOURS) // 2 else "-."
        axes.plot(*curve(figures), label=label, linewidth=1.4, color=COLOURS[i % len(COLOURS)], linestyle=style)
    axes.set_aspect("equal")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return figure


def histograms(values: dict[str, np.ndarray]) -> Figure:
    """Ranks of the truth among the samples along directions that the operator does not see, a panel per method."""
    columns = min(4, len(values))
    lines = -(-len(values) // columns)
    figure = Figure(figsize=(0.4 + 2.3 * columns, 0.4 + 1.9 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False, sharey=True)
    for axes in grid.flat[len(values) :]:
        axes.set_axis_off()
    for axes, (label, figures) in zip(grid.flat, values.items(), strict=False):
        _histogram(axes, figures, label)
    grid[0, 0].set_ylabel("share over uniform")
    return figure


def _histogram(axes: Axes, figures: np.ndarray, label: str) -> None:
    table = rank_table(figures)
    members = table.shape[1]
    share = np.bincount(table[:, 0].ravel(), minlength=members) / table[:, 0].size * members
    axes.bar(np.arange(members), share, width=0.9, color="tab:blue")
    axes.axhline(1, color="0.3", linewidth=1, linestyle="--")
    axes.set_title(label, fontsize=9)
    axes.set_xlabel("rank of the truth", fontsize=8)
    axes.tick_params(labelsize=7)

"""Plots of a run's rows: what quality costs in consistency, diversity and time, and how images differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.metrics import column, metric_facts
from bench.report.figures import drop_others, plain_text, save
from bench.report.tables import Row, column_head, directions, read_rows, summarise
from bench.run.store import RunDir

MARKERS = "osD^vPX*<>hp"


def write_plots(run: RunDir) -> list[Path]:
    """Write ``figures/pareto_xS`` and ``figures/distributions_xS`` for each scale; return the files."""
    rows, names = read_rows(run)
    written = []
    for scale in sorted({row.cell.key.scale for row in rows}):
        of_scale = [row for row in rows if row.cell.key.scale == scale]
        frame = summarise(of_scale, names)
        for name, figure in (
            ("pareto", pareto(of_scale, names, frame)),
            ("distributions", distributions(of_scale, names)),
        ):
            if figure is not None:
                written += save(figure, run.path / "figures" / f"{name}_x{scale}")
    for name in ("pareto", "distributions"):
        drop_others(run.path / "figures", f"{name}_x*", written)
    return written


def _label(row: Row) -> str:
    return plain_text(row.title) + ("" if row.cell.key.tau is None else f" τ={row.cell.key.tau:g}")


def on_front(points: np.ndarray) -> np.ndarray:
    """Find the Pareto front of points.

    Args:
        points: [N, 2], better where larger.

    Returns:
        bool [N], false for points that another equals in one axis at least and surpasses in the other, and for NaN.

    """
    front = np.zeros(len(points), dtype=bool)
    for i, p in enumerate(points):
        beaten = (points >= p).all(1) & (points > p).any(1)
        front[i] = not np.isnan(p).any() and not beaten.any()
    return front


def pareto(rows: Sequence[Row], names: Sequence[str], frame: pd.DataFrame) -> Figure | None:
    """Perceptual quality against distortion, consistency, diversity and time; None with fewer than two rows.

    A line joins the methods that no other beats in both, where both have a better direction.
    """
    quality = next((n for n in names if metric_facts(n).group == "Distortion" and "lpips" in n), None)
    spread = next((n for n in names if n.startswith("apd_") and "lpips" in n), None)
    others = [n for n in ("psnr", "lr_psnr", spread, "seconds") if n in names]
    if quality is None or not others or len(rows) < 2:
        return None
    figure = Figure(figsize=(3.2 * len(others), 3.6), layout="constrained")
    grid = figure.subplots(1, len(others), squeeze=False)[0]
    y = frame[column(quality)].to_numpy(float)
    shown = directions(rows, names)
    for axes, name in zip(grid, others, strict=True):
        assert name is not None
        x = frame[column(name)].to_numpy(float)
        for i, row in enumerate(rows):
            axes.errorbar(
                x[i], y[i], xerr=_errors(frame, name, i), yerr=_errors(frame, quality, i), label=_label(row),
                fmt=MARKERS[i % len(MARKERS)], markersize=6, elinewidth=0.8,
            )  # fmt: skip
        better = [shown.get(n, metric_facts(n).better) for n in (name, quality)]
        if "neither" not in better:
            signs = [1 if b == "higher" else -1 for b in better]
            front = on_front(np.stack([signs[0] * x, signs[1] * y], 1))
            order = np.argsort(x[front])
            axes.plot(x[front][order], y[front][order], color="0.7", linewidth=1, zorder=0)
        if name == "seconds":
            axes.set_xscale("log")
        axes.set_xlabel(column_head(name, shown))
    grid[0].set_ylabel(column_head(quality))
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(rows), 5), frameon=False, fontsize=8)
    return figure


def _errors(frame: pd.DataFrame, name: str, i: int) -> np.ndarray | None:
    value, lo, hi = (float(frame[column(name) + s].iloc[i]) for s in ("", "_lo", "_hi"))
    return None if np.isnan([value, lo, hi]).any() else np.array([[max(value - lo, 0)], [max(hi - value, 0)]])


def distributions(rows: Sequence[Row], names: Sequence[str]) -> Figure | None:
    """Box plots over images, one panel per metric; None where there is nothing but times."""
    shown = [n for n in names if metric_facts(n).domain != "timing" and any(r.values[n].notna().any() for r in rows)]
    if not shown:
        return None
    columns = min(4, len(shown))
    lines = -(-len(shown) // columns)
    height = 0.6 + 0.26 * len(rows)
    figure = Figure(figsize=(1.6 + 2.6 * columns, lines * height), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False)
    for place, axes in enumerate(grid.flat):
        if place >= len(shown):
            axes.set_axis_off()
            continue
        _boxes(axes, rows, shown[place])
        if place % columns:
            axes.set_yticklabels([])
    return figure


def _boxes(axes: Axes, rows: Sequence[Row], name: str) -> None:
    values = [row.values[name].dropna().to_numpy(float) * metric_facts(name).factor for row in rows]
    axes.boxplot(values, orientation="horizontal", widths=0.6, flierprops={"markersize": 2})
    axes.set_yticks(range(1, len(rows) + 1), [_label(row) for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(column_head(name, directions(rows, [name])), fontsize=8)
    axes.tick_params(axis="x", labelsize=7)

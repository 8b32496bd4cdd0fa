"""Figures of the energy score: against seconds, and how much of it is the sampler's error and how much the network's.

Where the posterior is known, a sampler with the exact denoiser has no network's error: what its score has above the
oracle's is its own, and what the same sampler with a trained denoiser has above that is the network's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bench.files import write_atomic
from bench.metrics.statistic import statistics
from bench.report.figures import COLOURS, drop_others, plain_text, save
from bench.report.stats import Estimate, median_range, paired_difference
from bench.report.tables import Row
from bench.report.truth import TruthRow, figures_by_image
from bench.run.store import RunDir

SCORE = "energy"
FARTHEST = 2.5
MARKERS = "osDvPX*<>hp"
EXACT = "exact"
"""`weights` of a sampler without a network (docs/samplers.md)."""
NOT_COMPARED = ("weights", "unet", "compute")
"""Settings that may differ between a sampler with the exact denoiser and with a trained one."""


@dataclass(frozen=True)
class Split:
    """The energy score of one sampler with two denoisers, above the oracle's, in 8-bit levels.

    Attributes:
        exact, trained: the rows with the exact and with a trained denoiser.
        sampler: score with the exact denoiser minus the oracle's, on the same images.
        network: score with the trained denoiser minus that with the exact one, image by image.
        n_images: images that all have.

    """

    exact: TruthRow
    trained: TruthRow
    sampler: Estimate
    network: Estimate
    n_images: int


def write_scores(run: RunDir, rows: Sequence[TruthRow]) -> list[Path]:
    """Write ``figures/score_time_xS``, and where a sampler has both denoisers ``error_split_xS`` and a CSV of it."""
    written, records = [], []
    for scale in sorted({r.row.cell.key.scale for r in rows}):
        group = [r for r in rows if r.row.cell.key.scale == scale]
        parts = splits(group)
        records += [_record(s) for s in parts]
        for name, figure in (("score_time", against_seconds(group)), ("error_split", split_figure(parts))):
            if figure is not None:
                written += save(figure, run.path / "figures" / f"{name}_x{scale}")
    for name in ("score_time", "error_split"):
        drop_others(run.path / "figures", f"{name}_x*", written)
    if records:
        write_atomic(run.path / "error_split.csv", pd.DataFrame(records).to_csv(index=False))
    return written


def splits(rows: Sequence[TruthRow]) -> list[Split]:
    """Pairs of rows of one scale that differ in the denoiser alone."""
    found = []
    for exact in rows:
        if _settings(exact.row).get("weights") != EXACT:
            continue
        for trained in rows:
            if _settings(trained.row).get("weights") != EXACT and _compared(trained.row) == _compared(exact.row):
                found += _split(exact, trained)
    return found


def _settings(row: Row) -> dict[str, Any]:
    return dict((row.cell.identity or {}).get("settings") or {})


def _compared(row: Row) -> tuple[Any, ...]:
    settings = {k: v for k, v in _settings(row).items() if k not in NOT_COMPARED}
    return row.cell.facts["method"], row.cell.key.tau, settings


def _split(exact: TruthRow, trained: TruthRow) -> list[Split]:
    ours, theirs = (_scores(r) for r in (exact, trained))
    both = pd.concat([ours, theirs["own"].rename("trained")], axis=1, join="inner").dropna()
    if not len(both):
        return []
    own, oracle, network = (both[c].to_numpy(float) for c in ("own", "oracle", "trained"))
    return [Split(exact, trained, paired_difference(own, oracle)[0], paired_difference(network, own)[0], len(both))]


def _scores(row: TruthRow) -> pd.DataFrame:
    """Energy scores by image, and the oracle's on the same image."""
    found = figures_by_image(row.row.cell, SCORE)
    if found is None or found.shape[1] < 2:  # none at all, or failed for every image
        return pd.DataFrame(columns=["own", "oracle"], dtype=float)
    return pd.DataFrame(found.to_numpy(float)[:, :2], columns=["own", "oracle"], index=found.index)


def _record(s: Split) -> dict[str, Any]:
    key = s.exact.row.cell.key
    record: dict[str, Any] = {"scale": key.scale, "method": key.label, "trained": s.trained.row.cell.key.label}
    record |= {"operator": s.exact.row.operator, "sigma": s.exact.row.sigma, "n_images": s.n_images}
    for name, e in (("sampler", s.sampler), ("network", s.network)):
        record |= {name: e.mean, f"{name}_lo": e.lo, f"{name}_hi": e.hi}
    return record


def _label(row: Row) -> str:
    return plain_text(row.title) + ("" if row.cell.key.tau is None else f" τ={row.cell.key.tau:g}")


def split_figure(parts: Sequence[Split]) -> Figure | None:
    """From the oracle's score by the sampler's error to the network's, a line per sampler; None without any."""
    if not parts:
        return None
    figure = Figure(figsize=(6.4, 0.9 + 0.34 * len(parts)), layout="constrained")
    axes = figure.subplots()
    colours = {"sampler": "tab:blue", "network": "tab:orange"}
    for y, s in enumerate(parts):
        begin = 0.0
        for name, e in (("sampler", s.sampler), ("network", s.network)):
            axes.barh(y, e.mean, left=begin, height=0.55, color=colours[name], label=name if y == 0 else None)
            if not np.isnan(e.lo):
                axes.plot([begin + e.lo, begin + e.hi], [y, y], color="0.2", linewidth=1)
            begin += e.mean
        axes.plot(begin, y, marker="D", color="0.1", markersize=4, label="with the network" if y == 0 else None)
    axes.axvline(0, color="0.3", linewidth=1, linestyle="--")
    ends = [s.sampler.mean + s.network.mean for s in parts]
    if min(ends) > 0:  # some diverge, and their intervals would be all that is seen
        right = min(max(ends) * 1.15, 4 * float(np.median(ends)))
        axes.set_xlim(max(axes.get_xlim()[0], -0.2 * right), right)
    axes.set_yticks(range(len(parts)), [_label(s.exact.row) for s in parts], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("energy score above the oracle's (8-bit levels)")
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


def against_seconds(rows: Sequence[TruthRow]) -> Figure | None:
    """Energy score of each method against the seconds of a sample; a line at the oracle's where it is known.

    Scores of more than `FARTHEST` times the least are at the upper edge, with their value in the legend.
    """
    facts = statistics.facts(SCORE)
    points = []
    for r in rows:
        time, e = r.row.values.get("seconds"), r.estimates.get(SCORE)
        seconds = median_range(time.to_numpy(float)).mean if time is not None else np.nan
        if e is not None and not np.isnan([seconds, e.value]).any():
            points.append((seconds, e, r))
    if len(points) < 2:
        return None
    right = [e.right for _, e, _ in points if not np.isnan(e.right)]
    top = FARTHEST * min([e.value for _, e, _ in points] + right)
    figure = Figure(figsize=(5.6, 4.2 + 0.18 * -(-len(points) // 3)), layout="constrained")
    axes = figure.subplots()
    for i, (seconds, e, r) in enumerate(points):
        beyond = e.value > top
        bounds = None if beyond or np.isnan(e.lo) else [[max(e.value - e.lo, 0)], [max(e.hi - e.value, 0)]]
        axes.errorbar(
            seconds, min(e.value, top), yerr=bounds, fmt="^" if beyond else MARKERS[i % len(MARKERS)], markersize=5,
            color=COLOURS[i % len(COLOURS)], elinewidth=0.8,
            label=_label(r.row) + (f": {e.value:.3g}" if beyond else ""),
        )  # fmt: skip
    if right:
        axes.axhline(float(np.mean(right)), color="0.3", linewidth=1, linestyle="--", label="the oracle's")
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=7)
    axes.set_xscale("log")
    axes.set_ylim(top=1.03 * top if any(e.value > top for _, e, _ in points) else None)
    axes.set_xlabel("seconds a sample")
    axes.set_ylabel(f"{facts.label} ({facts.unit}), smaller is better")
    return figure

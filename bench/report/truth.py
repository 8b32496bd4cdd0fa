"""truth.csv, truth.md and truth.tex: statistics beside the values of a perfect sampler (docs/truth.md)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
from tabulate import tabulate

from bench.data import datasets
from bench.errors import BenchError
from bench.files import write_atomic
from bench.metrics.statistic import FEW, LEVEL, Conditions, Estimate, MeanStatistic, StatisticFacts, statistics
from bench.metrics.truth import has_sklearn
from bench.report.notes import left_out
from bench.report.stats import holm
from bench.report.tables import UNDEFINED, Row, escape, escape_markdown, observed_by, paired_frame, read_rows
from bench.run.cell import Cell
from bench.run.store import RunDir

ORDER = (
    "energy", "crps", "apd_ratio_mse", "apd_ratio_lpips_alex", "apd_ratio_lpips_vgg", "apd_ratio_stlpips_alex",
    "sample_mean_gain", "lr_residual", "coverage50", "coverage90", "rank_error", "tarp_error", "mmse_gap",
    "posterior_std_ratio", "sliced_wasserstein", "c2st",
)  # fmt: skip
"""Of columns; others follow."""
FIELDS = {"value": "", "lo": "_lo", "hi": "_hi", "right": "_right", "distance": "_distance", "p": "_p",
          "p_joint": "_p_joint", "n_images": "_n"}  # fmt: skip
"""Of an `Estimate`, and how its columns in truth.csv end."""
FEW_NOTE = f"Intervals of fewer than {FEW} images are Student's, with the bootstrap's standard error."
NOTES = (
    "Means and ratios over images ± half the width of their 95% bootstrap intervals; `≤` the bound that a perfect "
    "sampler keeps in 95% of cases. `✗`: the right value is ruled out at that level, by all statistics of the line "
    "together (Holm's correction); `(✗)`: by this one alone, which is to be expected in one of twenty.",
    "Right values hold for samples of the posterior (temperature 1) that are neither rounded, clipped nor projected.",
)
MOVED = {
    "apd_ratio_mse": (-0.0001, 0.0013, -0.5683),
    "sample_mean_gain": (-0.0002, 0.0037, -1.4039),
    "lr_residual": (-0.0001, -0.2698, 73.9739),
    "coverage50": (-0.0156, 0.0341, -18.2686),
    "coverage90": (0.0056, 0.0123, -6.8892),
    "rank_error": (-0.0013, 0.0031, 0.0),
    "tarp_error": (0.0008, 0.0051, 0.4653),
    "energy": (0.0040, -0.1381, 6.0032),
    "crps": (0.0003, -0.1638, 4.7455),
    "mmse_gap": (0.000, 0.226, 1.588),
    "posterior_std_ratio": (-0.001, -0.014, 0.0),
    "sliced_wasserstein": (-0.001, 0.022, 0.0),
}
"""By how much rounding to 8 bits, clipping to [0, 1] and projecting on a noisy y move the value of exact samples.

Of `python -m scripts.truth_power --images 100 --n 5 --moved`, with sigma 0.05 and 0 the larger; the truth is rounded or
clipped too, as a photograph is. Projecting has sigma 0.05: without noise it moves nothing. The last three compare
samples with the posterior, so that no truth is there to be rounded.
"""
MOVED_SIGMA, MOVED_SCALE = 0.05, 4
"""The noise and the scale of `MOVED`. What rounding adds to a residual in dB is more where the noise is less, and what
projecting moves is of the noise: +0.26 levels of the energy score at sigma 0.01, +17 at 0.1, +3 at 0.05 and x8."""
NOT_MEASURED = "not measured"
"""How far a statistic moves that `MOVED` does not have, as of a perceptual distance: gaussians are no photographs."""
NO_C2ST = "c2st is left out: scikit-learn is not installed (pip install 'diverse-sr-bench[truth]')."
MOVES = ("rounding", "clipping", "projecting")
MOVED_NOTE = (
    "Lines of rounding, clipping and projecting: by how much each moves the value of exact samples, measured on "
    "gaussians, where the posterior is known (100 images of 32 pixels, x4, n = 5; projecting with sigma "
    f"{MOVED_SIGMA:g}; docs/truth.md)."
)


@dataclass(frozen=True)
class TruthRow:
    """One line: a row of the run, what its right values depend on, why they do not hold exactly, and the estimates.

    Attributes:
        row: the cell with its title.
        conditions: of the right values.
        applies: "yes", or what the samples are: "rounded" or "clipped" (right values hold nearly), "tau 0.8" (they
            do not), with "projected" where the method makes its samples consistent with y.
        estimates: by statistic; only those that the cell has figures of.

    """

    row: Row
    conditions: Conditions
    applies: str
    estimates: dict[str, Estimate]


def figures_of(cell: Cell, name: str) -> np.ndarray | None:
    """Figures [N, K] of a statistic by image, None where the cell has none."""
    found = figures_by_image(cell, name)
    return None if found is None else found.to_numpy(float)


def images_with(cell: Cell, name: str) -> frozenset[int]:
    """The images that a statistic has figures of."""
    found = figures_by_image(cell, name)
    return frozenset() if found is None else frozenset(int(i) for i in found.index[found.notna().any(axis=1)])


def scores_of(cell: Cell, name: str) -> pd.Series | None:
    """Score of each image, where a statistic is a score that is their mean; else None."""
    facts: StatisticFacts = statistics.facts(name)
    figures = figures_by_image(cell, name) if facts.score else None
    statistic, conditions = statistics.get(name)(), conditions_of(cell)
    if figures is None or not isinstance(statistic, MeanStatistic):
        return None
    figures = figures[figures.notna().any(axis=1)]
    if figures.empty:
        return None
    values = pd.Series(statistic.aggregate(figures.to_numpy(float), conditions), figures.index, dtype=float)
    whole = float(statistic.aggregate(figures.to_numpy(float).mean(0), conditions))
    return values if np.isclose(values.mean(), whole, rtol=1e-9, atol=0) else None


def figures_by_image(cell: Cell, name: str) -> pd.DataFrame | None:
    """`figures_of` with the images' numbers as the index; images that were not computed are left out."""
    facts: StatisticFacts = statistics.facts(name)
    images = cell.read("images").set_index("index").sort_index()
    if facts.metrics:
        samples = cell.read("samples")
        of_sample, of_pair = facts.metrics
        if of_sample not in samples or of_pair not in images:
            return None
        error = samples.groupby("index")[of_sample].mean()
        both = pd.concat([error, images[of_pair]], axis=1).dropna()
        return both if len(both) else None
    if name not in images:
        return None
    rows = {i: np.asarray(v, float) for i, v in images[name].items() if np.ndim(v) == 1}
    width = max(map(len, rows.values()), default=0)
    rows = {i: r for i, r in rows.items() if len(r) == width}  # a failed one has a single NaN
    return pd.DataFrame(np.stack(list(rows.values())), index=list(rows)) if rows else None


def conditions_of(cell: Cell) -> Conditions:
    """What the right values of a cell depend on."""
    identity = cell.identity or {}
    sigma = float(identity["operator"]["sigma"])
    return Conditions(int(identity.get("n", 1)), sigma, bool(cell.facts.get("deterministic", False)))


def applies(cell: Cell) -> str:
    """Whether right values hold for a cell's samples; see `TruthRow`."""
    identity = cell.identity or {}
    projected = ", projected" if (identity.get("settings") or {}).get("project") else ""
    if cell.key.tau not in (None, 1.0):
        return f"tau {cell.key.tau:g}{projected}"
    try:
        unbounded = datasets.get(str(identity["dataset"]["name"])).range is None
    except (BenchError, KeyError):  # of a plugin that is not here
        unbounded = False
    if unbounded:
        return projected.removeprefix(", ") or "yes"
    return ("rounded" if identity.get("quantise", True) else "clipped") + projected


def read_truth(run: RunDir, only: Collection[str] | None = None) -> tuple[list[TruthRow], list[str]]:
    """Estimate the statistics of a run, all or some.

    Returns:
        rows in the order of the tables, and the names of the statistics that any of them has.

    """
    wanted = [n for n in statistics.names() if only is None or n in only]
    names = sorted(wanted, key=lambda n: (ORDER.index(n) if n in ORDER else len(ORDER), n))
    found = []
    for row in read_rows(run)[0]:
        conditions, holds = conditions_of(row.cell), applies(row.cell)
        estimates = {}
        for name in names:
            values = figures_of(row.cell, name)
            if values is None:
                continue
            estimate = statistics.get(name)().estimate(values, conditions)
            if holds.startswith("tau"):
                estimate = replace(estimate, right=np.nan, distance=np.nan, p=np.nan)
                if statistics.facts(name).bound:
                    estimate = replace(estimate, lo=np.nan, hi=np.nan)
            estimates[name] = replace(estimate, n_images=int((~np.isnan(values).all(1)).sum()))
        joint = holm(np.array([e.p for e in estimates.values()]))
        estimates = {n: replace(e, p_joint=float(p)) for (n, e), p in zip(estimates.items(), joint, strict=True)}
        found.append(TruthRow(row, conditions, holds, estimates))
    known = {n for row in found for n, e in row.estimates.items() if not np.isnan(e.value)}
    return found, [n for n in names if n in known]


def frame_of(rows: Sequence[TruthRow], names: Sequence[str]) -> pd.DataFrame:
    """One row per cell, and per statistic the fields of its `Estimate`."""
    records = []
    for r in rows:
        key = r.row.cell.key
        record: dict[str, Any] = {"scale": key.scale, "method": key.label, "tau": key.tau}
        record |= {"operator": r.row.operator, "sigma": r.row.sigma, "n": r.conditions.n}
        record |= {"n_images": r.row.n_images, "right_values": r.applies}
        for name in names:
            estimate = r.estimates.get(name, Estimate(np.nan))
            record |= {name + end: getattr(estimate, field) for field, end in FIELDS.items()}
        records.append(record)
    return pd.DataFrame(records)


def text_of(estimate: Estimate | None, facts: StatisticFacts) -> str:
    """A value with its interval or bound, and a mark where the right value is ruled out (`NOTES`)."""
    if estimate is None or np.isnan(estimate.value):
        return UNDEFINED
    text = format(estimate.value, facts.digits)
    if not np.isnan(estimate.hi):
        half = estimate.hi if facts.bound else (estimate.hi - estimate.lo) / 2
        text += f" ({'≤' if facts.bound else '±'} {format(half, facts.digits)})"
    return text + (" ✗" if ruled_out(estimate, facts) else " (✗)" if _ruled_out_alone(estimate, facts) else "")


def ruled_out(estimate: Estimate, facts: StatisticFacts) -> bool:
    """Whether a perfect sampler would hardly give this; NaN is not.

    By all statistics that it was looked at with (`Estimate.p_joint`), or by itself where there are no others.
    """
    if np.isnan(estimate.p_joint):
        return _ruled_out_alone(estimate, facts)
    return estimate.p_joint < 1 - LEVEL


def _ruled_out_alone(estimate: Estimate, facts: StatisticFacts) -> bool:
    return bool(estimate.distance > 1 or (not facts.bound and estimate.distance < -1))


def right_text(rows: Sequence[TruthRow], name: str) -> str:
    """The right value of a statistic, as the rows of a scale have it."""
    facts: StatisticFacts = statistics.facts(name)
    known = sorted(e.right for r in rows if (e := r.estimates.get(name)) is not None and not np.isnan(e.right))
    texts = list(dict.fromkeys(format(right, facts.digits) for right in known))
    return " to ".join(texts[:: max(1, len(texts) - 1)])  # of other images, as a score's, it is another


def _lines(rows: Sequence[TruthRow], names: Sequence[str]) -> list[tuple[int, list[list[str]]]]:
    """Per scale: the line of right values, then the methods; each tau, applies and the statistics."""
    found = []
    for scale, members in groupby(rows, key=lambda r: r.row.cell.key.scale):
        group = list(members)
        lines = [["right value", "", "", *(right_text(group, n) for n in names)]]
        lines += [[f"{move} adds", "", "", *(_moved_text(n, move, group) for n in names)] for move in moves_of(group)]
        for r in group:
            tau = "" if r.row.cell.key.tau is None else f"{r.row.cell.key.tau:g}"
            figures = [text_of(r.estimates.get(n), statistics.facts(n)) for n in names]
            lines.append([r.row.title, tau, r.applies, *figures])
        found.append((scale, lines))
    return found


def moves_of(rows: Sequence[TruthRow]) -> list[str]:
    """Those of `MOVES` that samples of some rows with right values went through."""
    held = [r for r in rows if not r.applies.startswith("tau")]
    through = (
        any("rounded" in r.applies for r in held),
        any("rounded" in r.applies or "clipped" in r.applies for r in held),
        any("projected" in r.applies and r.conditions.sigma for r in held),
    )
    return [move for move, there in zip(MOVES, through, strict=True) if there]


def _moved_text(name: str, move: str, rows: Sequence[TruthRow]) -> str:
    sigmas, scale = {r.conditions.sigma for r in rows}, rows[0].row.cell.key.scale
    if name == "lr_residual":
        there = sigmas == {MOVED_SIGMA}
    elif move == "projecting":  # by what the noise is and how many pixels y leaves open; without noise by nothing
        there = sigmas <= {0.0, MOVED_SIGMA} and scale == MOVED_SCALE
    else:
        there = True
    if name not in MOVED or not there:
        return NOT_MEASURED
    facts: StatisticFacts = statistics.facts(name)
    return format(MOVED[name][MOVES.index(move)], "+" + facts.digits)


def _head(facts: StatisticFacts) -> str:
    return facts.label + (f" ({facts.unit})" if facts.unit else "")


def markdown(rows: Sequence[TruthRow], names: Sequence[str], style: str = "pipe") -> str:
    """The table for reading (`style` is tabulate's), a line of right values above the methods of each scale."""
    heads = ["scale", "method", "tau", "right values hold", *(_head(statistics.facts(n)) for n in names)]
    text = escape_markdown if style == "pipe" else str
    lines = [[f"x{scale}", *map(text, line)] for scale, group in _lines(rows, names) for line in group]
    return tabulate(lines, headers=heads, tablefmt=style, disable_numparse=True)


def latex(rows: Sequence[TruthRow], names: Sequence[str]) -> str:
    r"""The same as a booktabs table."""
    marks = {"±": r"$\pm$", "≤": r"$\le$", "✗": r"$\times$"}

    def cell(text: str) -> str:
        text = escape(text)
        for mark, command in marks.items():
            text = text.replace(mark, command)
        return text

    heads = ["", "Method", r"$\tau$", "Right values hold", *(escape(_head(statistics.facts(n))) for n in names)]
    text = [r"% needs \usepackage{booktabs}", rf"\begin{{tabular}}{{llll{'c' * len(names)}}}", r"\toprule"]
    text.append(" & ".join(heads) + r" \\")
    for scale, group in _lines(rows, names):
        text.append(r"\midrule")
        for number, line in enumerate(group):
            first = rf"$\times {scale}$" if number == 0 else ""
            text.append(" & ".join([first, *map(cell, line)]) + r" \\")
    return "\n".join([*text, r"\bottomrule", r"\end{tabular}"]) + "\n"


def write_truth(run: RunDir) -> list[TruthRow]:
    """Write ``truth.csv``, ``truth.md`` and ``truth.tex`` where rows have statistics; return the rows.

    ``score_differences.csv`` has the paired differences of scores, as ``differences.csv`` those of metrics.
    """
    rows, names = read_truth(run)
    if not names:
        return []
    scores = {name: [scores_of(r.row.cell, name) for r in rows] for name in names if statistics.facts(name).score}
    write_atomic(run.path / "score_differences.csv", paired_frame([r.row for r in rows], scores).to_csv(index=False))
    write_atomic(run.path / "truth.csv", frame_of(rows, names).to_csv(index=False))
    write_atomic(run.path / "truth.tex", latex(rows, names))
    below = "".join(f"\n{text}\n" for text in notes_of(rows))
    write_atomic(run.path / "truth.md", f"{markdown(rows, names)}\n{below}")
    return rows


def notes_of(rows: Sequence[TruthRow]) -> list[str]:
    """Sentences below a table."""
    moved = MOVED_NOTE if any(moves_of([r]) for r in rows) else ""
    absent = NO_C2ST if not has_sklearn() and any("c2st" in r.estimates for r in rows) else ""
    right = " ".join([NOTES[0], NOTES[1], *_exceptions(rows)])
    table_rows = [r.row for r in rows]
    few = FEW_NOTE if any(0 < e.n_images < FEW for r in rows for e in r.estimates.values()) else ""
    lacking = " ".join(filter(None, (left_out(table_rows, []), _without_figures(rows))))
    return [text for text in (right, few, moved, absent, lacking, observed_by(table_rows)) if text]


def _without_figures(rows: Sequence[TruthRow]) -> str:
    """Say which statistics are of fewer images than their row has, "" where none is."""
    texts: dict[str, list[str]] = {}
    for r in rows:
        for name, e in r.estimates.items():
            if not np.isnan(e.value) and e.n_images < r.row.n_images:
                label = statistics.facts(name).label
                text = f"{label} of {r.row.n_images - e.n_images} of {r.row.n_images} images"
                texts.setdefault(text, []).append(r.row.heading)
    said = ". ".join(f"{text}: {'; '.join(of)}" for text, of in texts.items())
    return f"Left out of statistics (not computed, undefined, or failed, see failures.jsonl): {said}." if said else ""


def _exceptions(rows: Sequence[TruthRow]) -> list[str]:
    """What the rows of a table are, where right values do not hold exactly."""
    found = []
    if any("projected" in r.applies and r.conditions.sigma for r in rows):
        found.append("Projected samples fit y's noise, which no sample of the posterior does.")
    if any(r.applies.startswith("tau") for r in rows):
        found.append("At another temperature they do not hold and are left out.")
    return found

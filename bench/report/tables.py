"""Tables from the rows of a run directory; no model is needed.

``table.csv`` has full precision and intervals, ``table.md`` and the console are for reading, ``table.tex`` follows
the paper's Table 1. ``differences.csv`` compares methods image by image. :mod:`bench.paper` puts published figures
beside ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, groupby
from typing import Any

import numpy as np
import pandas as pd
from tabulate import tabulate

from bench.contract import cost_text
from bench.files import write_atomic
from bench.metrics import ARROWS, PSNR_FLOOR, Better, MetricFacts, better_at, column, metric_facts, right_residual, unit
from bench.metrics.statistic import FEW
from bench.report.notes import IMPOSSIBLE, below_table, impossible, missing_values
from bench.report.stats import LEVEL, holm, mean_interval, median_range, paired_difference, sign_flip_p, told_apart
from bench.run.store import Cell, RunDir

PREFIXES = {"Diversity (APD)": "APD ", "Diversity (NTIRE)": "NTIRE "}
"""What the name of a column needs where it stands without its group."""
LATEX = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)
NOTE = (
    "Means over images with their 95% intervals (BCa bootstrap over images): ± where both bounds are equally far from "
    "the mean, as printed, else [lower, upper]."
)
TIMES = "Times: median [least, most] of one call each at batch 1, of all rows of a scale in turns."
RANKS = (
    "Best in bold, second best underlined; methods whose paired 95% interval contains zero share a rank, of fewer than "
    f"{FEW} images also those whose signs of differences have p of {1 - LEVEL:.2f} or more by permutation."
)
UNDEFINED = "n/a"
NO_OTHER: Mapping[str, Better] = {}
"""No other directions than those that metrics declare."""
PLAIN = ("bicubic", 0.0)
"""Operator and sigma of the paper."""
ROUNDED_ONCE = "bicubic (MATLAB's kernel, rounded once)"
"""How `PLAIN` is told from its variants below tables, where its y is rounded."""
UNNAMED = {"rounding": "once", "kernel": "matlab"}
"""Settings of operators that their names in tables do not mention."""


@dataclass(frozen=True)
class Row:
    """One line of a table: a cell, the title of its method and, per metric, its values by image (NaN: undefined).

    Attributes:
        cell: the cell.
        title: of its method.
        ranked: whether its time is compared with others.
        operator, sigma: of its observations (`operator_name`).
        n_images: images that it has rows of.
        values: by metric.
        mse: mean square error of an image's samples, by image, from the PSNR of each (NaN where a sample has none).
        n_samples: samples of each image.
        missing: by metric, how many images (or samples) its mean leaves out, by the reason.
        evaluations, backward_passes: of a network, per sample; the latter None in runs of earlier versions.

    """

    cell: Cell
    title: str
    ranked: bool
    operator: str
    sigma: float
    n_images: int
    values: dict[str, pd.Series]
    mse: pd.Series
    n_samples: int
    missing: dict[str, dict[str, str]]
    evaluations: int
    backward_passes: int | None

    @property
    def heading(self) -> str:
        """Method, scale and temperature, as in "CVDVAE x8, tau 0.8"."""
        tau = "" if self.cell.key.tau is None else f", tau {self.cell.key.tau:g}"
        return f"{self.title} x{self.cell.key.scale}{tau}"


@dataclass(frozen=True)
class Line:
    """One line of a LaTeX table: its scale, what stands before the figures, and the figures."""

    scale: int
    heads: tuple[str, ...]
    cells: tuple[str, ...]


def operator_name(operator: Mapping[str, Any]) -> str:
    """Name of an operator in tables, with the settings that change it: "bicubic rounding=each_axis"."""
    known = {"name", "sigma", "range"}
    settings = [f"{k}={v}" for k, v in operator.items() if k not in known and UNNAMED.get(k) != v]
    return " ".join([operator["name"], *settings])


def row_title(title: str, method: str, label: str) -> str:
    """Name of a row in tables: the method's, with the row's own where it has one, as in "DPS (dps_50)"."""
    return title if method == label else f"{title} ({label})"


def read_rows(run: RunDir) -> tuple[list[Row], list[str]]:
    """Read all cells of a run: rows by scale, then by the configuration's order of methods, then by temperature.

    Returns:
        rows, and the names of the run's metrics.

    """
    config = run.config
    names: list[str] = config["metrics"]
    labels = list(config["methods"])

    def order(cell: Cell) -> tuple[int, int, str, float]:
        known = labels.index(cell.key.label) if cell.key.label in labels else len(labels)
        return cell.key.scale, known, cell.key.label, cell.key.tau or 0.0

    cells = sorted(run.cells(), key=order)
    apd_images = config.get("apd_images")
    pairs_before = np.inf
    if apd_images is not None:  # the first of all images that are here, by whichever start
        here = [int(least) for c in cells if not np.isnan(least := c.read("samples")["index"].min())]
        pairs_before = min([(config.get("images") or [0])[0], *here]) + apd_images
    rows = []
    for cell in cells:
        facts, identity = cell.facts, cell.identity
        assert identity is not None
        title = row_title(facts["title"], facts["method"], cell.key.label)
        operator = identity["operator"]
        evaluations, backward = int(facts["evaluations"]), facts.get("backward_passes")
        samples, images = cell.read("samples"), cell.read("images").set_index("index")
        values = _values(cell, samples, images, names, pairs_before)
        size = config.get("dataset", {}).get("size")
        n_images, n_samples = samples["index"].nunique(), int(samples["sample"].max()) + 1
        missing = missing_values(samples, values, size)
        named, sigma = operator_name(operator), float(operator["sigma"])
        mse = _mse(samples)
        of_images = (named, sigma, n_images, values, mse, n_samples, missing)
        rows.append(Row(cell, title, evaluations > 0, *of_images, evaluations, backward))
    return rows, names


def _mse(samples: pd.DataFrame) -> pd.Series:
    """Mean square error by image. PSNR is stored for each sample, so that this is no mean of logarithms."""
    if "psnr" not in samples:
        return pd.Series(np.nan, samples["index"].unique())
    errors = (10 ** (-samples["psnr"].astype(float) / 10) - PSNR_FLOOR).clip(lower=0)
    mean: pd.Series = errors.groupby(samples["index"]).agg(lambda e: e.mean(skipna=False))
    return mean


def _values(
    cell: Cell, samples: pd.DataFrame, images: pd.DataFrame, names: list[str], pairs_before: float
) -> dict[str, pd.Series]:
    """Values by image of each metric, NaN where a cell lacks it; pairs of the images before index `pairs_before`."""
    known = [n for n in names if n in samples]
    per_image = samples[["index", *known]].groupby("index").mean()
    timing = cell.timing or {}
    values = {}
    for name in names:
        domain = metric_facts(name).domain
        if domain == "timing":
            values[name] = pd.Series(np.atleast_1d(timing.get(name, np.nan)), dtype=float)
        elif domain == "sample":
            values[name] = per_image[name] if name in per_image else pd.Series(np.nan, per_image.index)
        else:
            of_images = images[name].sort_index() if name in images else pd.Series(np.nan, per_image.index)
            values[name] = of_images[of_images.index < pairs_before] if domain == "pair" else of_images
    return values


def summarise(rows: list[Row], names: list[str]) -> pd.DataFrame:
    """One row per (scale, method, tau): means over images with the bounds of their 95% intervals.

    Times are medians of repeats, which are not independent, with the least and the most. ``NAME_n`` is the number of
    images (repeats, for times) of a mean; ``NAME_right`` is the value of a perfect sampler where y has noise;
    ``impossible`` says what cannot be right.
    """
    undirected = list(directions(rows, names))
    records = []
    for row in rows:
        key = row.cell.key
        record: dict[str, Any] = {"scale": key.scale, "method": key.label, "tau": key.tau}
        record |= {"operator": row.operator, "sigma": row.sigma, "n_images": row.n_images}
        record |= {"evaluations": row.evaluations, "backward_passes": row.backward_passes}
        for name in names:
            factor = metric_facts(name).factor
            values = row.values[name].to_numpy(dtype=float)
            estimate = median_range(values) if is_time(name) else mean_interval(values)
            record[column(name)] = estimate.mean * factor
            record[column(name) + "_lo"] = estimate.lo * factor
            record[column(name) + "_hi"] = estimate.hi * factor
        record |= {f"{column(name)}_n": int(row.values[name].notna().sum()) for name in names}
        record |= {f"{column(name)}_right": right_residual(row.sigma) for name in undirected}
        record["impossible"] = " ".join(impossible(row))
        records.append(record)
    return pd.DataFrame(records).astype({"tau": float}) if records else pd.DataFrame()


def differences(rows: list[Row], names: list[str]) -> pd.DataFrame:
    """Paired differences, first minus second, of every two rows of one scale, over the images that both have.

    ``p`` is of a permutation of signs over images, ``p_holm`` corrected for all comparisons of the frame.
    """
    kept = [name for name in names if not is_time(name)]
    values = {
        column(name): [metric_facts(name).factor * row.values[name].astype(float) for row in rows] for name in kept
    }
    return paired_frame(rows, values)


def paired_frame(rows: Sequence[Row], values: Mapping[str, Sequence[pd.Series | None]]) -> pd.DataFrame:
    """See `differences`; values by what they are of, one series by image for each row, None where it has none."""
    records, paired = [], []
    for (i, a), (j, b) in combinations(enumerate(rows), 2):
        if a.cell.key.scale != b.cell.key.scale:
            continue
        for name, of_rows in values.items():
            first, second = of_rows[i], of_rows[j]
            if first is None or second is None:
                continue
            x, y = first.align(second, join="inner")
            estimate, n = paired_difference(x.to_numpy(dtype=float), y.to_numpy(dtype=float))
            paired.append(x - y)
            records.append(
                {
                    "scale": a.cell.key.scale,
                    "method": a.cell.key.label,
                    "tau": a.cell.key.tau,
                    "other": b.cell.key.label,
                    "other_tau": b.cell.key.tau,
                    "metric": name,
                    "difference": estimate.mean,
                    "lo": estimate.lo,
                    "hi": estimate.hi,
                    "n_images": n,
                }
            )
    columns = ["scale", "method", "tau", "other", "other_tau", "metric", "difference", "lo", "hi", "n_images"]
    frame = pd.DataFrame(records, columns=columns)
    p = sign_flip_p(pd.concat(paired, axis=1).to_numpy()) if paired else np.array([])
    return frame.assign(p=p, p_holm=holm(p))


def is_time(name: str) -> bool:
    """Whether a metric is a wall time (or a throughput), whose values are repeats and not images."""
    return metric_facts(name).domain == "timing"


def directions(rows: Sequence[Row], names: Sequence[str]) -> dict[str, Better]:
    """Directions in a table of rows, of the metrics that have another one there than they declare: with noise."""
    noisy = max((row.sigma for row in rows), default=0.0)
    return {n: better for n in names if (better := better_at(n, noisy)) != metric_facts(n).better}


def column_head(name: str, better: Mapping[str, Better] = NO_OTHER) -> str:
    """A metric's name, its better direction and its unit, where it stands without its group: "LR-PSNR ↑ (dB)".

    `better` has directions that a table shows in the place of the metrics' own.
    """
    facts = metric_facts(name)
    label = PREFIXES.get(facts.group, "") + facts.label
    parts = (label, ARROWS[better.get(name, facts.better)], f"({unit(facts)})" if unit(facts) else "")
    return " ".join(part for part in parts if part)


def format_value(value: float, facts: MetricFacts) -> str:
    """A figure with the digits of its metric; `UNDEFINED` for NaN."""
    return UNDEFINED if np.isnan(value) else format(value, facts.digits)


def interval_text(frame: pd.DataFrame, i: int, name: str) -> str:
    """A mean with its interval, as in "25.0 ± 1.0" or "25.0 [24.2, 26.9]" (see `NOTE`), or the mean alone."""
    facts, key = metric_facts(name), column(name)
    value, low, high = (float(frame[k].iloc[i]) for k in (key, key + "_lo", key + "_hi"))
    text = format_value(value, facts)
    if not high > low:
        return text
    if is_time(name):
        return f"{text} [{format_value(low, facts)}, {format_value(high, facts)}]"
    below, above = format_value(value - low, facts), format_value(high - value, facts)
    return (
        f"{text} ± {above}" if below == above else f"{text} [{format_value(low, facts)}, {format_value(high, facts)}]"
    )


def markdown(rows: list[Row], names: list[str], frame: pd.DataFrame, intervals: bool, style: str = "pipe") -> str:
    """Render the table for reading (`style` is tabulate's)."""
    temperatures = frame["tau"].notna().any()
    costly = any(row.evaluations > 1 or row.backward_passes for row in rows)  # iterative methods are among them
    heads = ["scale", "method", *(["tau"] if temperatures else []), "images", *(["evaluations"] if costly else [])]
    better = directions(rows, names)
    heads += [column_head(name, better) for name in names]
    lines = []
    for i, row in enumerate(rows):
        key = row.cell.key
        tau = [("" if key.tau is None else f"{key.tau:g}")] if temperatures else []
        cells = [
            interval_text(frame, i, n) if intervals else format_value(float(frame[column(n)].iloc[i]), metric_facts(n))
            for n in names
        ]
        title = (escape_markdown(row.title) if style == "pipe" else row.title) + (
            f" {IMPOSSIBLE}" if impossible(row) else ""
        )
        cost = [cost_text(row.evaluations, row.backward_passes)] if costly else []
        lines.append([f"x{key.scale}", title, *tau, str(frame["n_images"].iloc[i]), *cost, *cells])
    return tabulate(lines, headers=heads, tablefmt=style, disable_numparse=True)


def ranks_of_scales(
    rows: list[Row], names: Sequence[str], frame: pd.DataFrame, better: Mapping[str, Better] = NO_OTHER
) -> dict[str, dict[int, int]]:
    """By metric, row number to 0 (best of its scale) or 1 (second); see `RANKS`; `better` as in `column_head`."""
    better = {**directions(rows, names), **better}
    scales = dict.fromkeys(row.cell.key.scale for row in rows)
    ranks: dict[str, dict[int, int]] = {name: {} for name in names}
    for name in names:
        for scale in scales:
            ranks[name] |= _ranks(rows, frame, name, scale, better.get(name))
    return ranks


def _ranks(rows: list[Row], frame: pd.DataFrame, name: str, scale: int, other: Better | None = None) -> dict[int, int]:
    """Row number to 0 (best) or 1 (second).

    Rows share the rank of a better one where their figures are printed alike or their images do not tell them apart
    (`RANKS`); times, where one median lies within the other's range. Methods without a network are not
    ranked for time, and nobody where no direction is better.
    """
    facts = metric_facts(name)
    better = other or facts.better
    if better == "neither":
        return {}
    texts = {
        i: text
        for i, row in enumerate(rows)
        if row.cell.key.scale == scale
        and (row.ranked or not is_time(name))
        and (text := format_value(float(frame[column(name)].iloc[i]), facts)) != UNDEFINED
    }
    if len(texts) < 2:
        return {}
    sign = -1 if better == "higher" else 1
    left = sorted(texts, key=lambda i: sign * float(frame[column(name)].iloc[i]))
    ranks: dict[int, int] = {}
    for rank in (0, 1):
        equal = [i for i in left if texts[i] == texts[left[0]] or _indistinct(rows[left[0]], rows[i], name)]
        ranks |= dict.fromkeys(equal, rank)
        left = [i for i in left if i not in equal]
        if not left:
            break
    return ranks


def _indistinct(a: Row, b: Row, name: str) -> bool:
    """Whether two rows are not told apart by the images that both have (`RANKS`)."""
    if is_time(name):
        one, other = (median_range(r.values[name].to_numpy(dtype=float)) for r in (a, b))
        return one.lo <= other.mean <= one.hi or other.lo <= one.mean <= other.hi
    x, y = a.values[name].align(b.values[name], join="inner")
    if x.empty:
        return False  # other images: the same rank would say that they are alike
    return not told_apart(x.to_numpy(dtype=float), y.to_numpy(dtype=float))


def escape(text: str) -> str:
    """Text for LaTeX."""
    return text.translate(LATEX)


def escape_markdown(text: str) -> str:
    """Text for a cell of a Markdown table."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def observed_by(rows: list[Row]) -> str:
    """A sentence that names the operators, with their variant, and the noise levels of rows; "" for no rows."""
    found = dict.fromkeys(f"{_variant(row)}, sigma {row.sigma:g}" for row in rows)
    return f"Observations: {'; '.join(found)}." if found else ""


def _variant(row: Row) -> str:
    rounds = (row.cell.identity or {})["operator"].get("range", ()) is not None
    return ROUNDED_ONCE if (row.operator, row.sigma) == PLAIN and rounds else row.operator


def ranked_lines(
    rows: list[Row], names: list[str], frame: pd.DataFrame, better: Mapping[str, Better] = NO_OTHER
) -> list[Line]:
    """LaTeX lines (title, temperature, figures) with the best in bold and the second best underlined per scale.

    `better` as in `column_head`.
    """
    lines = []
    ranks = ranks_of_scales(rows, names, frame, better)
    for scale, members in groupby(range(len(rows)), key=lambda i: rows[i].cell.key.scale):
        for i in members:
            tau = rows[i].cell.key.tau
            cells = []
            for name in names:
                text = format_value(float(frame[column(name)].iloc[i]), metric_facts(name))
                rank = ranks[name].get(i)
                cells.append(rf"\textbf{{{text}}}" if rank == 0 else rf"\underline{{{text}}}" if rank == 1 else text)
            title = escape(rows[i].title) + (r" $\dagger$" if impossible(rows[i]) else "")
            lines.append(Line(scale, (title, "" if tau is None else f"{tau:g}"), tuple(cells)))
    return lines


def latex(rows: list[Row], names: list[str], frame: pd.DataFrame) -> str:
    r"""Render the paper's Table 1: grouped heads, a rule between scales. Needs ``\usepackage{booktabs}``."""
    lines, better = ranked_lines(rows, names, frame), directions(rows, names)
    if any(line.heads[1] for line in lines):
        return render_latex(("Method", r"$\tau$"), lines, names, better)
    return render_latex(("Method",), [replace(line, heads=line.heads[:1]) for line in lines], names, better)


def render_latex(
    heads: tuple[str, ...], lines: list[Line], names: list[str], better: Mapping[str, Better] = NO_OTHER
) -> str:
    """Lay out lines as a booktabs table with a rule between scales; `heads` are those before the metrics.

    `better` as in `column_head`.
    """
    groups = [(g, len(list(members))) for g, members in groupby(names, key=lambda n: metric_facts(n).group)]
    at = len(heads) + 2
    titles, rules = [], []
    for group, width in groups:
        titles.append(rf"\multicolumn{{{width}}}{{c}}{{{escape(group)}}}")
        rules.append(rf"\cmidrule(lr){{{at}-{at + width - 1}}}")
        at += width
    labels = []
    for name in names:
        facts = metric_facts(name)
        extra = rf" ($\times 10^{{{round(np.log10(facts.factor))}}}$)" if facts.factor != 1 else ""
        extra = f" ({escape(facts.unit)})" if facts.unit and not extra else extra
        arrow = {"higher": r" $\uparrow$", "lower": r" $\downarrow$", "neither": ""}[better.get(name, facts.better)]
        labels.append(f"{escape(facts.label)}{extra}{arrow}")
    text = [
        r"% needs \usepackage{booktabs}",
        rf"\begin{{tabular}}{{ll{'c' * (len(heads) - 1 + len(names))}}}",
        r"\toprule",
        " & ".join([""] * (len(heads) + 1) + titles) + r" \\",
        " ".join(rules),
        " & ".join(["", *heads, *labels]) + r" \\",
    ]
    for scale, members in groupby(lines, key=lambda line: line.scale):
        text.append(r"\midrule")
        for number, line in enumerate(members):
            first = rf"$\times {scale}$" if number == 0 else ""
            text.append(" & ".join([first, *line.heads, *line.cells]) + r" \\")
    return "\n".join([*text, r"\bottomrule", r"\end{tabular}"]) + "\n"


def write_tables(run: RunDir) -> str:
    """Write all tables of a run directory.

    Returns:
        the table for the console; a sentence where nothing was measured.

    """
    rows, names = read_rows(run)
    if not rows:
        return f"Nothing has been measured in {run.path} yet."
    frame = summarise(rows, names)
    write_atomic(run.path / "table.csv", frame.to_csv(index=False))
    notes = [NOTE, TIMES if any(map(is_time, names)) else "", observed_by(rows), *below_table(rows, names, run.config)]
    below = "".join(f"\n{text}\n" for text in notes if text)
    comments = "".join(f"% {text}\n" for text in [RANKS, *notes[1:]] if text)
    write_atomic(run.path / "table.tex", comments + latex(rows, names, frame))
    write_atomic(run.path / "table.md", f"{markdown(rows, names, frame, intervals=True)}\n{below}")
    write_atomic(run.path / "differences.csv", differences(rows, names).to_csv(index=False))
    return markdown(rows, names, frame, intervals=False, style="simple")

"""The paper's tables: ours, as published, and ours beside the published figures.

Source: Prost et al., VISAPP 2024, Tables 1 and 2, in ``bench/published``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
from tabulate import tabulate

from bench.files import write_atomic
from bench.metrics import Better, column, metric_facts
from bench.paper.samplers import SET, measured_on, other_images, write_samplers
from bench.report.notes import IMPOSSIBLE, below_table, largest_apd_ratio
from bench.report.tables import (
    NOTE,
    PLAIN,
    TIMES,
    Line,
    Row,
    column_head,
    escape,
    escape_markdown,
    format_value,
    interval_text,
    observed_by,
    ranked_lines,
    read_rows,
    render_latex,
    summarise,
)
from bench.run.cell import CellKey
from bench.run.store import RunDir

PAPER = (
    "Prost et al., Efficient Posterior Sampling For Diverse Super-Resolution with Hierarchical VAE Prior, VISAPP 2024"
)
PAPER_TAU = 0.8
METRICS = ("psnr", "ssim", "lpips", "brisque", "lr_psnr", "apd_mse", "apd_lpips", "seconds", "noise_seconds")
"""Columns of Table 1 in its order; "lpips" without a backbone, which the paper does not name. Ours has the
time of the noise apart."""
DIRECTIONS: dict[str, Better] = {f"apd_{d}": "higher" for d in ("mse", "lpips_alex", "lpips_vgg", "stlpips_alex")}
"""The paper marks the larger APD as the better one; a perfect sampler's is as large as its error (docs/truth.md)."""
LEFT_OUT = "–"
EXACT_LR_PSNR = (
    "LR-PSNR: of samples as the methods return them (lr_psnr_exact). The published 75.20 and 75.70 dB at x4 are more "
    "than samples of 8 bits reach (about 72.0 dB on average), so that the paper cannot have rounded."
)
PAPER_TIMES = "The paper does not say whether its times include the noise."
SAMPLES = 5
"""Per image, for the paper's APD."""
HIDDEN = 1.5
"""How much larger than 10^(-PSNR/10) a mean error may be: a mean of PSNRs hides a part of it (docs/protocol.md)."""


@dataclass(frozen=True)
class Entry:
    """A line that a table should have.

    Attributes:
        key: its cell.
        method: the registered method.
        title: its name in tables.
        reason: why it was left out, or None.

    """

    key: CellKey
    method: str
    title: str
    reason: str | None = None


def published(table: str | None = None) -> pd.DataFrame:
    """The paper's figures: scale, method, tau, metric (our name, "lpips" without a backbone), published.

    `table` is "table1" or "table2"; None for both, where Table 2 gives way to Table 1 (they differ in the second digit
    of one LPIPS).
    """
    folder = files("bench.paper.published")
    with (folder / "table1.csv").open() as one, (folder / "table2.csv").open() as two:
        table1, table2 = pd.read_csv(one), pd.read_csv(two).assign(method="cvdvae")
    table1["tau"] = np.where(table1["method"].isin(["hcflow", "cvdvae"]), PAPER_TAU, np.nan)
    both = pd.concat([table1, table2[table2["tau"] != PAPER_TAU]])
    frame = {None: both, "table1": table1, "table2": table2}[table]
    return frame.melt(["scale", "method", "tau"], var_name="metric", value_name="published").dropna(subset="published")


@cache
def impossible_apd() -> dict[tuple[int, str, float | None], float]:
    """Published MSE APDs that samples with the published PSNR cannot have: (scale, method, tau) to APD / MSE.

    Whatever the samples are, their mean square distance is at most 2n/(n-1) = 2.5 times their mean square error.
    """
    values = _published_values()
    found = {}
    for (scale, method, tau, metric), apd in values.items():
        if metric == "apd_mse_e4" and (psnr := values.get((scale, method, tau, "psnr"))) is not None:
            ratio = apd / (1e4 * 10 ** (-psnr / 10))
            if ratio > HIDDEN * largest_apd_ratio(SAMPLES):
                found[scale, method, tau] = ratio
    return found


def _about_impossible(keys: Iterable[tuple[int, str, float | None]]) -> list[str]:
    """The sentence below tables that show such figures."""
    ratios = impossible_apd()
    shown = [
        f"{method} x{scale}, tau {tau:g}: {ratios[scale, method, tau]:.1f}"
        for scale, method, tau in dict.fromkeys(keys)
        if (scale, method, tau) in ratios and tau is not None
    ]
    if not shown:
        return []
    limit = largest_apd_ratio(SAMPLES)
    return [
        f"{IMPOSSIBLE} The published MSE APD cannot be right in its unit, and no difference to it is shown: five "
        f"samples have at most {limit:g} times their mean square error. Published APD over the error of the published "
        "PSNR: "
        f"{'; '.join(shown)}."
    ]


def _published_values(table: str | None = None) -> dict[tuple[int, str, float | None, str], float]:
    return {
        (r["scale"], r["method"], None if np.isnan(r["tau"]) else r["tau"], r["metric"]): float(r["published"])
        for r in published(table).to_dict("records")
    }


def _without_backbone(metric: str) -> str:
    for backbone in ("stlpips_alex", "lpips_alex", "lpips_vgg"):
        metric = metric.replace(backbone, "lpips")
    return metric


def _published_metric(ours: str) -> str:
    """The published column that is comparable with a column of ours; ST-LPIPS has none."""
    if ours == "lr_psnr_exact":
        return "lr_psnr"
    return ours if "stlpips" in ours else _without_backbone(ours)


def beside_paper(rows: list[Row], names: list[str], frame: pd.DataFrame, table: str | None = None) -> pd.DataFrame:
    """Measured and published figures of the same method, scale, temperature and metric, with their difference.

    The paper does not name the backbone of its LPIPS: LPIPS with either is compared with it, ST-LPIPS never. Its
    operator is bicubic without noise, which variant is not known: rows of another one have no place here. Its LR-PSNR
    is compared with ours of unrounded samples where that was measured. A published figure that cannot be right has the
    mark "impossible" and no difference, and there is none where ours is of other images than `SET`. `table` as in
    `published`.
    """
    theirs, wrong = _published_values(table), impossible_apd()
    records = []
    for i, row in enumerate(rows):
        key = row.cell.key
        for name in names:
            ours, method = column(name), row.cell.facts["method"]
            value = theirs.get((key.scale, method, key.tau, _published_metric(ours)))
            if name == "lr_psnr" and "lr_psnr_exact" in names:
                continue
            mark = "impossible" if ours == "apd_mse_e4" and (key.scale, method, key.tau) in wrong else ""
            if value is not None and row.operator.partition(" ")[0] == PLAIN[0] and row.sigma == PLAIN[1]:
                measured, lo, hi = (float(frame[ours + s].iloc[i]) for s in ("", "_lo", "_hi"))
                difference = np.nan if mark or measured_on(row) != SET else measured - value
                records.append((key.scale, key.label, key.tau, ours, measured, lo, hi, value, difference, mark))
    columns = ["scale", "method", "tau", "metric", "measured", "lo", "hi", "published", "difference", "mark"]
    return pd.DataFrame(records, columns=columns)


def write_paper(run: RunDir) -> None:
    """Write ``paper.*``: every figure of a run that the paper has too, one per line; ``samplers.*``: other papers'."""
    rows, names = read_rows(run)
    if not rows:
        return
    write_samplers(run, rows, names)
    frame = beside_paper(rows, names, summarise(rows, names))
    write_atomic(run.path / "paper.csv", frame.to_csv(index=False))
    shown = frame.assign(tau=frame["tau"].map(lambda t: "" if t is None or np.isnan(t) else f"{t:g}"))
    known = shown["difference"].notna()
    shown["difference"] = (
        shown["difference"].astype(object).where(known, shown["mark"].where(shown["mark"] == "", IMPOSSIBLE))
    )
    shown = shown.drop(columns="mark")
    by_label = {row.cell.key.label: row.cell.facts["method"] for row in rows}
    marked = frame[frame["mark"] != ""]
    wrong = _about_impossible(
        (s, by_label[m], float(t)) for s, m, t in marked[["scale", "method", "tau"]].itertuples(index=False)
    )
    exact = [EXACT_LR_PSNR] if "lr_psnr_exact" in names else []
    about = [f"Published: {PAPER}.", *other_images(rows), *exact, *wrong]

    def render(style: str) -> str:
        escaped = shown.assign(method=shown["method"].map(escape_markdown)) if style == "pipe" else shown
        body = escaped.to_numpy().tolist()
        return tabulate(body, headers=list(shown.columns), tablefmt=style, floatfmt=".4g")

    write_atomic(run.path / "paper.md", "\n\n".join([render("pipe"), *about]) + "\n")
    head = "".join(f"% {text}\n" for text in [*about, "needs \\usepackage{booktabs}"])
    write_atomic(run.path / "paper.tex", head + render("latex_booktabs").replace(IMPOSSIBLE, r"$\dagger$") + "\n")


def paper_metrics(names: Sequence[str]) -> list[str]:
    """Those of a run's metrics that the paper's tables have, in their order; one LR-PSNR, unrounded if there."""
    rounded = {"lr_psnr"} if "lr_psnr_exact" in names else set()
    place = {n: _without_backbone(n).removesuffix("_exact") for n in names if n not in rounded}
    return sorted((n for n, known in place.items() if known in METRICS), key=lambda n: METRICS.index(place[n]))


def write_paper_table(run: RunDir, name: str, entries: Sequence[Entry], folder: Path, note: str = "") -> str:
    """Write one table of the paper in three views, each as CSV, Markdown and LaTeX.

    ``NAME.*`` is ours, ``NAME_published.*`` the paper's, ``NAME_beside.*`` both with their differences. A line that
    was left out stands in its place, empty, with the reason below.

    Args:
        run: where the rows are.
        name: "table1" or "table2".
        entries: the lines.
        folder: where the files go.
        note: a sentence below the views that hold ours.

    Returns:
        ours beside the published figures, for the console.

    """
    rows, all_names = read_rows(run)
    names = paper_metrics(all_names)
    by_key = {row.cell.key: row for row in rows}
    entries = sorted(entries, key=lambda e: e.key.scale)
    there = [by_key[e.key] for e in entries if e.key in by_key]
    frame = summarise(there, names)
    notes = [f"{e.title} x{e.key.scale} is left out: {e.reason}" for e in entries if e.key not in by_key]
    notes = list(dict.fromkeys(notes))
    lr_note = [EXACT_LR_PSNR] if "lr_psnr_exact" in names else []
    times = [TIMES, PAPER_TIMES] if "seconds" in names else []
    own = [_counts(there), *times, *below_table(there, names, run.config)]
    wrong = _about_impossible((e.key.scale, e.method, e.key.tau) for e in entries) if "apd_mse" in names else []

    views = {
        "": (_ours(entries, there, names, frame), ""),
        "_published": (_published(name, entries, names), f"Published: {PAPER}."),
        "_beside": (_beside(name, entries, there, names, frame), f"Published: {PAPER}."),
    }
    for suffix, (lines, source) in views.items():
        ours = [t for t in (NOTE, observed_by(there), note, *lr_note, *own) if t] if suffix != "_published" else []
        below = [*ours, *([source, *wrong] if source else []), *notes]
        path = folder / f"{name}{suffix}"
        write_atomic(path.with_suffix(".md"), _markdown(lines, names, "pipe") + "\n\n" + "\n\n".join(below) + "\n")
        if not suffix:  # ranked: the intervals are in the others
            ranked = dict(
                zip((row.cell.key for row in there), ranked_lines(there, names, frame, DIRECTIONS), strict=True)
            )
            lines = [ranked.get(e.key, line) for e, line in zip(entries, lines, strict=True)]
        else:
            lines = [replace(line, heads=tuple(map(escape, line.heads))) for line in lines]
        lines = [replace(line, cells=tuple(map(_latex_cell, line.cells))) for line in lines]
        heads = ("Method", r"$\tau$", "")[: 3 if suffix == "_beside" else 2]
        write_atomic(
            path.with_suffix(".tex"), "".join(f"% {x}\n" for x in below) + render_latex(heads, lines, names, DIRECTIONS)
        )
    write_atomic(folder / f"{name}.csv", _ours_csv(entries, there, frame))
    write_atomic(folder / f"{name}_published.csv", _published_csv(name, entries))
    write_atomic(folder / f"{name}_beside.csv", beside_paper(there, names, frame, name).to_csv(index=False))
    return "\n".join([_markdown(views["_beside"][0], names, "simple"), *([note] if note else []), *wrong, *notes])


def _counts(there: Sequence[Row]) -> str:
    """How many images and samples the figures are of; lines with fewer images are named elsewhere (`below_table`)."""
    images, samples = (max((getattr(r, what) for r in there), default=0) for what in ("n_images", "n_samples"))
    return f"{images} images, {samples} samples of each." if there else ""


def _position(there: list[Row]) -> dict[CellKey, int]:
    return {row.cell.key: i for i, row in enumerate(there)}


def _tau(key: CellKey) -> str:
    return "" if key.tau is None else f"{key.tau:g}"


def _ours(entries: Sequence[Entry], there: list[Row], names: list[str], frame: pd.DataFrame) -> list[Line]:
    at = _position(there)
    return [
        Line(
            e.key.scale,
            (e.title, _tau(e.key)),
            tuple(interval_text(frame, at[e.key], n) if e.key in at else LEFT_OUT for n in names),
        )
        for e in entries
    ]


def _published(table: str, entries: Sequence[Entry], names: list[str]) -> list[Line]:
    theirs = _published_values(table)
    return [
        Line(e.key.scale, (e.title, _tau(e.key)), tuple(_published_cell(e, n, theirs) for n in names)) for e in entries
    ]


def _published_cell(e: Entry, name: str, theirs: dict[tuple[int, str, float | None, str], float]) -> str:
    value = theirs.get((e.key.scale, e.method, e.key.tau, _published_metric(column(name))))
    wrong = name == "apd_mse" and (e.key.scale, e.method, e.key.tau) in impossible_apd()
    return "" if value is None else format_value(value, metric_facts(name)) + (IMPOSSIBLE if wrong else "")


def _beside(
    table: str, entries: Sequence[Entry], there: list[Row], names: list[str], frame: pd.DataFrame
) -> list[Line]:
    theirs, at = _published_values(table), _position(there)
    compared = {
        (r["scale"], r["method"], None if r["tau"] is None or np.isnan(r["tau"]) else r["tau"], r["metric"]): r
        for r in beside_paper(there, names, frame, table).to_dict("records")
    }
    lines = []
    for e in entries:
        ours, difference = [], []
        printed = tuple(_published_cell(e, n, theirs) for n in names)
        for name in names:
            ours.append(interval_text(frame, at[e.key], name) if e.key in at else LEFT_OUT)
            both = compared.get((e.key.scale, e.key.label, e.key.tau, column(name)))
            change = both["difference"] if both else np.nan
            text = "" if np.isnan(change) else format_value(change, metric_facts(name))
            difference.append(f"+{text}" if change > 0 else text)
        lines += [
            Line(e.key.scale, (e.title, _tau(e.key), "ours"), tuple(ours)),
            Line(e.key.scale, ("", "", "published"), printed),
            Line(e.key.scale, ("", "", "difference"), tuple(difference)),
        ]
    return lines


def _latex_cell(text: str) -> str:
    return text.replace("±", r"$\pm$").replace(LEFT_OUT, "--").replace(IMPOSSIBLE, r"$^\dagger$")


def _markdown(lines: list[Line], names: list[str], style: str) -> str:
    heads = ["scale", "method", "tau", ""][: 1 + len(lines[0].heads)] if lines else ["scale", "method", "tau"]
    heads += [column_head(name, DIRECTIONS) for name in names]
    text = escape_markdown if style == "pipe" else str
    body = [[f"x{line.scale}" if line.heads[0] else "", *map(text, line.heads), *line.cells] for line in lines]
    return tabulate(body, headers=heads, tablefmt=style, disable_numparse=True)


def _ours_csv(entries: Sequence[Entry], there: list[Row], frame: pd.DataFrame) -> str:
    wanted = pd.DataFrame(
        [(e.key.scale, e.key.label, e.key.tau, e.reason or "") for e in entries],
        columns=["scale", "method", "tau", "left_out"],
    ).astype({"tau": float})
    if there:
        wanted = wanted.merge(frame, how="left", on=["scale", "method", "tau"])
    return wanted[[c for c in wanted.columns if c != "left_out"] + ["left_out"]].to_csv(index=False)


def _published_csv(table: str, entries: Sequence[Entry]) -> str:
    frame = published(table)
    keys = {(e.key.scale, e.method, e.key.tau) for e in entries}
    keep = [
        (s, m, None if np.isnan(t) else t) in keys
        for s, m, t in zip(frame["scale"], frame["method"], frame["tau"], strict=True)
    ]
    wide = frame[keep].pivot_table(index=["scale", "method", "tau"], columns="metric", values="published", dropna=False)
    wide = wide.dropna(how="all").reset_index()
    columns = ["scale", "method", "tau", *(m for m in frame["metric"].unique() if m in wide)]
    return wide[columns].to_csv(index=False)

"""Tables from the rows of a run directory; no model is needed.

``table.csv`` has full precision and intervals, ``table.md`` and the console are for reading, ``table.tex`` follows
the paper's Table 1. ``differences.csv`` compares methods image by image. ``paper.*`` puts the published figures beside
ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from itertools import combinations, groupby
from typing import Any

import numpy as np
import pandas as pd
from tabulate import tabulate

from bench.metrics import MetricFacts, column, metric_facts
from bench.stats import mean_interval, paired_difference
from bench.store import Cell, RunDir, write_atomic

PREFIXES = {"Diversity (APD)": "APD ", "Diversity (NTIRE)": "NTIRE "}
"""What the name of a column needs where it stands without its group."""
ARROWS = {"higher": "↑", "lower": "↓"}
PAPER = (
    "Prost et al., Efficient Posterior Sampling For Diverse Super-Resolution with Hierarchical VAE Prior, VISAPP 2024"
)
PAPER_TAU = 0.8


@dataclass(frozen=True)
class Row:
    """One line of a table: a cell, the title of its method and, per metric, its values by image (NaN: undefined)."""

    cell: Cell
    title: str
    ranked: bool
    values: dict[str, pd.Series]


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

    rows = []
    for cell in sorted(run.cells(), key=order):
        facts = cell.facts
        title = facts["title"] if facts["method"] == cell.key.label else f"{facts['title']} ({cell.key.label})"
        samples, images = cell.read("samples"), cell.read("images").set_index("index")
        per_image = samples.drop(columns=["method", "scale", "tau", "image", "sample"]).groupby("index").mean()
        timing = cell.timing or {}
        values = {}
        for name in names:
            domain = metric_facts(name).domain
            if domain == "timing":
                values[name] = pd.Series(np.atleast_1d(timing.get(name, np.nan)), dtype=float)
            elif domain == "sample":
                values[name] = per_image[name]
            else:
                values[name] = images[name].sort_index()
        rows.append(Row(cell, title, facts["evaluations"] > 0, values))
    return rows, names


def summarise(rows: list[Row], names: list[str]) -> pd.DataFrame:
    """One row per (scale, method, tau): means over images with the bounds of their 95% intervals."""
    records = []
    for row in rows:
        key = row.cell.key
        record: dict[str, Any] = {"scale": key.scale, "method": key.label, "tau": key.tau}
        record["n_images"] = len(row.cell.done())
        for name in names:
            factor = metric_facts(name).factor
            estimate = mean_interval(row.values[name].to_numpy(dtype=float))
            record[column(name)] = estimate.mean * factor
            record[column(name) + "_lo"] = estimate.lo * factor
            record[column(name) + "_hi"] = estimate.hi * factor
        records.append(record)
    return pd.DataFrame(records).astype({"tau": float}) if records else pd.DataFrame()


def differences(rows: list[Row], names: list[str]) -> pd.DataFrame:
    """Paired differences, first minus second, of every two rows of one scale, over the images that both have."""
    records = []
    for a, b in combinations(rows, 2):
        if a.cell.key.scale != b.cell.key.scale:
            continue
        for name in names:
            facts = metric_facts(name)
            if facts.domain == "timing":
                continue
            x, y = a.values[name].align(b.values[name], join="inner")
            estimate, n = paired_difference(x.to_numpy(dtype=float), y.to_numpy(dtype=float))
            records.append(
                {
                    "scale": a.cell.key.scale,
                    "method": a.cell.key.label,
                    "tau": a.cell.key.tau,
                    "other": b.cell.key.label,
                    "other_tau": b.cell.key.tau,
                    "metric": column(name),
                    "difference": estimate.mean * facts.factor,
                    "lo": estimate.lo * facts.factor,
                    "hi": estimate.hi * facts.factor,
                    "n_images": n,
                }
            )
    columns = ["scale", "method", "tau", "other", "other_tau", "metric", "difference", "lo", "hi", "n_images"]
    return pd.DataFrame(records, columns=columns)


def unit(facts: MetricFacts) -> str:
    """Unit and factor of a column, as in "dB" or "x 1e4"; "" for neither."""
    return f"x {facts.factor:.0e}".replace("e+0", "e") if facts.factor != 1 else facts.unit


def _format(value: float, facts: MetricFacts) -> str:
    return "" if np.isnan(value) else format(value, facts.digits)


def _interval(frame: pd.DataFrame, i: int, name: str) -> str:
    """A mean with half the width of its interval, or the mean alone."""
    facts, key = metric_facts(name), column(name)
    value, low, high = (float(frame[k].iloc[i]) for k in (key, key + "_lo", key + "_hi"))
    text = _format(value, facts)
    return f"{text} ± {_format((high - low) / 2, facts)}" if text and high > low else text


def markdown(rows: list[Row], names: list[str], frame: pd.DataFrame, intervals: bool, style: str = "pipe") -> str:
    """Render the table for reading (`style` is tabulate's)."""
    temperatures = frame["tau"].notna().any()
    heads = ["scale", "method", *(["tau"] if temperatures else []), "images"]
    for name in names:
        facts = metric_facts(name)
        label = PREFIXES.get(facts.group, "") + facts.label
        heads.append(f"{label} {ARROWS[facts.better]}" + (f" ({unit(facts)})" if unit(facts) else ""))
    lines = []
    for i, row in enumerate(rows):
        key = row.cell.key
        tau = [("" if key.tau is None else f"{key.tau:g}")] if temperatures else []
        cells = [
            _interval(frame, i, n) if intervals else _format(float(frame[column(n)].iloc[i]), metric_facts(n))
            for n in names
        ]
        lines.append([f"x{key.scale}", row.title, *tau, str(frame["n_images"].iloc[i]), *cells])
    return tabulate(lines, headers=heads, tablefmt=style, disable_numparse=True)


def _ranks(rows: list[Row], frame: pd.DataFrame, name: str, scale: int) -> dict[int, int]:
    """Row number to 0 (best) or 1 (second), by the figures as printed; equal figures share a rank.

    Methods without a network are not ranked for time.
    """
    facts = metric_facts(name)
    printed = {
        i: float(text)
        for i, row in enumerate(rows)
        if row.cell.key.scale == scale
        and (row.ranked or facts.domain != "timing")
        and (text := _format(float(frame[column(name)].iloc[i]), facts))
    }
    if len(printed) < 2:
        return {}
    best = sorted(set(printed.values()), reverse=facts.better == "higher")[:2]
    return {i: best.index(v) for i, v in printed.items() if v in best}


def _escape(text: str) -> str:
    for character in "\\&%$#_{}":
        text = text.replace(character, "\\textbackslash{}" if character == "\\" else "\\" + character)
    return text.replace("~", "\\textasciitilde{}").replace("^", "\\textasciicircum{}")


def latex(rows: list[Row], names: list[str], frame: pd.DataFrame) -> str:
    r"""Render the paper's Table 1: grouped heads, best in bold and second best underlined per scale.

    Needs ``\usepackage{booktabs}``.
    """
    temperatures = frame["tau"].notna().any()
    groups = [(g, len(list(members))) for g, members in groupby(names, key=lambda n: metric_facts(n).group)]
    first = 4 if temperatures else 3
    heads, rules, at = [], [], first
    for group, width in groups:
        heads.append(rf"\multicolumn{{{width}}}{{c}}{{{_escape(group)}}}")
        rules.append(rf"\cmidrule(lr){{{at}-{at + width - 1}}}")
        at += width
    labels = []
    for name in names:
        facts = metric_facts(name)
        extra = rf" ($\times 10^{{{round(np.log10(facts.factor))}}}$)" if facts.factor != 1 else ""
        extra = f" ({_escape(facts.unit)})" if facts.unit and not extra else extra
        labels.append(rf"{_escape(facts.label)}{extra} $\{'uparrow' if facts.better == 'higher' else 'downarrow'}$")
    lines = [
        r"% needs \usepackage{booktabs}",
        rf"\begin{{tabular}}{{ll{'c' if temperatures else ''}{'c' * len(names)}}}",
        r"\toprule",
        " & ".join(["", "", *([""] if temperatures else []), *heads]) + r" \\",
        " ".join(rules),
        " & ".join(["", "Method", *([r"$\tau$"] if temperatures else []), *labels]) + r" \\",
    ]
    for scale, members in groupby(range(len(rows)), key=lambda i: rows[i].cell.key.scale):
        lines.append(r"\midrule")
        ranks = {name: _ranks(rows, frame, name, scale) for name in names}
        for number, i in enumerate(members):
            tau = rows[i].cell.key.tau
            cells = []
            for name in names:
                text = _format(float(frame[column(name)].iloc[i]), metric_facts(name))
                rank = ranks[name].get(i)
                cells.append(rf"\textbf{{{text}}}" if rank == 0 else rf"\underline{{{text}}}" if rank == 1 else text)
            head = [rf"$\times {scale}$" if number == 0 else "", _escape(rows[i].title)]
            head += ["" if tau is None else f"{tau:g}"] if temperatures else []
            lines.append(" & ".join([*head, *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def published() -> pd.DataFrame:
    """The paper's figures: scale, method, tau, metric (our name, "lpips" without a backbone), published."""
    folder = files("bench.published")
    with (folder / "table1.csv").open() as one, (folder / "table2.csv").open() as two:
        table1, table2 = pd.read_csv(one), pd.read_csv(two)
    table1["tau"] = np.where(table1["method"].isin(["hcflow", "cvdvae"]), PAPER_TAU, np.nan)
    table2 = table2[table2["tau"] != PAPER_TAU].assign(method="cvdvae")  # Table 1 has the others
    long = pd.concat([table1, table2]).melt(["scale", "method", "tau"], var_name="metric", value_name="published")
    return long.dropna(subset=["published"])


def beside_paper(rows: list[Row], names: list[str], frame: pd.DataFrame) -> pd.DataFrame:
    """Measured and published figures of the same method, scale, temperature and metric, with their difference.

    The paper does not name the backbone of its LPIPS: LPIPS with either is compared with it, ST-LPIPS never.
    """
    theirs = {
        (r["scale"], r["method"], None if np.isnan(r["tau"]) else r["tau"], r["metric"]): float(r["published"])
        for r in published().to_dict("records")
    }
    records = []
    for i, row in enumerate(rows):
        key = row.cell.key
        for name in names:
            ours = column(name)
            known = ours.replace("lpips_alex", "lpips").replace("lpips_vgg", "lpips") if "stlpips" not in ours else ours
            value = theirs.get((key.scale, row.cell.facts["method"], key.tau, known))
            if value is not None:
                measured, lo, hi = (float(frame[ours + s].iloc[i]) for s in ("", "_lo", "_hi"))
                records.append((key.scale, key.label, key.tau, ours, measured, lo, hi, value, measured - value))
    columns = ["scale", "method", "tau", "metric", "measured", "lo", "hi", "published", "difference"]
    return pd.DataFrame(records, columns=columns)


def write_tables(run: RunDir, paper: bool = False) -> str:
    """Write all tables of a run directory.

    Args:
        run: the directory.
        paper: also write the published figures beside ours.

    Returns:
        the table for the console; a sentence where nothing was measured.

    """
    rows, names = read_rows(run)
    if not rows:
        return f"Nothing has been measured in {run.path} yet."
    frame = summarise(rows, names)
    write_atomic(run.path / "table.csv", frame.to_csv(index=False))
    write_atomic(run.path / "table.tex", latex(rows, names, frame))
    note = "Means over images ± half the width of their 95% bootstrap intervals."
    write_atomic(run.path / "table.md", f"{markdown(rows, names, frame, intervals=True)}\n\n{note}\n")
    write_atomic(run.path / "differences.csv", differences(rows, names).to_csv(index=False))
    if paper:
        _write_paper(run, beside_paper(rows, names, frame))
    return markdown(rows, names, frame, intervals=False, style="simple")


def _write_paper(run: RunDir, frame: pd.DataFrame) -> None:
    write_atomic(run.path / "paper.csv", frame.to_csv(index=False))
    shown = frame.assign(tau=frame["tau"].map(lambda t: "" if t is None or np.isnan(t) else f"{t:g}"))

    def render(style: str) -> str:
        body = shown.to_numpy().tolist()
        return tabulate(body, headers=list(shown.columns), tablefmt=style, floatfmt=".4g")

    write_atomic(run.path / "paper.md", f"{render('pipe')}\n\nPublished: {PAPER}.\n")
    write_atomic(run.path / "paper.tex", "% needs \\usepackage{booktabs}\n" + render("latex_booktabs") + "\n")

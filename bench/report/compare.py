"""Two runs side by side: paired differences, image by image, of what both have measured; no model is needed.

Rows are matched by label, scale and temperature, images by their name and content, samples by the seed. `compare_runs`
gives the table, `pair_runs` what it is made of: the values of both runs by image.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from tabulate import tabulate

from bench.data import datasets
from bench.errors import BenchError, near_matches
from bench.metrics import MetricFacts, better_at, column, metric_facts
from bench.report.notes import residual_of_noise
from bench.report.stats import Estimate, holm, median_range, paired_difference, sign_flip_p
from bench.report.tables import UNDEFINED, Row, column_head, format_value, read_rows
from bench.run.cell import Cell, CellKey
from bench.run.identity import SHARED, differences
from bench.run.store import RunDir

PLACE = "path"
"""The setting of a dataset that tells where it is, and not what: the images' contents tell that."""
COLUMNS = (
    "scale", "method", "tau", "name", "metric", "better", "first", "second", "difference", "lo", "hi", "n_images",
    "lost", "p", "p_holm",
)  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """One row that two runs have in common.

    Attributes:
        first, second: the row in each.
        ids: names of the images that both have with the same content, by the order of the first run.
        unmatched: how many images only one of them has, or has with another content.
        gone: numbers of images that the first has and the second lacks, though it was asked for them: they failed.

    """

    first: Row
    second: Row
    ids: pd.DataFrame
    unmatched: int
    gone: frozenset[int] = frozenset()

    def values(self, metric: str) -> pd.DataFrame:
        """Values of a metric by image, in the units of tables.

        Returns:
            a row per image that both runs have: ``index`` (number in the first run), ``image``, ``first``, ``second``
            and ``difference`` (second minus first; NaN where either is undefined). For a metric of times, which belong
            to no image, it is empty.

        """
        if metric_facts(metric).domain == "timing":
            return pd.DataFrame(columns=["index", "image", "first", "second", "difference"])
        factor = metric_facts(metric).factor
        a = self.first.values[metric].reindex(self.ids["index"]).to_numpy(dtype=float) * factor
        b = self.second.values[metric].reindex(self.ids["index_second"]).to_numpy(dtype=float) * factor
        return self.ids[["index", "image"]].assign(first=a, second=b, difference=b - a)


@dataclass(frozen=True)
class Pairs:
    """What two runs have in common.

    Attributes:
        rows: by scale and the first run's order of methods.
        metrics: names of the metrics that both have, in the first run's order.
        notes: sentences on what only one of them has.
        gone: rows that the first has and the second lacks, though it was asked for them: they failed.

    """

    rows: list[Pair]
    metrics: list[str]
    notes: list[str]
    gone: list[str]


def pair_runs(first: RunDir, second: RunDir) -> Pairs:
    """Match the rows, metrics and images of two runs.

    Raises:
        BenchError: they cannot be compared (another dataset, operator, seed, number of samples or rounding) or have no
            row, no image or no metric in common, in one sentence.

    """
    sides = [read_rows(run) for run in (first, second)]
    for run, (rows, _) in zip((first, second), sides, strict=True):
        if not rows:
            raise BenchError(f"{run.path} has no rows to compare: run its command again.")
    (rows_a, names_a), (rows_b, names_b) = sides
    if reasons := differences(_shared(rows_a[0].cell), _shared(rows_b[0].cell)):
        raise BenchError(
            f"{first.path} and {second.path} cannot be compared: {'; '.join(reasons)}: run one of them again with the "
            "settings of the other."
        )
    others = {row.cell.key: row for row in rows_b}
    wanted = _wanted(first, second)
    pairs = [_pair(row, others[row.cell.key], wanted) for row in rows_a if row.cell.key in others]
    if not pairs:
        had, has = (", ".join(r.cell.key.folder for r in rows) for rows in (rows_a, rows_b))
        raise BenchError(
            f"{first.path} and {second.path} cannot be compared: the one has {had}, the other {has}; no method is in "
            "both at the same scale and temperature."
        )
    if not any(len(p.ids) for p in pairs):
        raise BenchError(
            f"{first.path} and {second.path} cannot be compared: no image is in both with the same content."
        )
    names = [n for n in names_a if n in names_b]
    if not names:
        raise BenchError(
            f"{first.path} and {second.path} cannot be compared: no metric is in both; python -m bench measure adds "
            "metrics to a run."
        )
    config = second.config
    gone = [r.cell.key.folder for r in rows_a if r.cell.key not in others and _asked_for(r.cell.key, config)]
    return Pairs(pairs, names, _notes(first, second, sides, pairs), gone)


def _asked_for(key: CellKey, config: Mapping[str, Any]) -> bool:
    """Whether a run should have a row."""
    asked = key.label in config["methods"] and key.scale in (config.get("scale") or ())
    return asked and (key.tau is None or key.tau in (config.get("tau") or ()))


def _shared(cell: Cell) -> dict[str, Any]:
    """What must be the same in two runs."""
    identity = cell.identity or {}
    shared = {k: identity.get(k) for k in SHARED}
    if isinstance(shared.get("dataset"), Mapping):
        shared["dataset"] = {k: v for k, v in (shared["dataset"] or {}).items() if k != PLACE}
    return shared


def _pair(a: Row, b: Row, wanted: Callable[[int, str], bool]) -> Pair:
    left, right = (r.cell.read("images")[["index", "image", "content"]] for r in (a, b))
    both = left.merge(right, on=["image", "content"], suffixes=("", "_second")).drop_duplicates("image")
    ids = both[["index", "image", "index_second"]].reset_index(drop=True)
    here = left[~left["image"].isin(right["image"])]
    gone = frozenset(int(i) for i, name in zip(here["index"], here["image"], strict=True) if wanted(int(i), name))
    return Pair(a, b, ids, len(left) + len(right) - 2 * len(ids), gone)


def _wanted(first: RunDir, second: RunDir) -> Callable[[int, str], bool]:
    """Whether the second run should have an image of the first, by its number there and its name.

    Where both are of the very same dataset its record tells which images it was asked for; of a folder elsewhere, whose
    images may be others, only those that it says have failed.
    """
    failed = {f["image"] for f in second.failures}
    one, other = (run.config.get("dataset") or {} for run in (first, second))
    if one != other:
        return lambda index, name: name in failed
    config, name = second.config, str(other.get("name"))
    start, last = config.get("images") or (0, None)
    default = datasets.facts(name).default_limit if name in datasets.names() and not config.get("images") else None
    limit = config.get("limit") or default
    chosen = range(start, min(n for n in (sys.maxsize, last, limit and start + limit) if n is not None))
    return lambda index, name: index in chosen or name in failed


def _notes(
    first: RunDir, second: RunDir, sides: Sequence[tuple[list[Row], list[str]]], pairs: Sequence[Pair]
) -> list[str]:
    notes = []
    matched = {p.first.cell.key for p in pairs}
    for run, (rows, names), other in zip((first, second), sides, reversed(sides), strict=True):
        alone = [r.cell.key.folder for r in rows if r.cell.key not in matched]
        alone += [n for n in names if n not in other[1]]
        if alone:
            notes.append(f"Only in {run.path}: {', '.join(alone)}.")
    for p in pairs:
        if p.unmatched:
            notes.append(f"{p.first.heading}: {p.unmatched} images are in one of the runs only, {len(p.ids)} in both.")
    both = [n for n in sides[0][1] if n in sides[1][1]]
    if directed := residual_of_noise([p.first for p in pairs], both):
        notes.append(directed)
    return notes


def compare_runs(first: RunDir, second: RunDir, metrics: Sequence[str] | None = None) -> pd.DataFrame:
    """Paired differences, second minus first, of every row and metric that two runs have in common.

    Args:
        first: the run that is compared with.
        second: the run that is judged.
        metrics: some of the metrics that both have; None for all.

    Returns:
        columns `COLUMNS`, in the units of tables: the metric's ``name``, its column in tables (``metric``) and the
        direction that is ``better`` at the runs' sigma, the means ``first`` and ``second`` over the images of both (of
        times: medians of repeats), the mean ``difference`` with its 95% interval ``lo``, ``hi``, the images that count,
        those that have lost the value in the second run, ``p`` of a permutation of signs and ``p_holm``, corrected for
        all comparisons. Times have no pairs: their intervals and p-values are NaN.

    Raises:
        BenchError: as `pair_runs`, or an unknown metric.

    """
    return table_of(pair_runs(first, second), metrics)


def table_of(pairs: Pairs, metrics: Sequence[str] | None = None) -> pd.DataFrame:
    """`compare_runs` of runs that are paired already."""
    names = list(pairs.metrics if metrics is None else metrics)
    for name in names:
        if name not in pairs.metrics:
            raise BenchError(f"The metric '{name}' is not in both runs.{near_matches(name, pairs.metrics)}")
    records, paired = [], []
    for pair in pairs.rows:
        for name in names:
            record, by_image = _compared(pair, name)
            records.append(record)
            paired.append(by_image)
    frame = pd.DataFrame(records, columns=[c for c in COLUMNS if c not in ("p", "p_holm")]).astype({"tau": float})
    p = sign_flip_p(pd.concat(paired, axis=1).to_numpy(dtype=float)) if paired else np.array([])
    return frame.assign(p=p, p_holm=holm(p))


def _compared(pair: Pair, name: str) -> tuple[dict[str, Any], pd.Series]:
    """One line of the table, and the differences by image."""
    key, facts = pair.first.cell.key, metric_facts(name)
    record = {"scale": key.scale, "method": key.label, "tau": key.tau, "name": name, "metric": column(name)}
    record |= {"better": better_at(name, pair.first.sigma)}
    if facts.domain == "timing":
        times = (median_range(r.values[name].to_numpy(dtype=float)) for r in (pair.first, pair.second))
        a, b = (time.mean * facts.factor for time in times)  # as tables have them
        return record | _figures(a, b, Estimate(b - a, np.nan, np.nan), 0, 0), pd.Series(dtype=float)
    values = pair.values(name).set_index("image")
    lost = int((values["first"].notna() & values["second"].isna()).sum())
    lost += int(pair.first.values[name].reindex(sorted(pair.gone)).notna().sum())
    values = values.dropna()
    estimate, n = paired_difference(values["second"].to_numpy(), values["first"].to_numpy())
    a, b = float(values["first"].mean()), float(values["second"].mean())
    return record | _figures(a, b, estimate, n, lost), values["difference"]


def _figures(first: float, second: float, estimate: Estimate, n: int, lost: int) -> dict[str, Any]:
    return {
        "first": first,
        "second": second,
        "difference": estimate.mean,
        "lo": estimate.lo,
        "hi": estimate.hi,
        "n_images": n,
        "lost": lost,
    }


def judged(frame: pd.DataFrame, tolerance: Mapping[str, float]) -> pd.DataFrame:
    """Add ``tolerance`` (NaN where a figure is not judged) and ``worse`` to what `compare_runs` returns.

    A figure is worse where its mean is worse by more than the tolerance (of a metric without a better direction: is
    another by more), or where images have lost it.

    Args:
        frame: the comparison.
        tolerance: by name of a metric or of its column, in the units of tables.

    Raises:
        BenchError: a metric that is not compared.

    """
    names = {column: name for name, column in zip(frame["name"], frame["metric"], strict=True)}
    for key in tolerance:
        if key not in names and key not in names.values():
            raise BenchError(f"tolerance.{key} is of no metric that is compared.{near_matches(key, names.values())}")
    allowed, worse = [], []
    for row in frame.to_dict("records"):
        facts = metric_facts(row["name"])
        given = tolerance.get(row["name"], tolerance.get(row["metric"]))
        judged_alone = facts.domain != "timing" and row["better"] != "neither"
        limit = given if given is not None else last_digit(facts) if judged_alone else np.nan
        allowed.append(limit)
        change = row["difference"]
        loss = {"higher": -change, "lower": change, "neither": abs(change)}[row["better"]]
        worse.append(row["lost"] > 0 or loss > limit)
    return frame.assign(tolerance=allowed, worse=worse)


def last_digit(facts: MetricFacts) -> float:
    """One unit of the last digit that tables print of a metric; 0 where they print all."""
    found = re.fullmatch(r"\.(\d+)f", facts.digits)
    return 10.0 ** -int(found[1]) if found else 0.0


def comparison_text(frame: pd.DataFrame) -> str:
    """The table for the console: `judged` differences with their intervals."""
    lines = []
    for row in frame.to_dict("records"):
        facts = metric_facts(row["name"])
        interval = "" if np.isnan(row["lo"]) else f" [{row['lo']:+{facts.digits}}, {row['hi']:+{facts.digits}}]"
        difference = UNDEFINED if np.isnan(row["difference"]) else f"{row['difference']:+{facts.digits}}{interval}"
        lines.append(
            [
                f"x{row['scale']}",
                row["method"],
                "" if np.isnan(row["tau"]) else f"{row['tau']:g}",
                column_head(row["name"], {row["name"]: row["better"]}),
                format_value(row["first"], facts),
                format_value(row["second"], facts),
                difference,
                "" if np.isnan(row["p_holm"]) else f"{row['p_holm']:.3f}",
                "" if np.isnan(row["tolerance"]) else f"{row['tolerance']:g}",
                f"worse ({row['lost']} images have lost it)" if row["lost"] else "worse" if row["worse"] else "",
            ]
        )
    heads = ["scale", "method", "tau", "metric", "first", "second", "second - first", "p (Holm)", "tolerance", ""]
    return tabulate(lines, headers=heads, tablefmt="simple", disable_numparse=True)


def worse_text(frame: pd.DataFrame, gone: Sequence[str] = ()) -> str:
    """One sentence that names what is worse in a `judged` comparison, or `gone` (`Pairs`); "" for nothing."""
    missing = f"Asked for, and not in the second run: {', '.join(gone)}." if gone else ""
    found = []
    for row in frame[frame["worse"]].to_dict("records"):
        key = CellKey(row["method"], row["scale"], None if np.isnan(row["tau"]) else row["tau"])
        found.append(f"{row['name']} of {key.folder}")
    if not found:
        return missing
    what = "1 figure is worse than its" if len(found) == 1 else f"{len(found)} figures are worse than their"
    return f"{what} tolerance: {', '.join(found)}. {missing}".strip()

"""What stands below a table: what its means leave out and why, and what cannot be right."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from bench.metrics import PSNR_FLOOR, MetricFacts, better_at, column, metric_facts, right_residual, too_small
from bench.metrics.statistic import FEW
from bench.run.cell import FAILED

if TYPE_CHECKING:
    from bench.report.tables import Row

IMPOSSIBLE = "†"
"""What marks a row or a figure that cannot be right."""
SLACK = 1e-3
"""Relative: float32, and the PSNR's floor."""
ROUNDING = (
    "LR-PSNR is of samples rounded to 8 bits, which limits it to about 72.0 dB at x4 and 76.3 dB at x8 on average."
)
HIDES_ROUNDING = 0.003
"""Noise from which on rounding moves LR-PSNR by less than 0.05 dB."""
INTERVAL = re.compile(r"[\[(](-?[\d.]+|-inf), (-?[\d.]+|inf)[\])]|>=? (?P<least>-?[\d.]+)")
"""How a range begins: "[0, 1]" or ">= 0"."""


def bounds(facts: MetricFacts) -> tuple[float, float]:
    """What no value of a metric can leave: its declared bounds, or the interval that its range begins with."""
    if facts.bounds is not None:
        low, high = facts.bounds
        return -float("inf") if low is None else low, float("inf") if high is None else high
    found = INTERVAL.match(facts.range) if facts.needs_range else None
    if not found:
        return -float("inf"), float("inf")
    return (float(found["least"]), float("inf")) if found["least"] else (float(found[1]), float(found[2]))


def largest_apd_ratio(n: int) -> float:
    """Mean square distance between n points over their mean square distance to any other point, at most.

    The mean over pairs of |x_i - x_j|^2 is 2n/(n-1) times the variance about the mean, which is at most the mean of
    |x_i - x|^2 for any x.
    """
    return 2 * n / (n - 1)


def impossible(row: Row) -> list[str]:
    """Sentences that say what of a row cannot be right, whatever the method does."""
    return [*_beyond_bounds(row), *_too_diverse(row)]


def _beyond_bounds(row: Row) -> Iterator[str]:
    for name, values in row.values.items():
        facts = metric_facts(name)
        low, high = bounds(facts)
        slack = SLACK * max(abs(b) for b in (low, high, 1.0) if abs(b) != float("inf"))
        outside = values[(values < low - slack) | (values > high + slack)]
        if len(outside):
            yield (
                f"{row.heading}: {name} of {_images(len(outside))} is outside of {facts.range.partition(';')[0]}, "
                f"the worst {max(outside, key=lambda v: max(low - v, v - high)):g}."
            )


def _too_diverse(row: Row) -> Iterator[str]:
    if "apd_mse" not in row.values or row.n_samples < 2:
        return
    apd, mse = row.values["apd_mse"].align(row.mse, join="inner")
    limit = largest_apd_ratio(row.n_samples)
    beyond = apd > limit * mse * (1 + SLACK) + PSNR_FLOOR
    if beyond.any():
        yield (
            f"{row.heading}: the APD MSE of {_images(int(beyond.sum()))} is more than 2n/(n-1) = {limit:.4g} times the "
            f"mean square error of the same {row.n_samples} samples (up to {(apd / mse)[beyond].max():.4g} times), "
            "which no samples can have."
        )


def missing_values(
    samples: pd.DataFrame, values: Mapping[str, pd.Series], size: int | None
) -> dict[str, dict[str, str]]:
    """Find what the mean of each metric leaves out.

    Args:
        samples: rows per sample of a cell.
        values: by metric, the values by image that its mean is over.
        size: side of the images, where it is known.

    Returns:
        metric to {reason: "2 of 40 images"}; metrics that lack nothing are not in it.

    """
    computed = {i: set(str(m).split()) for i, m in samples.drop_duplicates("index")[["index", "metrics"]].to_numpy()}
    found: dict[str, dict[str, str]] = {}
    for name, of_images in values.items():
        if metric_facts(name).domain == "timing":
            if of_images.isna().all():
                found[name] = {"not measured": "the time"}
            continue
        reasons = [_reason(name, computed.get(i, set()), size) for i in of_images.index[of_images.isna()]]
        texts = {r: f"{reasons.count(r)} of {_images(len(of_images))}" for r in dict.fromkeys(reasons)}
        if name in samples:
            there = samples[samples["index"].isin(of_images.index[of_images.notna()])]
            if lost := int(there[name].isna().sum()):
                texts["undefined for single samples"] = f"{lost} of {len(there)} samples"
        if texts:
            found[name] = texts
    return found


def _reason(name: str, computed: set[str], size: int | None) -> str:
    if name + FAILED in computed:
        return "failed, see failures.jsonl"
    if name in computed:
        return "undefined"
    if size is not None and too_small(name, size):
        return f"n/a below {metric_facts(name).least_size} pixels"
    return "not computed"


def left_out(rows: Sequence[Row], names: Sequence[str]) -> str:
    """Say what means leave out and why, "" where they leave out nothing of the images that some row of a scale has."""
    where: dict[str, list[str]] = {}
    for name in names:
        for row in rows:
            for reason, what in row.missing.get(name, {}).items():
                where.setdefault(f"{column(name)} of {what} ({reason})", []).append(row.heading)
    for row in rows:
        every = set().union(*(r.mse.index for r in rows if r.cell.key.scale == row.cell.key.scale))
        if lacking := len(every - set(row.mse.index)):
            text = f"{lacking} of {_images(len(every))} (no rows: see failures.jsonl, or not run yet)"
            where.setdefault(text, []).append(row.heading)
    texts = [f"{what}: {'all rows' if len(of) == len(rows) else '; '.join(of)}" for what, of in where.items()]
    return f"Left out of means: {'. '.join(texts)}." if texts else ""


def images_of(config: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """Name the dataset and the split, and the images of the APD where they are fewer."""
    dataset = config.get("dataset", {})
    text = ""
    if "name" in dataset:
        text = f"Images: {dataset['name']}" + (f", split {dataset['split']}" if "split" in dataset else "") + "."
    apd = config.get("apd_images")
    return f"{text} APD: the first {apd} of them.".strip() if apd and any(r.n_images > apd for r in rows) else text


def times_apart(rows: Sequence[Row], names: Sequence[str]) -> str:
    """Say which times of one scale were not measured in turns with the others, "" where all were."""
    if not any(metric_facts(n).domain == "timing" for n in names):
        return ""
    apart = []
    for scale in dict.fromkeys(row.cell.key.scale for row in rows):
        groups: dict[tuple[str, ...], list[str]] = {}
        for row in rows:
            timing = row.cell.timing if row.cell.key.scale == scale else None
            if timing is not None:
                together = timing.get("together") or [row.cell.key.folder]
                groups.setdefault(tuple(together), []).append(row.heading)
        if len(groups) > 1:
            apart.append("; ".join(", ".join(headings) for headings in groups.values()))
    return f"Times were measured apart, not in turns, of: {'. '.join(apart)}." if apart else ""


def residual_of_noise(rows: Sequence[Row], names: Sequence[str]) -> str:
    """Say what the PSNR of y - A x should be where y has noise; "" without noise or such a metric."""
    sigmas = sorted({row.sigma for row in rows if row.sigma})
    labels = [metric_facts(n).label for n in names if sigmas and better_at(n, sigmas[-1]) != metric_facts(n).better]
    if not labels:
        return ""
    values = ", ".join(f"{right_residual(s):.2f} dB at sigma {s:g}" for s in sigmas)
    return (
        f"{' and '.join(labels)}: no better direction where y has noise. A sample of the posterior is as far from y as "
        f"the noise is, -20 log10(sigma): {values}; more is fitted to the noise (statistic lr_residual)."
    )


def few_images(rows: Sequence[Row]) -> str:
    """Say that intervals are too narrow where a row has few images, "" where none has."""
    counts = [
        int(values.notna().sum())
        for row in rows
        for name, values in row.values.items()
        if metric_facts(name).domain != "timing"
    ]
    if not any(1 < count < FEW for count in counts):
        return ""
    return f"Intervals of fewer than {FEW} images are too narrow: of 5 they hold the mean in 8 to 9 of 10 cases."


def below_table(rows: Sequence[Row], names: Sequence[str], config: Mapping[str, Any]) -> list[str]:
    """Sentences below a table: its images, what its means leave out, and what cannot be right."""
    exact = any(r.operator == "bicubic" and r.sigma < HIDES_ROUNDING for r in rows)
    limited = "lr_psnr" in names and config.get("quantise", True) and exact
    rounding, apart = ROUNDING if limited else "", times_apart(rows, names)
    wrong = [f"{IMPOSSIBLE} {text}" for row in rows for text in impossible(row)]
    return [
        text
        for text in (
            images_of(config, rows),
            rounding,
            residual_of_noise(rows, names),
            left_out(rows, names),
            few_images(rows),
            apart,
            *wrong,
        )
        if text
    ]


def _images(count: int) -> str:
    return f"{count} image{'' if count == 1 else 's'}"

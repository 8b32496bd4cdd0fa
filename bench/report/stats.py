"""Means over images with bootstrap intervals, and comparisons of methods image by image.

Sources: Efron 1987 (BCa, by scipy), Holm 1979, Good 2005 (permutation of signs).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.stats import DegenerateDataWarning, bootstrap

from bench.metrics.statistic import FEW

RESAMPLES = 2000
LEVEL = 0.95
FLIPS = 50_000
"""Random patterns of signs, so that the smallest p-value survives Holm's correction over 2500 comparisons."""
ENUMERATED = 15
"""Up to so many images all 2^N patterns of signs are tried."""
CHUNK = 4096
"""Patterns of signs at a time, for the memory's sake."""
TIE = 1e-12
"""Relative to the largest possible sum: sums that differ by less are equal."""


@dataclass(frozen=True)
class Estimate:
    """A mean with the bounds of its 95% interval (NaN for fewer than two values), or a median and a range."""

    mean: float
    lo: float
    hi: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval is known and does not contain 0."""
        return self.lo > 0 or self.hi < 0


def mean_interval(values: np.ndarray) -> Estimate:
    """Mean of [N] with its BCa bootstrap interval (bias-corrected and accelerated); NaN values are left out.

    The resampling is seeded, so that the same values always give the same bounds. Where the correction is not defined
    (all resampled means on one side of the mean) the bounds are those of the percentile bootstrap.
    """
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return Estimate(np.nan, np.nan, np.nan)
    mean = float(values.mean())
    if len(values) == 1:
        return Estimate(mean, np.nan, np.nan)
    if np.ptp(values) == 0:
        return Estimate(mean, mean, mean)
    return Estimate(mean, *_interval(values.astype(np.float64).tobytes()))


@lru_cache(maxsize=4096)
def _interval(values: bytes) -> tuple[float, float]:
    """Bounds of the mean of float64 values; kept, since tables, plots and the report ask for the same ones."""
    array = np.frombuffer(values)
    low, high = _bounds(array, "BCa")
    return (low, high) if np.isfinite([low, high]).all() else _bounds(array, "percentile")


def median_range(values: np.ndarray) -> Estimate:
    """Median of [N] with the least and the most, for repeats that are not independent; NaN values are left out."""
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return Estimate(np.nan, np.nan, np.nan)
    return Estimate(float(np.median(values)), float(values.min()), float(values.max()))


def _bounds(values: np.ndarray, method: str) -> tuple[float, float]:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", DegenerateDataWarning)
        interval = bootstrap(
            (values,), np.mean, n_resamples=RESAMPLES, confidence_level=LEVEL, method=method,
            rng=np.random.default_rng(0),
        ).confidence_interval  # fmt: skip
    return float(interval.low), float(interval.high)


def paired_difference(a: np.ndarray, b: np.ndarray) -> tuple[Estimate, int]:
    """Mean of a - b over the images that have both values, with its interval, and their number.

    Args:
        a: [N] one value per image.
        b: [N] values of the same images in the same order.

    """
    difference = a - b
    return mean_interval(difference), int((~np.isnan(difference)).sum())


def told_apart(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether the interval of the mean of a - b [N] leaves out 0, and of fewer than `FEW` images the signs agree, too.

    Intervals of few images are too narrow: of normal differences around 0, 30% of sets of 3, 15% of 5 and 10% of 10
    leave out 0.
    """
    estimate, count = paired_difference(a, b)
    if count < FEW and estimate.excludes_zero:
        return bool(sign_flip_p((a - b)[:, None])[0] < 1 - LEVEL)
    return estimate.excludes_zero


def sign_flip_p(differences: np.ndarray) -> np.ndarray:
    """Two-sided p-values of the hypothesis that differences are symmetric around 0, by permutation of their signs.

    All patterns of signs are tried for up to `ENUMERATED` images, else `FLIPS` random ones beside the one that was
    seen (Phipson & Smyth 2010: no p-value is 0); seeded.

    Args:
        differences: [N, K], one column per comparison; NaN values are left out.

    Returns:
        [K], NaN where a comparison has no values.

    """
    known = ~np.isnan(differences)
    d = np.where(known, differences, 0.0)
    seen, slack = np.abs(d.sum(0)), TIE * np.abs(d).sum(0)
    n = len(d)
    total = 2**n if n <= ENUMERATED else FLIPS
    rng = np.random.default_rng(0)
    reached = np.zeros(d.shape[1])
    for first in range(0, total, CHUNK):
        size = min(CHUNK, total - first)
        if n <= ENUMERATED:
            bits = np.arange(first, first + size)[:, None] >> np.arange(n) & 1
        else:
            bits = rng.integers(0, 2, (size, n), dtype=np.int8)
        reached += (np.abs((2.0 * bits - 1) @ d) >= seen - slack).sum(0)
    p = reached / total if n <= ENUMERATED else (reached + 1) / (total + 1)
    return np.where(known.any(0), p, np.nan)


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's correction of p-values [K] for their number; NaN stays and does not count."""
    adjusted = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted

"""Means over images with bootstrap intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean with the bounds of its 95% interval (NaN where there are fewer than two values)."""

    mean: float
    lo: float
    hi: float


def mean_interval(values: np.ndarray) -> Estimate:
    """Mean of [N] with the percentile bootstrap interval; NaN values are left out.

    The resampling is seeded, so that the same values always give the same bounds.
    """
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return Estimate(np.nan, np.nan, np.nan)
    mean = float(values.mean())
    if len(values) == 1:
        return Estimate(mean, np.nan, np.nan)
    if np.ptp(values) == 0:
        return Estimate(mean, mean, mean)
    interval = bootstrap(
        (values,), np.mean, n_resamples=RESAMPLES, confidence_level=LEVEL, method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return Estimate(mean, float(interval.low), float(interval.high))


def paired_difference(a: np.ndarray, b: np.ndarray) -> tuple[Estimate, int]:
    """Mean of a - b over the images that have both values, with its interval, and their number.

    Args:
        a: [N] one value per image.
        b: [N] values of the same images in the same order.

    """
    difference = a - b
    return mean_interval(difference), int((~np.isnan(difference)).sum())

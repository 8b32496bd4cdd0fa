"""Statistics whose right value is known: their contract and registry. docs/truth.md explains them.

Add one in a file of this package (or through the entry point group ``bench.statistics``)::

    @register_statistic("mine")
    class Mine(MeanStatistic, SampleStatistic):
        facts = StatisticFacts(label="Mine", source="...")

        def __call__(self, e: Evaluation) -> Tensor: ...              # [B, K]: kept for each image
        def aggregate(self, means: np.ndarray, c: Conditions) -> np.ndarray: ...    # [..., K] -> [...]
        def right(self, means: np.ndarray, c: Conditions) -> np.ndarray | float: ...

Most are a function of the mean over images of K figures per image (`MeanStatistic`), so that they need not be a mean
themselves; the others write `estimate`. The figures are those of `SampleStatistic`, or metrics that the facts name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from scipy.stats import t as student

from bench.errors import BenchError
from bench.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from bench.metrics import Evaluation

RESAMPLES = 2000
LEVEL = 0.95
FEW = 20
"""Images from which on quantiles of the bootstrap are wide enough: of five statistics of an exact sampler they would
rule out some in 27% of sets of 5 images, in 13% of sets of 10, in 7% of 20 and in 5% of 40."""
NEAR = 1e-6
"""What float32 samples may be off the right value without a distance."""


@dataclass(frozen=True)
class StatisticFacts:
    """What a statistic declares.

    Attributes:
        label: name in tables.
        unit: unit of the value, "" for none.
        digits: format of the value in tables.
        source: definition.
        needs: what it is defined for: "random" methods only, images whose "posterior" is known, or anything.
        metrics: names of two metrics, of a distance to the truth and of the same between pairs of samples, whose means
            over each image's samples and pairs are its figures; empty where it computes its own.
        bound: whether its range for a perfect sampler is [0, bound] (`Estimate`).
        score: whether less is better even where the right value is not known (proper scores).

    """

    label: str
    source: str
    unit: str = ""
    digits: str = ".2f"
    needs: Literal["anything", "random", "posterior"] = "anything"
    metrics: tuple[str, ...] = ()
    bound: bool = False
    score: bool = False


@dataclass(frozen=True)
class Conditions:
    """What a right value depends on.

    Attributes:
        n: samples per image; a deterministic method stands for as many equal ones.
        sigma: standard deviation of the observation's noise.
        deterministic: whether all samples of an image are equal by design.

    """

    n: int
    sigma: float = 0.0
    deterministic: bool = False


@dataclass(frozen=True)
class Estimate:
    """A statistic of a set of images.

    Attributes:
        value: the statistic; NaN where it is not defined.
        lo, hi: its 95% bootstrap interval over images; for a statistic with a bound, 0 and the value that a perfect
            sampler exceeds in 5% of cases.
        right: what it is for a perfect sampler; NaN where there is no such value.
        distance: value minus right in half-widths of the interval, on the side of `right`, or value / bound. Beyond -1
            or 1 the right value is ruled out at the level of 95%, were this the only statistic.
        p: probability that a perfect sampler is as far from the right value, two-sided but for a bound; NaN where
            nothing is known of it.
        p_joint: p corrected for all statistics that are looked at together, by whoever looks.
        n_images: images that have its figures, as far as whoever looks has counted them.

    """

    value: float
    lo: float = nan
    hi: float = nan
    right: float = nan
    distance: float = nan
    p: float = nan
    p_joint: float = nan
    n_images: int = 0


class Statistic(ABC):
    """What figures of each image's samples say about a sampler."""

    facts: ClassVar[StatisticFacts]
    name: ClassVar[str]

    @abstractmethod
    def estimate(self, values: np.ndarray, c: Conditions) -> Estimate:
        """Return the statistic of figures [N, K] of N images; images without figures (NaN) are left out."""


class SampleStatistic(Statistic):
    """Figures that are computed from samples."""

    @abstractmethod
    def __call__(self, e: Evaluation) -> Tensor:
        """Return [B, K] figures of each image, NaN where they are not defined."""


class MeanStatistic(Statistic):
    """A function of the means of the figures over images."""

    @abstractmethod
    def aggregate(self, means: np.ndarray, c: Conditions) -> np.ndarray:
        """Return the statistic [...] from means over images [..., K]."""

    def right(self, means: np.ndarray, c: Conditions) -> np.ndarray | float:
        """Return its value for a perfect sampler, [...] or one for all; NaN where there is none."""
        return nan

    def estimate(self, values: np.ndarray, c: Conditions) -> Estimate:
        """Aggregate figures [N, K] of N images, with the interval; images with a NaN in all are left out.

        Of fewer than `FEW` images interval and p are those of Student's t with the bootstrap's standard error.
        """
        values = values[~np.isnan(values).all(1)]
        if not len(values):
            return Estimate(nan)
        means = values.mean(0)
        value = float(self.aggregate(means, c))
        right = float(self.right(means, c))
        if len(values) < 2 or np.isnan(value):
            return Estimate(value, right=right)
        resampled = weights(len(values)) @ values
        found = self.aggregate(resampled, c)
        # a right value that is estimated from the same images varies with the value: what counts is the difference
        differences = found - self.right(resampled, c)
        difference = value - right
        lo, hi = _interval(value, found, len(values))
        low, high = _interval(difference, differences, len(values))
        width = difference - low if difference > 0 else high - difference
        near = abs(difference) < NEAR * max(1, abs(right))
        with np.errstate(divide="ignore"):  # an interval without width: infinite
            distance = 0.0 if near else float(np.divide(difference, max(width, 0.0)))
        p = nan if np.isnan(difference) else 1.0 if near else _p_value(difference, differences, len(values))
        return Estimate(value, lo, hi, right, distance, p)


def _interval(value: float, resampled: np.ndarray, count: int) -> tuple[float, float]:
    """Bounds of the 95% interval of a value of `count` images."""
    if count < FEW:
        half = float(student.ppf((1 + LEVEL) / 2, count - 1)) * _standard_error(resampled, count)
        return value - half, value + half
    lo, hi = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(lo), float(hi)


def _p_value(difference: float, resampled: np.ndarray, count: int) -> float:
    """Two-sided p-value of a difference of 0."""
    least = 2 / (len(resampled) + 1)
    if count < FEW:
        with np.errstate(divide="ignore"):
            t = np.divide(abs(difference), _standard_error(resampled, count))
        return float(max(2 * student.sf(t, count - 1), least))
    beyond = min((resampled <= 0).sum(), (resampled >= 0).sum())
    return float(min(1.0, least * (beyond + 1)))


def _standard_error(resampled: np.ndarray, count: int) -> float:
    """From resamplings, whose variance is that of `count` images over `count` instead of `count - 1`."""
    return float(resampled.std()) * (count / (count - 1)) ** 0.5


def weights(count: int) -> np.ndarray:
    """What each of `count` images counts in each of `RESAMPLES` resamplings, [R, N] with rows of sum 1; seeded."""
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    found: np.ndarray = drawn / count
    return found


statistics: Registry[Statistic] = Registry(
    "statistic", package="bench.metrics", group="bench.statistics", facts=StatisticFacts
)
register_statistic = statistics.register


def load_statistics(posterior: bool) -> dict[str, SampleStatistic]:
    """Those that are computed from samples, by name; with `posterior` also those that need the posterior."""
    found: dict[str, SampleStatistic] = {}
    for name in statistics.names():
        facts: StatisticFacts = statistics.facts(name)
        if not facts.metrics and (posterior or facts.needs != "posterior"):
            statistic = statistics.get(name)()
            if not isinstance(statistic, SampleStatistic):
                raise BenchError(f"The statistic '{name}' names no metrics: derive it from SampleStatistic.")
            found[name] = statistic
    return found

import numpy as np
import pytest
from scipy.stats import norm

from bench.report.stats import mean_interval, paired_difference


def test_interval_of_normal_data_is_the_textbook_one() -> None:
    x = np.random.default_rng(0).normal(5, 2, 400)
    e = mean_interval(x)
    half = norm.ppf(0.975) * x.std(ddof=1) / 20
    assert e.mean == x.mean()
    assert e.hi - e.lo == pytest.approx(2 * half, rel=0.1)


def test_coverage_is_near_95_percent() -> None:
    rng = np.random.default_rng(1)
    hits = [(e := mean_interval(rng.exponential(1, 60))).lo <= 1 <= e.hi for _ in range(200)]
    assert 0.88 <= np.mean(hits) <= 0.99


def test_same_values_same_bounds() -> None:
    x = np.random.default_rng(2).normal(size=50)
    assert mean_interval(x) == mean_interval(x.copy())


def test_missing_and_few_values() -> None:
    assert mean_interval(np.array([1.0, np.nan, 3.0])).mean == 2
    assert np.isnan(mean_interval(np.array([np.nan])).mean)
    assert np.isnan(mean_interval(np.array([2.0])).lo)
    assert mean_interval(np.array([2.0, 2.0])).lo == 2


def test_paired_difference_is_sharper_than_unpaired() -> None:
    rng = np.random.default_rng(3)
    difficulty = rng.normal(0, 5, 100)
    a, b = difficulty + rng.normal(1, 0.1, 100), difficulty + rng.normal(0, 0.1, 100)
    e, n = paired_difference(a, b)
    assert n == 100
    assert 0.9 < e.lo < e.hi < 1.1

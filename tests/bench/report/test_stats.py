import numpy as np
import pytest
from scipy.stats import norm, ttest_1samp

from bench.report.stats import holm, mean_interval, paired_difference, sign_flip_p


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


def test_the_interval_of_skewed_data_is_bca() -> None:
    """Against Efron's formulas, written out."""
    x = np.random.default_rng(4).lognormal(0, 1, 40)
    e = mean_interval(x)
    means = np.random.default_rng(5).choice(x, (200_000, 40)).mean(1)
    left_out = (x.sum() - x) / 39
    u = left_out.mean() - left_out
    acceleration = (u**3).sum() / (6 * (u**2).sum() ** 1.5)
    bias = norm.ppf((means < x.mean()).mean())
    z = bias + norm.ppf([0.025, 0.975])
    expected = np.quantile(means, norm.cdf(bias + z / (1 - acceleration * z)))
    assert [e.lo, e.hi] == pytest.approx(expected, rel=0.03)
    assert e.hi - e.mean > 1.3 * (e.mean - e.lo)


@pytest.mark.parametrize("x", [[1.0, 2.0], [0.0, 0.0, 0.0, 1.0], [0.0] * 99 + [1.0], [1.0, 1.0, 1.0 + 1e-15]])
def test_bounds_of_degenerate_data_are_finite_and_contain_the_mean(x: list[float]) -> None:
    e = mean_interval(np.array(x))
    assert e.lo <= e.mean <= e.hi


def test_sign_flips_of_few_images_are_exact() -> None:
    d = np.array([[1.0, 1.0, np.nan], [2.0, -2.0, np.nan], [4.0, 4.0, np.nan]])
    assert sign_flip_p(d)[:2].tolist() == [2 / 8, 6 / 8]  # sums of 1, 2 and 4 are 7, 5, 3, 1 and their negatives
    assert np.isnan(sign_flip_p(d)[2])
    assert sign_flip_p(np.zeros((4, 1))).tolist() == [1.0]


def test_sign_flips_of_many_images_agree_with_the_t_test() -> None:
    rng = np.random.default_rng(6)
    d = rng.normal([0.0, 0.15, 0.3, 3.0], 1, (120, 4))
    d[100:, 1] = np.nan
    p = sign_flip_p(d)
    assert p[:3] == pytest.approx(ttest_1samp(d, 0, nan_policy="omit").pvalue[:3], abs=0.01)
    assert p[3] == 1 / 50_001
    assert (sign_flip_p(d) == p).all()


def test_p_values_are_uniform_under_the_hypothesis() -> None:
    p = sign_flip_p(np.random.default_rng(7).normal(size=(30, 400)))
    assert 0.03 <= (p <= 0.05).mean() <= 0.08


def test_holm() -> None:
    assert holm(np.array([0.01, 0.04, np.nan, 0.03, 0.005])) == pytest.approx(
        [0.03, 0.06, np.nan, 0.06, 0.02], nan_ok=True
    )  # 4 * 0.005, 3 * 0.01, 2 * 0.03, and no less than that
    assert holm(np.array([0.6, 0.7])).tolist() == [1.0, 1.0]

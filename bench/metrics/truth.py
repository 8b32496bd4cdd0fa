"""The statistics of truth.csv: each has a value that a perfect sampler of the posterior attains (docs/truth.md)."""

from __future__ import annotations

import math
from collections import OrderedDict
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from bench.metrics import calibration
from bench.metrics.statistic import (
    LEVEL,
    Conditions,
    Estimate,
    MeanStatistic,
    SampleStatistic,
    StatisticFacts,
    register_statistic,
)

if TYPE_CHECKING:
    from torch import Tensor

    from bench.metrics import Evaluation
    from bench.posterior import Posterior

SIMULATIONS = 500
"""Of a perfect sampler, for the bound of rank errors."""
PERMUTATIONS = 100
FOLDS = 5
ORACLE_SEED = 18
"""Of the oracle's sets, which no method sees."""
KEPT = 256
"""Observations whose posterior is kept for the next method."""


def _gram(e: Evaluation) -> Tensor:
    found: Tensor = e.shared("gram", lambda: calibration.gram(e.samples, e.hr))
    return found


def _pairs(e: Evaluation, values: Tensor) -> Tensor:
    """Mean over pairs; 0 for a deterministic method."""
    return values.new_zeros(len(values)) if e.deterministic else calibration.mean_of_pairs(values)


def _levels(e: Evaluation) -> float:
    """8-bit levels per unit of intensity."""
    return 255 / (e.operator.range[1] - e.operator.range[0]) if e.operator.range else 255.0


def _undefined(e: Evaluation) -> Tensor:
    return e.hr.new_full((len(e.hr), 1), float("nan"))


class _Known(NamedTuple):
    """What is known of one image's posterior, whatever the method: it is the costly part of these statistics.

    Attributes:
        mean: E[x | y], float64 [3, H, W].
        variance: mean over intensities of Var[x | y].
        along: mean of the variances along `calibration.null_directions`.
        sets: two independent sets of exact samples, float32 [2, n, 3, H, W].

    """

    mean: Tensor
    variance: Tensor
    along: Tensor
    sets: Tensor


_kept: WeakKeyDictionary[Posterior, OrderedDict[tuple[int, bytes], _Known]] = WeakKeyDictionary()


def _compute_known(e: Evaluation, y: Tensor) -> _Known:
    """For one observation [3, h, w]."""
    from bench.contract import Noise

    assert e.posterior is not None
    given = e.posterior.given(y)
    both = e.posterior.sample(y[None], Noise.of_content(y[None], 2 * e.set_size, ORACLE_SEED))[0].float()
    directions = calibration.null_directions(e.operator).double()
    return _Known(
        given.mean, given.variance.mean(), given.variance_along(directions).mean(), both.unflatten(0, (2, -1))
    )


def _known(e: Evaluation) -> list[_Known]:
    """By image; of the last `KEPT` observations of a posterior, so that the methods of a run share them."""
    assert e.posterior is not None
    kept = _kept.setdefault(e.posterior, OrderedDict())
    found = []
    for y in e.y:
        key = (e.set_size, y.cpu().numpy().tobytes())
        found.append(kept.pop(key) if key in kept else _compute_known(e, y))
        kept[key] = found[-1]
        if len(kept) > KEPT:
            kept.popitem(last=False)
    return found


def _oracle(e: Evaluation) -> tuple[Tensor, Tensor]:
    """Two independent sets of exact samples [B, n, 3, H, W], the same for all methods."""
    import torch

    one, other = torch.stack([k.sets for k in _known(e)], 1)
    return one, other


def _posterior_mean(e: Evaluation) -> Tensor:
    """[B, 3, H, W], float64."""
    import torch

    return torch.stack([k.mean for k in _known(e)])


class _ApdRatio(MeanStatistic):
    """Distance between two samples over that of a sample to the truth, a ratio of means over images."""

    def aggregate(self, means: np.ndarray, c: Conditions) -> np.ndarray:
        """Figures: distance to the truth, between samples."""
        ratio: np.ndarray = means[..., 1] / means[..., 0]
        return ratio

    def right(self, means: np.ndarray, c: Conditions) -> float:
        """The truth is one more sample."""
        return 1.0


@register_statistic("apd_ratio_mse")
class ApdRatioMse(_ApdRatio, SampleStatistic):
    """Average pairwise distance over distortion."""

    facts = StatisticFacts(label="APD / error, MSE", source="E d(x_i, x_j) / E d(x_i, x)", digits=".3f")

    def __call__(self, e: Evaluation) -> Tensor:
        """[B, 2]."""
        import torch

        g = _gram(e)
        return torch.stack([calibration.mse(g).mean(1), _pairs(e, calibration.pair_mse(g))], 1)


@register_statistic("apd_ratio_lpips_alex")
class ApdRatioLpipsAlex(_ApdRatio):
    """The same for LPIPS (AlexNet), from the metrics of the run."""

    facts = StatisticFacts(
        label="APD / error, LPIPS", source="as for MSE", digits=".3f", metrics=("lpips_alex", "apd_lpips_alex")
    )


@register_statistic("apd_ratio_lpips_vgg")
class ApdRatioLpipsVgg(_ApdRatio):
    """The same for LPIPS (VGG), from the metrics of the run."""

    facts = StatisticFacts(
        label="APD / error, LPIPS (VGG)", source="as for MSE", digits=".3f", metrics=("lpips_vgg", "apd_lpips_vgg")
    )


@register_statistic("apd_ratio_stlpips_alex")
class ApdRatioStlpipsAlex(_ApdRatio):
    """The same for shift-tolerant LPIPS (AlexNet), from the metrics of the run."""

    facts = StatisticFacts(
        label="APD / error, ST-LPIPS", source="as for MSE", digits=".3f",
        metrics=("stlpips_alex", "apd_stlpips_alex"),
    )  # fmt: skip


@register_statistic("sample_mean_gain")
class SampleMeanGain(MeanStatistic, SampleStatistic):
    """What is gained in mean square error by averaging the samples."""

    facts = StatisticFacts(
        label="Gain of the mean", unit="dB", source="10 log10 of MSE of a sample over MSE of the mean of n samples"
    )

    def __call__(self, e: Evaluation) -> Tensor:
        """[B, 2]: mean square errors of a sample and of the mean."""
        import torch

        g = _gram(e)
        return torch.stack([calibration.mse(g).mean(1), calibration.mse_of_mean(g)], 1)

    def aggregate(self, means: np.ndarray, c: Conditions) -> np.ndarray:
        """In dB."""
        gain: np.ndarray = 10 * np.log10(means[..., 0] / means[..., 1])
        return gain

    def right(self, means: np.ndarray, c: Conditions) -> float:
        """The mean has (1 + 1/n) times the least error, a sample twice."""
        return float(10 * np.log10(2 * c.n / (c.n + 1)))


RESIDUAL_FLOOR = 1e-10
"""Added to a mean square residual, so that one of 0 has a finite figure."""


@register_statistic("lr_residual")
class LrResidual(MeanStatistic, SampleStatistic):
    """Mean square residual in dB, over all samples and images."""

    facts = StatisticFacts(label="LR residual", unit="dB", source="-10 log10 E|y - A x_i|^2 / m")

    def __call__(self, e: Evaluation) -> Tensor:
        """[B, 2]: mean square residual, and the share of y that is observed."""
        import torch

        residual = calibration.lr_residual(e.samples, e.y, e.operator)
        observed = e.operator.masked(torch.ones_like(e.y)).double().mean((1, 2, 3))
        return torch.stack([residual, observed], 1)

    def aggregate(self, means: np.ndarray, c: Conditions) -> np.ndarray:
        """In dB, 100 dB at most."""
        db: np.ndarray = -10 * np.log10(means[..., 0] / means[..., 1] + RESIDUAL_FLOOR)
        return db

    def right(self, means: np.ndarray, c: Conditions) -> float:
        """A sample is as far from y as the truth is: by the noise; none without noise."""
        return float(-10 * np.log10(c.sigma**2 + RESIDUAL_FLOOR)) if c.sigma else float("nan")


class _Score(MeanStatistic, SampleStatistic):
    """A proper score: smallest for the posterior; beside it the oracle's, where the posterior is known."""

    def aggregate(self, means: np.ndarray, c: Conditions) -> np.ndarray:
        """The mean."""
        mean: np.ndarray = means[..., 0]
        return mean

    def right(self, means: np.ndarray, c: Conditions) -> np.ndarray:
        """The oracle's on the same images."""
        oracle: np.ndarray = means[..., 1]
        return oracle


@register_statistic("energy")
class Energy(_Score):
    """Energy score."""

    facts = StatisticFacts(
        label="Energy score",
        unit="levels",
        source="E|x_i - x| - E|x_i - x_j| / 2, root mean squares, 8-bit levels",
        score=True,
    )

    def __call__(self, e: Evaluation) -> Tensor:
        """[B, 2]: of the samples, of the oracle's (NaN where there is none)."""
        import torch

        g = _gram(e)
        own = calibration.mse(g).sqrt().mean(1) - _pairs(e, calibration.pair_mse(g).sqrt()) / 2
        oracle = torch.full_like(own, float("nan"))
        if e.posterior is not None:
            oracle = calibration.energy_score(calibration.gram(_oracle(e)[0], e.hr))
        return _levels(e) * torch.stack([own, oracle], 1)


@register_statistic("crps")
class Crps(_Score):
    """Continuous ranked probability score of single intensities."""

    facts = StatisticFacts(
        label="CRPS", unit="levels", source="per intensity: E|x_i - x| - E|x_i - x_j| / 2, 8-bit levels", score=True
    )

    def __call__(self, e: Evaluation) -> Tensor:
        """[B, 2]: of the samples, of the oracle's (NaN where there is none)."""
        import torch

        if e.deterministic:
            own = (e.samples - e.hr[:, None]).abs().double().mean((1, 2, 3, 4))
        else:
            own = calibration.crps(e.samples, e.hr)
        oracle = torch.full_like(own, float("nan"))
        if e.posterior is not None:
            oracle = calibration.crps(_oracle(e)[0], e.hr)
        return _levels(e) * torch.stack([own, oracle], 1)


class _RankError(SampleStatistic):
    """How far ranks of the truth are from uniform; figures are the ranks of all n + 1 members along J numbers."""

    def estimate(self, values: np.ndarray, c: Conditions) -> Estimate:
        """Deviation, and the bound that it keeps in 95% of cases if truth and samples can change places."""
        values = values[~np.isnan(values).any(1)]
        if not len(values) or values.shape[1] < 2:
            return Estimate(float("nan"))
        table = rank_table(values)
        own = deviation(rank_curves(table[:, 0], table.shape[1]))
        rng = np.random.default_rng(0)
        images = np.arange(len(table))
        simulated = [
            deviation(rank_curves(table[images, rng.integers(table.shape[1], size=len(table))], table.shape[1]))
            for _ in range(SIMULATIONS)
        ]
        bound = float(np.quantile(simulated, LEVEL))
        p = (1 + sum(s >= own for s in simulated)) / (1 + SIMULATIONS)
        return Estimate(own, 0.0, bound, 0.0, own / bound if bound else float("nan"), p)


def rank_table(values: np.ndarray) -> np.ndarray:
    """Stored figures [N, (n + 1) * J] as ranks [N, n + 1, J]."""
    return values.reshape(len(values), -1, calibration.DIRECTIONS).astype(int)


def rank_curves(ranks: np.ndarray, members: int) -> np.ndarray:
    """Share of images [J, n] whose rank is at most k = 0..n-1, from ranks [N, J] in 0..n, n + 1 `members`."""
    count, directions = ranks.shape
    flat = (ranks + members * np.arange(directions)).ravel()
    histogram = np.bincount(flat, minlength=members * directions).reshape(directions, members) / count
    curves: np.ndarray = histogram.cumsum(1)[:, :-1]
    return curves


def deviation(curves: np.ndarray) -> float:
    """Mean absolute difference of curves [J, n] from that of uniform ranks."""
    n = curves.shape[1]
    return float(np.abs(curves - np.arange(1, n + 1) / (n + 1)).mean())


@register_statistic("rank_error")
class RankError(_RankError):
    """Along fixed random directions that A does not see."""

    facts = StatisticFacts(
        label="Rank error", source="mean |F(k) - (k + 1) / (n + 1)|, ranks along 8 directions in null(A)",
        digits=".3f", needs="random", bound=True,
    )  # fmt: skip

    def __call__(self, e: Evaluation) -> Tensor:
        """[B, (n + 1) J]."""
        if e.deterministic or e.samples.shape[1] < 2:
            return _undefined(e)
        directions = calibration.null_directions(e.operator)
        if directions.isnan().any():
            return _undefined(e)
        values = calibration.along(calibration.members(e.samples, e.hr), directions)
        return calibration.ranks(values).flatten(1)


@register_statistic("tarp_error")
class TarpError(_RankError):
    """Coverage of balls around reference points (TARP)."""

    facts = StatisticFacts(
        label="TARP error", source="mean |coverage - level|, 8 reference points A^+ y + noise; arXiv 2302.03026",
        digits=".3f", needs="random", bound=True,
    )  # fmt: skip

    def __call__(self, e: Evaluation) -> Tensor:
        """[B, (n + 1) J]."""
        if e.deterministic or e.samples.shape[1] < 2:
            return _undefined(e)
        values = calibration.reference_distances(calibration.members(e.samples, e.hr), e.y, e.operator)
        return calibration.ranks(values).flatten(1)


def covered(histogram: np.ndarray, level: float) -> np.ndarray:
    """`calibration.coverage` for NumPy, [..., n + 1] to [...]."""
    size = histogram.shape[-1]
    edges = np.linspace(0, 1, size + 1).clip((1 - level) / 2, (1 + level) / 2)
    share: np.ndarray = histogram @ (np.diff(edges) * size)
    return share


@register_statistic("coverage50")
class Coverage50(MeanStatistic, SampleStatistic):
    """Share of intensities of the truth within the central interval of the samples; figures: histogram of ranks."""

    facts = StatisticFacts(
        label="Coverage 50%", unit="%", source="central intervals per intensity, corrected for n samples",
        digits=".1f", needs="random",
    )  # fmt: skip
    level = 0.5

    def __call__(self, e: Evaluation) -> Tensor:
        """[B, n + 1]."""
        if e.deterministic or e.samples.shape[1] < 2:
            return _undefined(e)
        found: Tensor = e.shared("pixel_ranks", lambda: calibration.pixel_ranks(e.samples, e.hr))
        return found

    def aggregate(self, means: np.ndarray, c: Conditions) -> np.ndarray:
        """In percent."""
        return 100 * covered(means, self.level)

    def right(self, means: np.ndarray, c: Conditions) -> float:
        """The level itself."""
        return 100 * self.level


@register_statistic("coverage90")
class Coverage90(Coverage50):
    """The same for nine tenths of them."""

    facts = StatisticFacts(label="Coverage 90%", unit="%", source="as for half of them", digits=".1f", needs="random")
    level = 0.9


@register_statistic("mmse_gap")
class MmseGap(MeanStatistic, SampleStatistic):
    """Square distance of the sampler's mean from the posterior mean, in units of the least mean square error."""

    facts = StatisticFacts(
        label="MMSE gap", source="E|E x_i - E[x | y]|^2 / E Var[x | y], unbiased", digits=".3f", needs="posterior"
    )

    def __call__(self, e: Evaluation) -> Tensor:
        """[B, 2]."""
        import torch

        if e.samples.shape[1] < 2 and not e.deterministic:
            return _undefined(e)
        variance = torch.stack([k.variance for k in _known(e)])
        return torch.stack([calibration.gap(e.samples, _posterior_mean(e)), variance], 1)

    def aggregate(self, means: np.ndarray, c: Conditions) -> np.ndarray:
        """Ratio of means."""
        ratio: np.ndarray = means[..., 0] / means[..., 1]
        return ratio

    def right(self, means: np.ndarray, c: Conditions) -> float:
        """The means are the same."""
        return 0.0


@register_statistic("posterior_std_ratio")
class PosteriorStdRatio(MeanStatistic, SampleStatistic):
    """Spread of the samples over that of the posterior, along directions that A does not see."""

    facts = StatisticFacts(
        label="Spread / posterior's", source="standard deviations along 8 directions in null(A)", digits=".3f",
        needs="posterior",
    )  # fmt: skip

    def __call__(self, e: Evaluation) -> Tensor:
        """[B, 2]: variances."""
        import torch

        directions = calibration.null_directions(e.operator)
        if directions.isnan().any() or (e.samples.shape[1] < 2 and not e.deterministic):
            return _undefined(e)
        own = calibration.variance_along(e.samples, directions).mean(1)
        exact = torch.stack([k.along for k in _known(e)])
        return torch.stack([own, exact], 1)

    def aggregate(self, means: np.ndarray, c: Conditions) -> np.ndarray:
        """Root of the ratio of mean variances."""
        ratio: np.ndarray = np.sqrt(means[..., 0] / means[..., 1])
        return ratio

    def right(self, means: np.ndarray, c: Conditions) -> float:
        """They are the same."""
        return 1.0


@register_statistic("sliced_wasserstein")
class SlicedWasserstein(MeanStatistic, SampleStatistic):
    """Distance of the samples from the oracle's along directions that A does not see, over that of two oracle sets."""

    facts = StatisticFacts(
        label="Sliced W / floor", source="W_1 along 8 directions in null(A), over that between two sets of the oracle",
        digits=".3f", needs="posterior",
    )  # fmt: skip

    def __call__(self, e: Evaluation) -> Tensor:
        """[B, 2]: distance, floor."""
        import torch

        directions = calibration.null_directions(e.operator)
        if directions.isnan().any():
            return _undefined(e)
        one, other = _oracle(e)
        samples = e.samples.expand_as(one) if e.deterministic else e.samples
        pairs = ((samples, one), (other, one))
        return torch.stack([calibration.sliced_wasserstein(a, b, directions) for a, b in pairs], 1)

    def aggregate(self, means: np.ndarray, c: Conditions) -> np.ndarray:
        """Ratio of means."""
        ratio: np.ndarray = means[..., 0] / means[..., 1]
        return ratio

    def right(self, means: np.ndarray, c: Conditions) -> float:
        """The samples are one more set of the oracle's."""
        return 1.0


@register_statistic("c2st")
class C2st(SampleStatistic):
    """Accuracy of a classifier that tells a sample from an exact one (scikit-learn: extra `truth`)."""

    facts = StatisticFacts(
        label="C2ST", source="logistic regression on one sample and one exact sample per image, minus E[x | y]",
        digits=".3f", needs="posterior", bound=True,
    )  # fmt: skip

    def __call__(self, e: Evaluation) -> Tensor:
        """[B, 2 F]: features of the sample, and of an exact one."""
        import torch

        directions = calibration.null_directions(e.operator)
        if directions.isnan().any():
            return _undefined(e)
        mean = _posterior_mean(e)
        both = (e.samples[:, 0], _oracle(e)[0][:, 0])
        return torch.cat([calibration.c2st_features(x, mean, directions, e.operator) for x in both], 1)

    def estimate(self, values: np.ndarray, c: Conditions) -> Estimate:
        """Accuracy on images that it was not trained on; bound: 95% of those with labels exchanged within images.

        NaN without scikit-learn, or with fewer images than folds. p is no exact permutation p-value but the upper tail
        of the normal distribution with the mean and spread of the `PERMUTATIONS` exchanged accuracies: from so few,
        (1 + k) / (1 + N) is 0.01 at least, which Holm's correction over a line always makes no sign.
        """
        values = values[~np.isnan(values).any(1)]
        if len(values) < 2 * FOLDS or not has_sklearn():
            return Estimate(float("nan"))
        pairs = values.reshape(len(values), 2, -1)
        own, exchanged = _accuracies(pairs.tobytes(), pairs.shape, pairs.dtype.str)
        bound = float(np.quantile(exchanged, LEVEL))
        distance = (own - 0.5) / max(bound - 0.5, 1e-9)
        z = (own - float(np.mean(exchanged))) / max(float(np.std(exchanged)), 1e-9)
        return Estimate(own, 0.5, bound, 0.5, float(distance), math.erfc(z / math.sqrt(2)) / 2)


@lru_cache(maxsize=64)
def _accuracies(pairs: bytes, shape: tuple[int, ...], dtype: str) -> tuple[float, list[float]]:
    """Accuracy of [N, 2, F], and those with labels exchanged; kept, since tables and report both ask."""
    values = np.frombuffer(pairs, dtype).reshape(shape)
    rng = np.random.default_rng(0)
    exchanged = []
    for _ in range(PERMUTATIONS):
        flip = rng.random(len(values)) < 0.5
        exchanged.append(accuracy(np.where(flip[:, None, None], values[:, ::-1], values)))
    return accuracy(values), exchanged


def has_sklearn() -> bool:
    """Whether scikit-learn is installed."""
    from importlib.util import find_spec

    return find_spec("sklearn") is not None


def accuracy(pairs: np.ndarray) -> float:
    """Cross-validated accuracy of a logistic regression on [N, 2, F], both of an image in the same fold."""
    from sklearn import config_context
    from sklearn.linear_model import LogisticRegression

    fold = np.arange(len(pairs)) % FOLDS
    right = 0.0
    with config_context(assume_finite=True, skip_parameter_validation=True):  # checks take as long as the fit
        for k in range(FOLDS):
            train, test = (pairs[rows].reshape(-1, pairs.shape[2]) for rows in (fold != k, fold == k))
            mean, spread = train.mean(0), train.std(0)
            spread[spread == 0] = 1
            model = LogisticRegression(C=0.1, solver="newton-cholesky")
            model.fit((train - mean) / spread, np.tile([0, 1], len(train) // 2))
            right += (model.predict((test - mean) / spread) == np.tile([0, 1], len(test) // 2)).sum()
    return float(right / (2 * len(pairs)))

"""The posterior of a Gaussian mixture against dense algebra, importance sampling and moments of samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from bench.contract import Noise
from bench.operators import Operator
from bench.operators.average import Average
from bench.operators.bicubic import Bicubic
from bench.operators.blur import Blur
from bench.operators.inpainting import Inpainting
from bench.operators.separable import Separable, _Side
from bench.posterior import GaussianMixture, Posterior, choose


def mixture(
    k: int = 3, rank: int = 2, channels: int = 3, size: tuple[int, int] = (4, 6), seed: int = 0
) -> GaussianMixture:
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    weights = torch.softmax(normal(k), 0)
    stds = 0.3 + 0.2 * torch.rand(k, generator=g, dtype=torch.float64)
    return GaussianMixture(weights, normal(k, channels, *size), normal(k, rank, channels, *size), stds)


def dense(operator: Operator, channels: int) -> np.ndarray:
    """A as a matrix on flattened [channels, H, W]; rows are 0 where y is of pixels that are not seen."""
    count = channels * operator.size[0] * operator.size[1]
    columns = operator.forward(torch.eye(count, dtype=torch.float64).view(count, channels, *operator.size))
    return columns.flatten(1).T.numpy()


class Dense:
    """The same posterior by dense algebra (Bayes' rule for every component)."""

    def __init__(self, m: GaussianMixture, operator: Operator, y: torch.Tensor) -> None:
        a, y_flat = dense(operator, m.shape[0]), y.flatten().numpy()
        seen = np.abs(a).sum(1) > 0
        a, y_flat = a[seen], y_flat[seen]
        self.means, self.covariances, evidence = [], [], []
        for k in range(len(m.weights)):
            w = m.factors[k].flatten(1).numpy()
            c = w.T @ w + float(m.stds[k]) ** 2 * np.eye(w.shape[1])
            mean = m.means[k].flatten().numpy()
            s = a @ c @ a.T + operator.sigma**2 * np.eye(len(a))
            gain = c @ a.T @ np.linalg.inv(s)
            self.means.append(mean + gain @ (y_flat - a @ mean))
            self.covariances.append(c - gain @ a @ c)
            evidence.append(np.log(float(m.weights[k])) + multivariate_normal(a @ mean, s).logpdf(y_flat))
        self.weights = np.exp(np.array(evidence) - np.logaddexp.reduce(evidence))

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        mean = sum(w * m for w, m in zip(self.weights, self.means, strict=True))
        second = sum(
            w * (c.diagonal() + m**2) for w, m, c in zip(self.weights, self.means, self.covariances, strict=True)
        )
        return mean, second - mean**2


OPERATORS: list[tuple[type[Operator], int, float]] = [
    (Average, 2, 0.0), (Average, 2, 0.1), (Bicubic, 2, 0.0), (Bicubic, 2, 0.3), (Blur, 2, 0.1), (Inpainting, 1, 0.0),
    (Inpainting, 1, 0.1),
]  # fmt: skip


@pytest.mark.parametrize(("make", "scale", "sigma"), OPERATORS)
def test_mean_variance_and_weights_are_those_of_dense_algebra(make: type[Operator], scale: int, sigma: float) -> None:
    m = mixture()
    operator = make((4, 6), scale, sigma=sigma, range=None, dtype=torch.float64)
    x = m.sample(Noise(0, ["a"], [0]))[0]
    y = operator.observe(x, Noise.of_observation(0, ["a"]))[0]
    found, expected = Posterior(m, operator).given(y), Dense(m, operator, y)
    mean, variance = expected.moments()
    assert np.allclose(found.weights.numpy(), expected.weights, atol=1e-9)
    assert np.allclose(found.mean.flatten().numpy(), mean, atol=1e-8)
    assert np.allclose(found.variance.flatten().numpy(), variance, atol=1e-8)
    pixels = torch.eye(12, found.mean.numel(), dtype=torch.float64).view(12, *found.mean.shape)
    assert np.allclose(found.variance_along(pixels).numpy(), variance[:12], atol=1e-8)
    both = (pixels[0] + pixels[5])[None]
    covariance = (
        sum(
            w * (c[0, 5] + m[0] * m[5])
            for w, m, c in zip(expected.weights, expected.means, expected.covariances, strict=True)
        )
        - mean[0] * mean[5]
    )
    assert np.allclose(found.variance_along(both).numpy(), variance[0] + variance[5] + 2 * covariance, atol=1e-8)


@pytest.mark.parametrize(("make", "scale", "sigma"), OPERATORS)
def test_samples_have_the_moments(make: type[Operator], scale: int, sigma: float) -> None:
    m = mixture()
    operator = make((4, 6), scale, sigma=sigma, range=None, dtype=torch.float64)
    y = operator.observe(m.sample(Noise(1, ["a"], [0]))[0], Noise.of_observation(1, ["a"]))[0]
    given, n = Posterior(m, operator).given(y), 100_000
    g = torch.Generator().manual_seed(0)
    x = given.draw(
        torch.rand(n, generator=g, dtype=torch.float64),
        torch.randn(n, 2, generator=g, dtype=torch.float64),
        torch.randn(n, *m.shape, generator=g, dtype=torch.float64),
    )
    deviation = (x.mean(0) - given.mean) / (given.variance.clamp(min=1e-12) / n).sqrt()
    assert deviation.abs().max() < 5
    assert torch.allclose(x.var(0), given.variance, rtol=0.05, atol=1e-9)
    if not sigma:
        assert torch.allclose(operator.forward(x), y.expand(n, -1, -1, -1), atol=1e-8)


def test_the_covariance_of_samples_is_that_of_dense_algebra() -> None:
    m = mixture(k=1)
    operator = Bicubic((4, 6), 2, sigma=0.2, range=None, dtype=torch.float64)
    y = operator.forward(m.means)[0]
    n, g = 100_000, torch.Generator().manual_seed(0)
    x = (
        Posterior(m, operator)
        .given(y)
        .draw(torch.zeros(n), torch.randn(n, 2, generator=g), torch.randn(n, *m.shape, generator=g))
    )
    expected = Dense(m, operator, y).covariances[0]
    assert np.allclose(np.cov(x.flatten(1).numpy().T), expected, atol=5 * np.abs(expected).max() / math.sqrt(n))


class Sheared(Separable):
    """Any small matrix, for images of up to three pixels a side; also of one row, which operators of images refuse."""

    name = "sheared"

    def __init__(self, size: tuple[int, int], sigma: float) -> None:
        super().__init__(2, 1, sigma=sigma, range=None, dtype=torch.float64)
        self.size = self.low_size = size
        self._exact = [_Side(self.matrix(side)) for side in size]
        self._round()

    def matrix(self, side: int) -> np.ndarray:
        return np.array([[1.0, 0.5, -0.3], [0.2, 0.4, 0.1], [0.0, -0.2, 0.6]])[:side, :side]


@pytest.mark.parametrize("size", [(1, 2), (1, 3), (2, 2)])
def test_importance_sampling_agrees(size: tuple[int, int]) -> None:
    """Two, three and four dimensions: the prior's samples, weighted by the likelihood."""
    m = mixture(channels=1, size=size, rank=1)
    operator = Sheared(size, 0.8)
    y = torch.tensor([0.4, -0.2, 0.1, 0.6], dtype=torch.float64)[: math.prod(size)].view(1, *size)
    given = Posterior(m, operator).given(y)
    n, g = 400_000, torch.Generator().manual_seed(0)
    x = m.draw(
        torch.rand(n, generator=g, dtype=torch.float64),
        torch.randn(n, 1, generator=g, dtype=torch.float64),
        torch.randn(n, 1, *size, generator=g, dtype=torch.float64),
    )
    weight = torch.softmax(-(operator.forward(x) - y).square().sum((1, 2, 3)) / (2 * operator.sigma**2), 0)
    mean = torch.einsum("n,nchw->chw", weight, x)
    variance = torch.einsum("n,nchw->chw", weight, (x - mean).square())
    assert 1 / weight.square().sum() > 1000  # effective samples
    assert torch.allclose(mean, given.mean, atol=0.05)
    assert torch.allclose(variance, given.variance, atol=0.05)


def test_log_density_obeys_bayes_rule() -> None:
    """log p(x | y) = log p(x) + log p(y | x) - log p(y), up to one constant for all x."""
    m = mixture()
    operator = Bicubic((4, 6), 2, sigma=0.3, range=None, dtype=torch.float64)
    x = m.sample(Noise(2, ["a"], range(6)))[0]
    y = operator.forward(x[0])
    likelihood = -(operator.forward(x) - y).square().sum((1, 2, 3)) / (2 * operator.sigma**2)
    gap = Posterior(m, operator).given(y).log_prob(x) - m.log_prob(x) - likelihood
    assert torch.allclose(gap, gap[0].expand(6), atol=1e-8)


def test_log_density_is_that_of_dense_algebra() -> None:
    m = mixture()
    operator = Average((4, 6), 2, sigma=0.2, range=None, dtype=torch.float64)
    x = m.sample(Noise(3, ["a"], range(4)))[0]
    y = operator.forward(x[1])
    d = Dense(m, operator, y)
    parts = [
        np.log(w) + multivariate_normal(mean, c).logpdf(x.flatten(1).numpy())
        for w, mean, c in zip(d.weights, d.means, d.covariances, strict=True)
    ]
    assert np.allclose(Posterior(m, operator).given(y).log_prob(x).numpy(), np.logaddexp.reduce(parts), atol=1e-7)


def test_without_noise_the_density_is_that_on_the_consistent_images() -> None:
    """It integrates to one over the null space: checked by the entropy of one component."""
    m = mixture(k=1)
    operator = Average((4, 6), 2, range=None, dtype=torch.float64)
    y = operator.forward(m.means)[0]
    given, n, g = Posterior(m, operator).given(y), 20_000, torch.Generator().manual_seed(0)
    x = given.draw(torch.zeros(n), torch.randn(n, 2, generator=g), torch.randn(n, *m.shape, generator=g))
    covariance = Dense(m, operator, y).covariances[0]
    values = np.linalg.eigvalsh(covariance)
    free = values[values > 1e-10]
    assert len(free) == 3 * (24 - 6)
    entropy = 0.5 * np.log(2 * np.pi * np.e * free).sum()
    assert -float(given.log_prob(x).mean()) == pytest.approx(entropy, abs=0.1)


def test_averaging_pixels_averages_the_distribution() -> None:
    m = mixture(size=(4, 4))
    low = m.averaged(2)
    a = dense(Average((4, 4), 2, dtype=torch.float64), 3)
    for k in range(3):
        w, w_low = (t.factors[k].flatten(1).numpy() for t in (m, low))
        high = w.T @ w + float(m.stds[k]) ** 2 * np.eye(48)
        assert np.allclose(a @ high @ a.T, w_low.T @ w_low + float(low.stds[k]) ** 2 * np.eye(12))
        assert np.allclose(a @ m.means[k].flatten().numpy(), low.means[k].flatten().numpy())


def test_components_are_drawn_by_their_weights() -> None:
    drawn = choose(torch.tensor([0.2, 0.5, 0.3]), torch.linspace(0, 0.9999, 1000))
    assert drawn.bincount().tolist() == [200, 500, 300]


def test_samples_depend_on_their_streams_alone() -> None:
    m = mixture()
    posterior = Posterior(m, Average((4, 6), 2, sigma=0.1, range=None, dtype=torch.float64))
    y = torch.rand(2, 3, 2, 3, dtype=torch.float64)
    both = posterior.sample(y, Noise(0, ["a", "b"], range(3)))
    alone = posterior.sample(y[1:], Noise(0, ["b"], [2]))
    assert torch.equal(both[1:, 2:], alone)

"""Posteriors that are known exactly: a Gaussian mixture of low rank seen through a linear operator.

Prior p(x) = sum_k pi_k N(m_k, W_k W_k^T + s_k^2 I), observation y = A x + sigma n. With A = U diag(a) V^T every
component's posterior is again low rank plus a diagonal in the basis V: write x = m + W u + s e with standard normal u
and e. Then u | y is Gaussian in as many dimensions as the rank, and s e | y, u has the variance s^2 sigma^2 / d in each
coordinate of V, where d = s^2 a^2 + sigma^2. Nothing is larger than the rank by the number of pixels; sigma = 0 is
allowed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from bench.contract import Noise
from bench.operators import Operator


@dataclass(frozen=True)
class GaussianMixture:
    """sum_k pi_k N(m_k, W_k W_k^T + s_k^2 I) on images [3, H, W], in float64.

    Attributes:
        weights: pi [K], positive, with sum 1.
        means: m [K, 3, H, W].
        factors: W [K, R, 3, H, W], the R columns as images.
        stds: s [K], positive.

    """

    weights: Tensor
    means: Tensor
    factors: Tensor
    stds: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        """(3, H, W)."""
        c, h, w = self.means.shape[1:]
        return int(c), int(h), int(w)

    def averaged(self, factor: int) -> GaussianMixture:
        """The distribution of images whose squares of factor x factor pixels are averaged: of the same form."""
        k, r = self.factors.shape[:2]
        pool = torch.nn.functional.avg_pool2d
        factors = pool(self.factors.flatten(0, 1), factor).unflatten(0, (k, r))
        return GaussianMixture(self.weights, pool(self.means, factor), factors, self.stds / factor)

    def to(self, device: torch.device | str) -> GaussianMixture:
        """The same distribution elsewhere."""
        return GaussianMixture(*(t.to(device) for t in (self.weights, self.means, self.factors, self.stds)))

    def draw(self, component: Tensor, low: Tensor, white: Tensor) -> Tensor:
        """Images [N, 3, H, W] from a uniform number [N] in [0, 1) and standard normal [N, R] and [N, 3, H, W]."""
        k = choose(self.weights, component)
        x = self.means[k] + self.stds[k][:, None, None, None] * white
        return x + torch.einsum("nr,nrchw->nchw", low, self.factors[k])

    def sample(self, noise: Noise) -> Tensor:
        """Images [B, n, 3, H, W] from keyed streams."""
        drawn = (noise.uniform(), noise.normal(self.factors.shape[1]), noise.normal(*self.shape))
        x = self.draw(*(t.flatten(0, 1).to(self.means) for t in drawn))
        return x.unflatten(0, (len(noise.ids), len(noise.samples)))

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density [N] in nats of images [N, 3, H, W]."""
        parts = []
        for k in range(len(self.weights)):
            variance = torch.full_like(self.means[k], float(self.stds[k] ** 2)).flatten()
            residual = (x.to(self.means) - self.means[k]).flatten(1)
            parts.append(low_rank_log_prob(residual, self.factors[k].flatten(1), variance))
        return torch.logsumexp(torch.stack(parts) + self.weights.log()[:, None], 0)


def choose(weights: Tensor, uniform: Tensor) -> Tensor:
    """Indices [N] drawn with probabilities [K] or [N, K] by uniform numbers [N]."""
    cumulative = weights.cumsum(-1)
    below = cumulative[..., :-1] <= uniform[:, None] * cumulative[..., -1:]
    return below.expand(len(uniform), -1).sum(-1)


def low_rank_log_prob(residual: Tensor, factors: Tensor, variance: Tensor) -> Tensor:
    """Log-density [N] of N(0, F^T F + diag(v)) at [N, D], for F [R, D] and v [D], by Woodbury's identity."""
    weighted = factors / variance
    chol = torch.linalg.cholesky(torch.eye(len(factors)).to(factors) + weighted @ factors.T)
    solved = torch.linalg.solve_triangular(chol, weighted @ residual.T, upper=False)
    quadratic = (residual.square() / variance).sum(1) - solved.square().sum(0)
    log_det = variance.log().sum() + 2 * chol.diagonal().log().sum()
    return -0.5 * (quadratic + log_det + residual.shape[1] * math.log(2 * math.pi))


class Posterior:
    """p(x | y) for one mixture and one operator; what does not depend on y is computed once.

    Args:
        mixture: the prior.
        operator: A and sigma, for images of the mixture's size.

    """

    def __init__(self, mixture: GaussianMixture, operator: Operator) -> None:
        self.mixture = mixture.to(operator.device)
        self.operator = operator.to(operator.device, torch.float64)
        self.svd = self.operator.svd()
        self.components = [_Component(self, k) for k in range(len(mixture.weights))]

    def given(self, y: Tensor) -> PosteriorGivenY:
        """The posterior of one observation [3, h, w]."""
        return PosteriorGivenY(self, y.to(self.mixture.means))

    def sample(self, y: Tensor, noise: Noise) -> Tensor:
        """Exact samples [B, n, 3, H, W], float64, of observations [B, 3, h, w]."""
        n = len(noise.samples)
        uniform, low = noise.uniform(), noise.normal(self.mixture.factors.shape[1])
        white = noise.normal(*self.mixture.shape)
        rows = [self.given(row).draw(uniform[i], low[i], white[i]) for i, row in enumerate(y)]
        return torch.stack(rows).view(len(y), n, *self.mixture.shape)


class _Component:
    """One component's posterior but for y: x = mean(y) + T u' + V sqrt(p) e with u' of covariance M^-1."""

    def __init__(self, posterior: Posterior, k: int) -> None:
        mixture, svd, sigma = posterior.mixture, posterior.svd, posterior.operator.sigma
        self.mean, self.factors, variance = mixture.means[k], mixture.factors[k], mixture.stds[k] ** 2
        self.svd = svd
        self.seen = svd.s > 0
        noise = variance * svd.s.square() + sigma**2  # d, in the coordinates of A
        self.noise = torch.where(self.seen, noise, torch.ones_like(noise))
        self.gain = torch.where(self.seen, variance * svd.s / self.noise, torch.zeros_like(noise))
        self.variance = torch.where(self.seen, variance * sigma**2 / self.noise, variance.expand_as(noise))
        self.observed = svd.s * svd.v_t(self.factors)  # B: U^T A W, 0 where nothing is seen
        weighted = (self.observed / self.noise).flatten(1)
        rank = len(self.factors)
        precision = torch.eye(rank).to(weighted) + weighted @ self.observed.flatten(1).T
        self.chol = torch.linalg.cholesky(precision)  # of M
        self.weighted = weighted
        self.transfer = self.factors - svd.v(self.gain * self.observed)  # T, [R, 3, H, W]

    def residual(self, y: Tensor) -> Tensor:
        """U^T (y - A m), 0 where nothing is seen, [3, H, W]."""
        return self.svd.u_t(y) - torch.where(
            self.seen, self.svd.s * self.svd.v_t(self.mean), torch.zeros_like(self.mean)
        )

    def latent_mean(self, residual: Tensor) -> Tensor:
        """E[u | y], [R]."""
        return torch.cholesky_solve((self.weighted @ residual.flatten())[:, None], self.chol)[:, 0]

    @cached_property
    def variance_of_pixels(self) -> Tensor:
        """Variance of every intensity, [3, H, W]."""
        root = torch.linalg.solve_triangular(self.chol, self.transfer.flatten(1), upper=False)
        return root.square().sum(0).view_as(self.mean) + self.svd.diagonal(self.variance)

    def variance_along(self, directions: Tensor) -> Tensor:
        """Variance [J] along directions [J, 3, H, W]."""
        along = self.transfer.flatten(1) @ directions.flatten(1).T
        root = torch.linalg.solve_triangular(self.chol, along, upper=False)
        return root.square().sum(0) + (self.svd.v_t(directions).square() * self.variance).sum((1, 2, 3))

    def log_evidence(self, residual: Tensor) -> Tensor:
        """Log-density of y under the component, up to what all components share."""
        channels = residual.shape[0]
        quadratic = (residual.square() / self.noise).sum()
        quadratic = quadratic - (self.weighted @ residual.flatten()).dot(self.latent_mean(residual))
        log_det = channels * self.noise[self.seen].log().sum() + 2 * self.chol.diagonal().log().sum()
        return -0.5 * (quadratic + log_det)


class PosteriorGivenY:
    """p(x | y) of one observation y [3, h, w]; everything is float64 and in intensities."""

    def __init__(self, posterior: Posterior, y: Tensor) -> None:
        self._posterior = posterior
        self._components = posterior.components
        self._residuals = [c.residual(y) for c in self._components]
        evidence = torch.stack([c.log_evidence(r) for c, r in zip(self._components, self._residuals, strict=True)])
        self.weights = torch.softmax(posterior.mixture.weights.log() + evidence, 0)
        """Of the components, [K]."""

    @cached_property
    def means(self) -> Tensor:
        """Of the components, [K, 3, H, W]."""
        found = []
        for c, r in zip(self._components, self._residuals, strict=True):
            shift = torch.einsum("r,rchw->chw", c.latent_mean(r), c.transfer)
            found.append(c.mean + c.svd.v(c.gain * r) + shift)
        return torch.stack(found)

    @property
    def mean(self) -> Tensor:
        """E[x | y], [3, H, W]: the estimate of least mean square error."""
        return torch.einsum("k,kchw->chw", self.weights, self.means)

    @property
    def variance(self) -> Tensor:
        """Var[x | y] of every intensity, [3, H, W]."""
        second = torch.zeros_like(self.mean)
        for weight, mean, c in zip(self.weights, self.means, self._components, strict=True):
            second = second + weight * (c.variance_of_pixels + mean.square())
        return second - self.mean.square()

    def variance_along(self, directions: Tensor) -> Tensor:
        """Var[v^T x | y] for each of the directions v [J, 3, H, W], [J]."""
        v = directions.flatten(1).to(self.means)
        mean = self.mean.flatten()
        found = v.new_zeros(len(v))
        for weight, component_mean, c in zip(self.weights, self.means, self._components, strict=True):
            between = (v @ (component_mean.flatten() - mean)).square()
            found = found + weight * (c.variance_along(directions.to(self.means)) + between)
        return found

    def draw(self, uniform: Tensor, low: Tensor, white: Tensor) -> Tensor:
        """Exact samples [n, 3, H, W].

        Args:
            uniform: [n] in [0, 1), chooses the component.
            low: standard normal [n, R].
            white: standard normal [n, 3, H, W].

        """
        low, white = low.to(self.means), white.to(self.means)
        k = choose(self.weights, uniform.to(self.means))
        x = self.means[k].clone()
        for i in k.unique().tolist():
            c, rows = self._components[i], k == i
            u = torch.linalg.solve_triangular(c.chol.T, low[rows].T, upper=True).T  # covariance M^-1
            x[rows] += torch.einsum("nr,rchw->nchw", u, c.transfer) + c.svd.v(c.variance.sqrt() * white[rows])
        return x

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density [n] in nats of images [n, 3, H, W].

        Where sigma is 0 it is that on the images with A x = y: x counts by its coordinates in the null space of A.
        """
        parts = []
        for mean, c in zip(self.means, self._components, strict=True):
            free = (c.variance > 0).expand_as(mean).flatten()
            residual = c.svd.v_t(x.to(mean) - mean).flatten(1)[:, free]
            root = torch.linalg.solve_triangular(c.chol, c.svd.v_t(c.transfer).flatten(1), upper=False)[:, free]
            variance = c.variance.expand_as(mean).flatten()[free]
            parts.append(low_rank_log_prob(residual, root, variance))
        return torch.logsumexp(torch.stack(parts) + self.weights.log()[:, None], 0)

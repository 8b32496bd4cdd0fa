"""The exact denoiser of a Gaussian mixture, so that a sampler can run without any network's error.

p(x) = sum_k weight_k N(mean_k, C_k), C_k = W_k W_k^T + std_k^2 I with a few columns W_k: the mean of x_0 given
x_t = sqrt(a) x_0 + sqrt(1 - a) noise in closed form, with matrices of the rank only. Its Jacobian is autograd's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Mixture:
    """A Gaussian mixture of low rank; images are flattened, D = 3 H W.

    Attributes:
        weights: [K], summing to 1.
        means: [K, D].
        basis: orthonormal columns [K, D, R]; R = 0 for isotropic components.
        variances: along these columns [K, R].
        rest: variance in every other direction [K].

    """

    weights: Tensor
    means: Tensor
    basis: Tensor
    variances: Tensor
    rest: Tensor

    @classmethod
    def of_factors(cls, weights: Tensor, means: Tensor, factors: Tensor, std: Tensor) -> Self:
        """From C_k = W_k W_k^T + std_k^2 I: factors W [K, D, R], std [K]; a factor of less than full rank will do."""
        u, s, _ = torch.linalg.svd(factors, full_matrices=False)
        return cls(weights, means, u, s.square() + std.square()[:, None], std.square())

    @cached_property
    def rows(self) -> Tensor:
        """All columns as rows [K * R, D]: one product of matrices in the place of K."""
        return self.basis.mT.flatten(0, 1)

    @cached_property
    def centres(self) -> Tensor:
        """Coordinates [K, R] of the means along their own columns."""
        return torch.einsum("kdr,kd->kr", self.basis, self.means)

    @cached_property
    def squares(self) -> Tensor:
        """Squared lengths [K] of the means."""
        return self.means.square().sum(1)

    def affine(self, gain: float, shift: float) -> Mixture:
        """The mixture of gain x + shift; the network's units are those of gain 2, shift -1."""
        square = gain * gain
        return Mixture(self.weights, gain * self.means + shift, self.basis, square * self.variances, square * self.rest)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Mixture:
        """The same elsewhere."""
        fields = (self.weights, self.means, self.basis, self.variances, self.rest)
        return Mixture(*(v.to(device, dtype) for v in fields))


def denoise(mixture: Mixture, x: Tensor, kept: float) -> Tensor:
    """E[x_0 | x_t = x].

    Args:
        mixture: of x_0.
        x: [B, D], in the mixture's precision.
        kept: alpha_bar, the share a of the signal's variance in x_t.

    """
    if kept == 1.0:
        return x
    signal = math.sqrt(kept)
    c = (x @ mixture.rows.T).unflatten(1, mixture.centres.shape) - signal * mixture.centres  # [B, K, R]
    spread, rest = kept * mixture.variances + 1 - kept, kept * mixture.rest + 1 - kept  # variances of x_t
    gain, gain_rest = signal * mixture.variances / spread, signal * mixture.rest / rest
    length = x.square().sum(1, keepdim=True) - 2 * signal * x @ mixture.means.T + kept * mixture.squares  # [B, K]
    square = length / rest + ((1 / spread - 1 / rest[:, None]) * c.square()).sum(-1)
    volume = spread.log().sum(-1) + (x.shape[1] - spread.shape[-1]) * rest.log()
    share = torch.softmax(mixture.weights.log() - (square + volume) / 2, 1)  # p(k | x_t)
    along = share[..., None] * (gain - gain_rest[:, None]) * c
    # the sum over k of share times E[x_0 | x_t, k] = mean + gain_rest (x - signal mean) + basis (gain - gain_rest) c,
    # never as [B, K, D], which would not stay in the processor's caches
    of_means = (share * (1 - signal * gain_rest)) @ mixture.means
    return of_means + (share * gain_rest).sum(1, keepdim=True) * x + along.flatten(1) @ mixture.rows


class ExactDenoiser:
    """The network of an exact prior: (x_t [B, 3, H, W], t [B]) -> x_0, for `DiffusionPrior(prediction="clean")`.

    Args:
        mixture: of x_0, in the network's units.
        alpha_bar: the prior's schedule, float64 [T].

    """

    def __init__(self, mixture: Mixture, alpha_bar: Tensor) -> None:
        self.mixture, self.alpha_bar = mixture, alpha_bar

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """E[x_0 | x_t], computed in the mixture's precision; all rows are at the same step."""
        x0 = denoise(self.mixture, x.flatten(1).to(self.mixture.means), float(self.alpha_bar[int(t[0])]))
        return x0.view(x.shape).to(x.dtype)

"""What a set of samples says about the distribution that it was drawn from, as pure functions.

Shapes throughout: samples [B, n, 3, H, W], truth [B, 3, H, W], y [B, 3, h, w], on one device; results are per image.
Distances are root mean squares (the Euclidean distance over the square root of the number of intensities), so that
they mean the same at every size. docs/truth.md says what they are for.

Sources: Gneiting & Raftery 2007 (energy score, CRPS; the unbiased pair term is Ferro 2014's), Talts et al. 2018
(ranks), Lemos et al. 2023, arXiv 2302.03026 (TARP).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from bench.operators import Operator

DIRECTIONS = 8
"""Fixed directions, and as many reference points; an image's ranks along them are kept."""
REFERENCE = 0.5
"""Root mean square distance of a reference point from the pseudo-inverse of y, in intensities."""
SEED = 2302_03026
"""Of directions and reference points, the same for all images and methods."""


def gram(samples: Tensor, truth: Tensor) -> Tensor:
    """Mean products of errors [B, n, n], float64: entry i, j is the mean over intensities of (x_i - x) (x_j - x)."""
    e = (samples - truth[:, None]).flatten(2).double()
    return e @ e.mT / e.shape[2]


def mse(errors: Tensor) -> Tensor:
    """Mean square error [B, n] of each sample, from `gram`."""
    return errors.diagonal(dim1=1, dim2=2)


def mse_of_mean(errors: Tensor) -> Tensor:
    """Mean square error [B] of the mean of the samples, from `gram`."""
    return errors.mean((1, 2))


def pair_mse(errors: Tensor) -> Tensor:
    """Mean square differences [B, n, n] between samples, from `gram`; 0 on the diagonal."""
    own = mse(errors)
    pairs = (own[:, :, None] + own[:, None] - 2 * errors).clamp(min=0)
    pairs.diagonal(dim1=1, dim2=2).zero_()  # rounding leaves 1e-17, whose root is 1e-8
    return pairs


def mean_of_pairs(values: Tensor) -> Tensor:
    """Mean [B] over pairs i != j of symmetric values [B, n, n] that are 0 on the diagonal; NaN for one sample."""
    n = values.shape[1]
    if n < 2:
        return values.new_full((len(values),), float("nan"))
    return values.sum((1, 2)) / (n * (n - 1))


def energy_score(errors: Tensor) -> Tensor:
    """Unbiased energy score [B] in intensities from `gram`: E|x_i - x| - E|x_i - x_j| / 2."""
    return mse(errors).sqrt().mean(1) - mean_of_pairs(pair_mse(errors).sqrt()) / 2


def crps(samples: Tensor, truth: Tensor) -> Tensor:
    """Unbiased continuous ranked probability score [B] of single intensities, their mean over the image."""
    import torch

    n = samples.shape[1]
    error = (samples - truth[:, None]).abs().double().mean((1, 2, 3, 4))
    if n < 2:
        return error * float("nan")
    weights = 2.0 * torch.arange(n, device=samples.device) - (n - 1)  # sum over i < j of |x_i - x_j|, sorted
    sizes = samples.sort(1).values.double().mean((2, 3, 4))
    return error - sizes @ weights.double() / (n * (n - 1))


@lru_cache(maxsize=8)
def null_directions(operator: Operator, count: int = DIRECTIONS) -> Tensor:
    """Fixed random directions [count, 3, H, W] of length 1 that A does not see, float32; NaN where A sees all."""
    import torch

    operator = operator.to(operator.device, torch.float64)
    w = _white(operator, count)
    w = w - operator.pinv(operator.forward(w))
    length = w.flatten(1).norm(dim=1)
    length = torch.where(length > 1e-6 * w[0].numel() ** 0.5, length, torch.full_like(length, float("nan")))
    return (w / length[:, None, None, None]).float()


@lru_cache(maxsize=8)
def reference_offsets(operator: Operator, count: int = DIRECTIONS) -> Tensor:
    """What fixed reference points add to A^+ y: white noise [count, 3, H, W] of the root mean square `REFERENCE`."""
    return (REFERENCE * _white(operator, count)).float()


def _white(operator: Operator, count: int) -> Tensor:
    """Standard normal float64 [count, 3, H, W] that depends on the size alone."""
    import torch

    generator = torch.Generator().manual_seed(SEED)
    return torch.randn(count, 3, *operator.size, generator=generator, dtype=torch.float64).to(operator.device)


def along(x: Tensor, directions: Tensor) -> Tensor:
    """Coordinates [B, n, J] of images [B, n, 3, H, W] along directions [J, 3, H, W]."""
    return x.flatten(2) @ directions.flatten(1).T


def reference_distances(x: Tensor, y: Tensor, operator: Operator) -> Tensor:
    """Mean square distances [B, n, J] of images [B, n, 3, H, W] from the reference points A^+ y + offset.

    A reference that depends on y is needed: with a fixed one the samples of the prior, which ignore y, would pass.
    """
    offsets = reference_offsets(operator).flatten(1)
    d = (x - operator.pinv(y)[:, None]).flatten(2)
    squares = d.square().sum(2, keepdim=True) - 2 * d @ offsets.T + offsets.square().sum(1)
    return squares / d.shape[2]


def ranks(values: Tensor) -> Tensor:
    """Rank 0..n of every member among the others, [B, n + 1, J] for values [B, n + 1, J].

    The truth is member 0. Given y, the truth and the samples of a perfect sampler can change places: its rank is
    uniform, and what any other member's rank would be in its place gives the distribution of a statistic under that.
    """
    return values.argsort(1).argsort(1)


def members(samples: Tensor, truth: Tensor) -> Tensor:
    """The truth and the samples, [B, n + 1, 3, H, W]."""
    import torch

    return torch.cat([truth[:, None], samples], 1)


def pixel_ranks(samples: Tensor, truth: Tensor) -> Tensor:
    """Histogram [B, n + 1] of the rank 0..n of each intensity of the truth among the samples', with sum 1.

    Where samples equal the truth (8 bits, clipping), the ranks that it could have share it.
    """
    import torch

    n = samples.shape[1]
    below = torch.zeros(truth.shape, dtype=torch.long, device=truth.device)
    equal = torch.zeros_like(below)
    for x in samples.unbind(1):
        below += x < truth
        equal += x == truth
    number = (below * (n + 1) + equal).flatten(1)
    offset = (n + 1) ** 2 * torch.arange(len(truth), device=truth.device)[:, None]
    counts = torch.bincount((number + offset).flatten(), minlength=len(truth) * (n + 1) ** 2)
    rank = torch.arange(n + 1, device=truth.device)
    first, tied = rank[:, None, None], rank[None, :, None]
    share = ((rank >= first) & (rank <= first + tied)).double() / (tied + 1)
    return counts.view(len(truth), -1).double() @ share.view(-1, n + 1) / truth[0].numel()


def coverage(histogram: Tensor, level: float) -> Tensor:
    """Share [B] of intensities within the central interval of a level, from `pixel_ranks`.

    A rank k of 0..n stands for all of [k, k + 1] / (n + 1), of which the part within the interval counts: a perfect
    sampler covers exactly `level` for every n.
    """
    import torch

    edges = torch.linspace(0, 1, histogram.shape[-1] + 1, dtype=torch.float64, device=histogram.device)
    within = edges.clamp((1 - level) / 2, (1 + level) / 2).diff()
    return histogram.double() @ (within * histogram.shape[-1])


def lr_residual(samples: Tensor, y: Tensor, operator: Operator) -> Tensor:
    """Mean square residual [B] of the observation, |y - A x_i|^2 / m averaged over samples."""
    return (operator.forward(samples) - y[:, None]).square().double().mean((1, 2, 3, 4))


# where the posterior is known


def gap(samples: Tensor, mean: Tensor) -> Tensor:
    """Unbiased estimate [B] of the mean square distance of the samplers' mean from the posterior mean [B, 3, H, W]."""
    errors = gram(samples, mean)
    n = errors.shape[1]
    if n < 2:
        return errors[:, 0, 0]
    return (errors.sum((1, 2)) - mse(errors).sum(1)) / (n * (n - 1))


def variance_along(samples: Tensor, directions: Tensor) -> Tensor:
    """Variance [B, J] of samples along directions, unbiased; 0 for one sample."""
    import torch

    c = along(samples, directions).double()
    return c.var(1) if c.shape[1] > 1 else torch.zeros_like(c[:, 0])


def sliced_wasserstein(a: Tensor, b: Tensor, directions: Tensor) -> Tensor:
    """Wasserstein distance W_1 [B] between two sets of n samples along directions, their mean over directions."""
    x, y = (along(t, directions).double().sort(1).values for t in (a, b))
    return (x - y).abs().mean((1, 2))


def c2st_features(x: Tensor, mean: Tensor, directions: Tensor, operator: Operator) -> Tensor:
    """What a classifier sees [B, 2 J + 2] of one sample [B, 3, H, W] minus the posterior mean.

    Coordinates along directions, their squares relative to the typical one, and the logarithms of the mean squares of
    the difference itself and of what A sees of it.
    """
    import torch

    d = x.double() - mean
    c = along(d[:, None].float(), directions)[:, 0].double()
    size, seen = (v.square().mean((1, 2, 3)) for v in (d, operator.forward(d.float()).double()))
    return torch.cat([c, c.square(), (torch.stack([size, seen], 1) + 1e-10).log()], 1)

"""A diffusion prior as samplers see it: (x_t, t) -> (x0, noise) on a discrete schedule.

Images are in the network's units, [-1, 1]. x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise; t = -1 stands for
no noise at all. What the network predicts and how its schedule is called ends here (the idea of
github:crowsonkb/k-diffusion, external.py).
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Prediction = Literal["noise", "velocity", "clean"]
Variance = Literal["small", "large"]
Network = Callable[[Tensor, Tensor], Tensor]


class Estimate(NamedTuple):
    """What a prior knows of x_t.

    Attributes:
        x0: the mean of x_0 given x_t, [B, 3, H, W]; not clipped.
        noise: the noise that belongs to it: x_t = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) noise.
        mixing: the variance of an ancestral step, from -1 (the posterior's) to 1 (beta), learned or fixed; None for
            the posterior's.

    """

    x0: Tensor
    noise: Tensor
    mixing: Tensor | None = None


class Levels:
    """The noise levels of a discrete schedule, as numbers.

    Args:
        alpha_bar: float64 [T], falling.

    """

    def __init__(self, alpha_bar: Tensor) -> None:
        self._kept = [*alpha_bar.double().tolist(), 1.0]  # -1 is the last one: no noise

    @property
    def steps(self) -> int:
        """T, the length of the schedule."""
        return len(self._kept) - 1

    def kept(self, t: int) -> float:
        """alpha_bar at a step; 1 at -1."""
        return self._kept[t]

    def signal(self, t: int) -> float:
        """Factor of the image in x_t, sqrt(alpha_bar)."""
        return math.sqrt(self.kept(t))

    def noise(self, t: int) -> float:
        """Factor of the noise in x_t, sqrt(1 - alpha_bar)."""
        return math.sqrt(1 - self.kept(t))

    def level(self, t: int) -> float:
        """Standard deviation of the noise where the image has the factor 1: `noise` / `signal`."""
        return self.noise(t) / self.signal(t)

    def nearest(self, level: float) -> int:
        """The step whose `level` is nearest, in ratio."""
        above = bisect.bisect(range(self.steps), level, key=self.level)
        around = range(max(above - 1, 0), min(above + 1, self.steps))
        return min(around, key=lambda t: abs(math.log(self.level(t) / level)))


class DiffusionPrior(Levels):
    """A network and its schedule.

    Args:
        network: (x_t [B, 3, H, W], t [B]) -> [B, 3, H, W], or [B, 6, H, W] with a learned variance behind.
        alpha_bar: float64 [T], falling.
        prediction: what the network's output stands for: the noise, the velocity (Salimans & Ho 2022) or x_0.
        variance: of the steps where the network has not learned it: the posterior's ("small") or beta ("large").
        learned: whether a learned variance is used where there is one.

    """

    def __init__(
        self,
        network: Network,
        alpha_bar: Tensor,
        prediction: Prediction = "noise",
        variance: Variance = "small",
        learned: bool = True,
    ) -> None:
        super().__init__(alpha_bar)
        self.network = network
        self.prediction: Prediction = prediction
        self.variance: Variance = variance
        self.learned = learned

    def __call__(self, x: Tensor, t: int) -> Estimate:
        """Estimate x_0 and the noise in x = x_t [B, 3, H, W]."""
        out = self.network(x, torch.full((len(x),), t, device=x.device))
        mixing: Tensor | None = x.new_ones(()) if self.variance == "large" else None
        if out.shape[1] == 2 * x.shape[1]:
            out, found = out.chunk(2, 1)
            mixing = found if self.learned else mixing
        signal, noise = self.signal(t), self.noise(t)
        if self.prediction == "noise":
            return Estimate((x - noise * out) / signal, out, mixing)
        if self.prediction == "velocity":
            return Estimate(signal * x - noise * out, noise * x + signal * out, mixing)
        return Estimate(out, (x - signal * out) / noise, mixing)

    def noised(self, x0: Tensor, noise: Tensor, t: int) -> Tensor:
        """x_t of a clean image and its noise."""
        return self.signal(t) * x0 + self.noise(t) * noise

    def ancestral(self, x: Tensor, estimate: Estimate, t: int, u: int, noise: Tensor) -> Tensor:
        """Draw x_u given x_t and x_0 = its estimate (DDPM), u < t, with the estimate's variance."""
        kept, before = self.kept(t), self.kept(u)
        alpha = kept / before
        beta = 1 - alpha
        mean = (math.sqrt(before) * beta * estimate.x0 + math.sqrt(alpha) * (1 - before) * x) / (1 - kept)
        if u < 0:
            return mean
        low = beta * (1 - before) / (1 - kept)
        if estimate.mixing is None:
            return mean + math.sqrt(low) * noise
        share = (estimate.mixing + 1) / 2
        return mean + torch.exp(0.5 * (share * math.log(beta) + (1 - share) * math.log(low))) * noise


def even(total: int, steps: int) -> list[int]:
    """`steps` of the steps 0 to total - 1, falling, every (total / steps)-th down to 0, rounded (DDIM)."""
    return [i * total // steps for i in reversed(range(steps))]


def spread(total: int, steps: int) -> list[int]:
    """`steps` of the steps, falling from total - 1 to 0 and evenly spaced, rounded (guided-diffusion)."""
    return [round(i * (total - 1) / (steps - 1)) for i in reversed(range(steps))] if steps > 1 else [total - 1]


def quadratic(total: int, steps: int) -> list[int]:
    """`steps` of the steps, falling from total - 1 to 0, dense near 0 (DiffPIR, "quad")."""
    if steps == 1:
        return [total - 1]
    return [total - 1 - min(int(total * math.sqrt(i / (steps - 1))), total - 1) for i in range(steps)]


def polynomial(first: float, last: float, count: int) -> list[float]:
    """`count` noise levels from first to last, evenly spaced in their seventh root (EDM)."""
    a, b = first ** (1 / 7), last ** (1 / 7)
    return [(a + i / (count - 1) * (b - a)) ** 7 for i in range(count)]


def pairs(times: list[int]) -> list[tuple[int, int]]:
    """Each step with the next, less noisy one; the last one with -1."""
    return list(zip(times, [*times[1:], -1], strict=True))

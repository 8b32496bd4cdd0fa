"""Denoising diffusion null-space model, DDNM and its noisy form DDNM+ (Wang et al., ICLR 2023).

Source: github:wyhuai/DDNM, functions/svd_ddnm.py; scripts/compare_samplers.py runs it beside this.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from bench.contract import Facts, register_method
from methods.diffusion.prior import even
from methods.diffusion.sampler import DiffusionSampler, Normal, Task


def travel(steps: int, length: int, repeat: int) -> list[tuple[int, int]]:
    """Moves (from, to) among the positions steps - 1 to -1; an upward one adds noise again (RePaint's schedule)."""
    left = {i: repeat - 1 for i in range(0, steps - length, length)}
    moves, here = [], steps - 1
    while here >= 0:
        back = left.get(here, 0) > 0
        left[here] = left.get(here, 0) - back
        there = here + length if back else here - 1
        moves.append((here, there))
        here = there
    return moves


@register_method("ddnm")
class Ddnm(DiffusionSampler):
    """The range of A^T is taken from y in every predicted image, weighed against y's noise.

    Args:
        eta: share of fresh noise (published: 0.85).
        travel_length: steps of a jump back.
        travel_repeat: how often each stretch is done; 1 for no jumps (published for super-resolution).

    """

    facts = Facts(
        title="DDNM",
        version=2,
        uses_tau=False,
        evaluations=100,
        citation="Wang et al., ICLR 2023 (github:wyhuai/DDNM)",
        weights_licence="MIT (shipped)",
    )

    def __init__(
        self,
        eta: Annotated[float, Field(ge=0, le=1)] = 0.85,
        travel_length: Annotated[int, Field(ge=1)] = 1,
        travel_repeat: Annotated[int, Field(ge=1)] = 1,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.eta = eta
        self.moves = travel(self.steps, travel_length, travel_repeat)

    @property
    def evaluations(self) -> int:
        """One per step down."""
        return sum(there < here for here, there in self.moves)

    def trajectory(self, task: Task, normal: Normal) -> Tensor:
        """Algorithms 1 and 2 with jumps; positions count the steps from 0, the least noisy."""
        prior = self.prior
        times = [*reversed(even(prior.steps, self.steps)), -1]
        x = x0 = normal()
        for here, there in self.moves:
            u = times[there]
            if there > here:
                x = prior.noised(x0, normal(), u)
                continue
            x0, noise, _ = prior(x, times[here])
            step = self.noisy_step if task.sigma else self.exact_step
            x = step(task, x0, noise, normal(), prior.signal(u), prior.noise(u))
        return x

    def exact_step(self, task: Task, x0: Tensor, noise: Tensor, fresh: Tensor, signal: float, rest: float) -> Tensor:
        """Without noise: A x' = y (equation 13); `signal` and `rest` are the factors of image and noise in x_u."""
        return signal * task.operator.project(x0, task.y) + rest * self.mix(noise, fresh)

    def noisy_step(self, task: Task, x0: Tensor, noise: Tensor, fresh: Tensor, signal: float, rest: float) -> Tensor:
        """With noise (equations 17 to 19, 51): y's own noise is part of the noise in x_u."""
        spread = signal * task.spread
        early = rest >= spread  # y is less noisy than x_u
        share = torch.where(early, 1.0, rest * math.sqrt(1 - self.eta**2) / spread)
        std = torch.where(early, (rest**2 - spread.square()).clamp(min=0).sqrt(), self.eta * rest)
        c0, e, f = (task.svd.v_t(v) for v in (x0, noise, fresh))
        seen = signal * (c0 + share * (task.z - c0)) + std * f
        return task.svd.v(torch.where(task.s > 0, seen, signal * c0 + rest * self.mix(e, f)))

    def mix(self, noise: Tensor, fresh: Tensor) -> Tensor:
        """The predicted noise with a share of fresh noise."""
        return math.sqrt(1 - self.eta**2) * noise + self.eta * fresh

"""The learning rate of every step, and how fast the averaged weights forget."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

import torch
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

if TYPE_CHECKING:
    from bench.training.config import TrainConfig
    from bench.training.trainer import State

# a step whose gradient is too large is skipped by the optimiser and counted by the schedule
warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")


def ema_decay(step: int, limit: float) -> float:
    """Weight of the past in the averaged weights: shorter at first, so that the initial weights are forgotten."""
    return min(limit, (1 + step) / (10 + step))


class Schedule:
    """Warmup, times a cosine, or a factor that falls at `milestones` or where validation does not improve.

    It is never below `min_lr`.

    Each rate follows from the step, and from ``best``, ``bad`` and ``factor`` of the state, so that any step can be
    resumed.
    """

    def __init__(self, optimizer: Optimizer, config: TrainConfig, state: State) -> None:
        self.config = config
        # the scheduler reduces the rate of an optimizer, here a factor of the rate of ours
        self._plateau = ReduceLROnPlateau(
            SGD([torch.zeros(1)], lr=state.factor), factor=0.1, patience=config.patience, threshold=0.01, eps=0
        )
        self._plateau.best, self._plateau.num_bad_epochs = state.best, state.bad
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] = config.lr
        self._rates = LambdaLR(optimizer, self._multiplier, last_epoch=state.step - 1)

    def step(self) -> None:
        """Set the rate of the next step."""
        self._rates.step()

    def judge(self, loss: float, state: State) -> None:
        """Take note of a validation: without 1% of improvement in more than `patience` the factor falls to a tenth."""
        if self.config.schedule == "plateau":
            self._plateau.step(loss)
            state.best, state.bad = self._plateau.best, self._plateau.num_bad_epochs
            state.factor = self._factor

    @property
    def _factor(self) -> float:
        return float(self._plateau.optimizer.param_groups[0]["lr"])

    def _multiplier(self, step: int) -> float:
        c = self.config
        multiplier = min(1.0, (step + 1) / max(1, c.warmup)) * self._factor
        if c.schedule == "cosine":
            multiplier *= 0.5 * (1 + math.cos(math.pi * min(1.0, step / c.steps)))
        if c.schedule == "multistep":
            multiplier *= c.gamma ** sum(step + 1 >= milestone for milestone in c.milestones)
        return max(multiplier, c.min_lr / c.lr)

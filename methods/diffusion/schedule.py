"""Noise schedules as tables: alpha_bar, the share of the signal's variance that is kept after each step."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

TRAIN_STEPS = 1000


def linear(steps: int = TRAIN_STEPS, first: float = 1e-4, last: float = 0.02) -> Tensor:
    """alpha_bar of DDPM's schedule (Ho et al. 2020): betas rise linearly; float64 [steps]."""
    return torch.cumprod(1 - torch.linspace(first, last, steps, dtype=torch.float64), 0)


def cosine(steps: int = TRAIN_STEPS, offset: float = 0.008) -> Tensor:
    """alpha_bar of the cosine schedule (Nichol & Dhariwal 2021) with betas up to 0.999; float64 [steps]."""
    kept = torch.cos((torch.linspace(0, 1, steps + 1, dtype=torch.float64) + offset) / (1 + offset) * math.pi / 2) ** 2
    return torch.cumprod((kept[1:] / kept[:-1]).clamp(min=0.001), 0)


SCHEDULES: dict[str, Callable[[], Tensor]] = {"linear": linear, "cosine": cosine}
"""alpha_bar by name."""


class Schedule(nn.Module):
    """Coefficients of a schedule for training, one per step, as float32 buffers [T].

    Args:
        kept: alpha_bar, float64 [T].

    """

    def __init__(self, kept: Tensor) -> None:
        super().__init__()
        before = torch.cat([torch.ones(1, dtype=torch.float64), kept[:-1]])
        beta = 1 - kept / before
        posterior = beta * (1 - before) / (1 - kept)
        posterior[0] = posterior[1]  # the first one is 0, its logarithm is needed
        for name, value in {
            "signal": kept.sqrt(),
            "noise": (1 - kept).sqrt(),
            "log_beta": beta.log(),
            "log_posterior": posterior.log(),
            "from_x0": beta * before.sqrt() / (1 - kept),
            "from_xt": (1 - before) * (1 - beta).sqrt() / (1 - kept),
        }.items():
            self.register_buffer(name, value.float(), persistent=False)

    def at(self, name: str, t: Tensor) -> Tensor:
        """Values of a coefficient at steps t [B], as [B, 1, 1, 1]."""
        buffer = getattr(self, name)
        assert isinstance(buffer, Tensor)
        return buffer[t][:, None, None, None]

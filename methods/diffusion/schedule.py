"""The linear noise schedule of DDPM (Ho et al. 2020) with 1000 steps."""

from __future__ import annotations

import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn

TRAIN_STEPS = 1000


class Schedule(nn.Module):
    """Coefficients of the linear schedule, one per step, as float32 buffers [1000]."""

    def __init__(self) -> None:
        super().__init__()
        beta = torch.linspace(1e-4, 0.02, TRAIN_STEPS, dtype=torch.float64)
        kept = torch.cumprod(1 - beta, 0)
        before = torch.cat([torch.ones(1, dtype=torch.float64), kept[:-1]])
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


def make_scheduler(steps: int, clip: bool = True) -> DDPMScheduler:
    """Ancestral sampling with learned-range variance on `steps` of the 1000 steps of a linear schedule.

    `clip` keeps the predicted clean image within [-1, 1].
    """
    scheduler = DDPMScheduler(
        num_train_timesteps=TRAIN_STEPS,
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        variance_type="learned_range",
        clip_sample=clip,
        timestep_spacing="linspace",
    )
    scheduler.set_timesteps(steps)
    return scheduler

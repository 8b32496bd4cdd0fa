"""Diffusion posterior sampling (Chung et al., ICLR 2023, algorithm 1) on diffusers' ancestral scheduler.

Source: github:DPS2022/diffusion-posterior-sampling; scripts/compare_dps.py runs it beside this.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from diffusers import DDPMScheduler
from pydantic import Field
from torch import Tensor, nn

from bench.contract import Facts, Noise, register_method
from bench.network import NetworkMethod
from bench.operators import Operator
from methods.diffusion.checkpoints import load_weights
from methods.diffusion.schedule import TRAIN_STEPS, make_scheduler
from methods.diffusion.unet import Prior, UnetConfig

GuidanceSchedule = Literal["constant", "noise"]


@register_method("dps")
class Dps(NetworkMethod):
    """DPS with an unconditional diffusion prior; one prior serves every operator.

    Args:
        unet: shape of the prior.
        weights: file; a bare name is looked for among the shipped weights.
        steps: ancestral steps, respaced from 1000 (published: 1000).
        guidance: step size of the gradient (published: 0.3). With fewer steps it must be larger.
        guidance_schedule: "constant" or "noise"; see :func:`posterior_sample`.
        clip: whether the predicted clean image is kept within [-1, 1] at every step (published: yes).
        coupled: the published norm over the whole batch; results then depend on the rows that compute together.

    """

    facts = Facts(
        title="DPS",
        uses_tau=False,
        evaluations=1000,
        citation="Chung et al., ICLR 2023 (github:DPS2022/diffusion-posterior-sampling)",
        weights_licence="MIT (shipped); not stated (ffhq_10m)",
    )

    def __init__(
        self,
        unet: UnetConfig,
        weights: str,
        steps: Annotated[int, Field(ge=2, le=TRAIN_STEPS)] = TRAIN_STEPS,
        guidance: float = 0.3,
        guidance_schedule: GuidanceSchedule = "constant",
        clip: bool = True,
        coupled: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.config = unet
        self.weights = weights
        self.steps = steps
        self.guidance = guidance
        self.guidance_schedule: GuidanceSchedule = guidance_schedule
        self.clip = clip
        self.coupled = coupled

    @property
    def size(self) -> tuple[int, int]:
        """The prior's."""
        return self.config.size, self.config.size

    @property
    def evaluations(self) -> int:
        """One per step, each with its gradient."""
        return self.steps

    def load(self) -> None:
        """Build the network and load its weights."""
        self.prior = Prior(self.config)
        self.loaded = {"prior": load_weights(self.prior, self.weights)}
        self.place(self.prior)
        if self.compute.checkpointing:
            self.prior.unet.enable_gradient_checkpointing()

    def draw(self, y: Tensor, n: int, tau: float | None, noise: Noise) -> Tensor:
        """Sample; see :func:`posterior_sample`. There is no temperature."""
        start = noise.normal(3, *self.operator.size).flatten(0, 1)
        y_of_row = y.repeat_interleave(n, 0)
        scheduler = make_scheduler(self.steps, self.clip)
        parts = []
        with self.autocast():
            for part in self.pieces(len(start)):
                parts.append(
                    posterior_sample(
                        self.prior, scheduler, y_of_row[part], self.operator, start[part], noise.streams[part],
                        self.guidance, self.guidance_schedule, self.coupled,
                    )
                )  # fmt: skip
        return self.finish((torch.cat(parts) + 1) / 2, y)


def posterior_sample(
    prior: nn.Module,
    scheduler: DDPMScheduler,
    y: Tensor,
    operator: Operator,
    start: Tensor,
    generators: Sequence[torch.Generator],
    guidance: float,
    schedule: GuidanceSchedule = "constant",
    coupled: bool = False,
) -> Tensor:
    """Sample x given y.

    Args:
        prior: predicts noise and variance, as :class:`methods.diffusion.unet.Prior`.
        scheduler: from :func:`make_scheduler`.
        y: observations [B, 3, h, w] in [0, 1].
        operator: what made y.
        start: standard normal x_T [B, 3, H, H].
        generators: one per row, for the noise of the steps.
        guidance: step size zeta of the gradient of the distance (published: 0.3).
        schedule: "constant" (published); "noise" multiplies zeta by the standard deviation of the noise in x_t, so
            that guidance fades out at the end.
        coupled: take one norm over the whole batch, as the published code does; its results depend on the batch size
            (its issue 12). Off, each row has its own norm, so that a batch gives what single images give.

    Returns:
        [B, 3, H, H] in [-1, 1] or a little beyond.

    """
    x, target = start, 2 * y - 1
    for t in scheduler.timesteps:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            step = scheduler.step(prior(x, t), t, x, generator=list(generators))
            residual = (target - operator.forward(step.pred_original_sample)).flatten(1)
            distance = residual.norm() if coupled else residual.norm(dim=1).sum()
            (gradient,) = torch.autograd.grad(distance, x)
        fade = 1.0 if schedule == "constant" else float(1 - scheduler.alphas_cumprod[t]) ** 0.5
        x = step.prev_sample.detach() - guidance * fade * gradient
    return x.detach()

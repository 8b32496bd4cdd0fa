"""DPS as a method of the benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from bench.contract import Degradation, Facts, Method, Noise, register_method
from bench.network import check_option, check_range, check_size, finish, pieces
from bench.weights import fill_module, find_weights, read_tensors
from methods.dps.sampler import GuidanceSchedule, make_scheduler, posterior_sample
from methods.dps.unet import Prior, UnetConfig, from_guided_diffusion

SHIPPED = Path(__file__).parent / "shipped"


def load_weights(prior: Prior, weights: str | Path) -> Path:
    """Load ours (safetensors) or a guided-diffusion ``.pt`` such as ffhq_10m into a prior; return the file.

    Raises:
        BenchError: missing, truncated or mismatching weights.

    """
    path = find_weights(weights, SHIPPED)
    state = read_tensors(path)
    if "input_blocks.0.0.weight" in state:
        state = from_guided_diffusion(state, prior.config)
    fill_module(prior.unet, state, prior.unet.state_dict(), path)
    return path


@register_method("dps")
class Dps(Method):
    """DPS with an unconditional diffusion prior; one prior serves every scale factor.

    Args:
        unet: keys of :class:`methods.dps.unet.UnetConfig`.
        weights: file; a bare name is looked for among the shipped weights.
        steps: ancestral steps, respaced from 1000 (published: 1000).
        guidance: step size of the gradient (published: 0.3). With fewer steps it must be larger.
        guidance_schedule: "constant" or "noise"; see :func:`methods.dps.sampler.posterior_sample`.
        clip: whether the predicted clean image is kept within [-1, 1] at every step (published: yes).
        coupled: the published norm over the whole batch; results then depend on `batch`.
        project: whether samples are made consistent with y (published: no).
        batch: samples that go through the network together; memory grows with it.
        checkpointing: compute activations twice instead of keeping them: less memory, more time.
        channels_last: memory format of the network.
        precision: "32", or "bf16" for the network's evaluations.
        compile: whether the network goes through torch.compile.

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
        unet: Mapping[str, Any],
        weights: str,
        steps: int = 1000,
        guidance: float = 0.3,
        guidance_schedule: GuidanceSchedule = "constant",
        clip: bool = True,
        coupled: bool = False,
        project: bool = False,
        batch: int = 1,
        checkpointing: bool = False,
        channels_last: bool = False,
        precision: Literal["32", "bf16"] = "32",
        compile: bool = False,
    ) -> None:
        check_range("steps", steps, 2, 1000)
        check_range("batch", batch, 1)
        check_option("guidance_schedule", guidance_schedule, ("constant", "noise"))
        check_option("precision", str(precision), ("32", "bf16"))
        self.config = UnetConfig(**unet)
        self.file = weights
        self.steps = steps
        self.guidance = guidance
        self.guidance_schedule: GuidanceSchedule = guidance_schedule
        self.clip = clip
        self.coupled = coupled
        self.project = project
        self.batch = batch
        self.checkpointing = checkpointing
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.bf16 = str(precision) == "bf16"
        self.compile = compile

    def prepare(self, degradation: Degradation, device: torch.device) -> None:
        """Build the network and load its weights."""
        check_size(degradation, self.config.size)
        self.degradation = degradation
        self.prior = Prior(self.config).eval().requires_grad_(False)
        self.path = load_weights(self.prior, self.file)
        self.prior.to(device).to(memory_format=self.memory_format)
        if self.checkpointing:
            self.prior.unet.enable_gradient_checkpointing()
        if self.compile:
            self.prior.compile()

    def sample(self, y: Tensor, n: int, tau: float | None, noise: Noise) -> Tensor:
        """Sample; see :func:`methods.dps.sampler.posterior_sample`. There is no temperature."""
        size = self.config.size
        start = noise.normal(3, size, size).flatten(0, 1)
        rows = y.repeat_interleave(n, 0)
        scheduler = make_scheduler(self.steps, self.clip)
        parts = []
        with torch.autocast(y.device.type, torch.bfloat16, enabled=self.bf16):
            for part in pieces(len(rows), self.batch):
                parts.append(
                    posterior_sample(
                        self.prior, scheduler, rows[part], self.degradation, start[part], noise.streams[part],
                        self.guidance, self.guidance_schedule, self.coupled,
                    )
                )  # fmt: skip
        x = ((torch.cat(parts) + 1) / 2).unflatten(0, (len(y), n))
        return finish(x, y, self.degradation, self.project)

    @property
    def evaluations(self) -> int:
        """One per step, each with its gradient."""
        return self.steps

    def weights(self) -> Sequence[Path]:
        """The prior's file."""
        return [self.path]

"""SR3 as a method of the benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.contract import Degradation, Facts, Method, Noise, register_method
from bench.network import check_option, check_range, check_size, file_of_scale, finish, pieces
from bench.weights import fill_module, find_weights, read_tensors
from methods.sr3.sampler import SamplerName, make_scheduler, sample
from methods.sr3.unet import Sr3Config, Sr3Unet

SHIPPED = Path(__file__).parent / "shipped"
PREFIX = "denoise_fn."
"""Of the network's names in the public checkpoints (``*_gen.pth``), which hold the schedule as well."""


def load_weights(network: Sr3Unet, weights: str | Path) -> Path:
    """Load ours (safetensors) or a public ``*_gen.pth`` into a network; return the file.

    Raises:
        BenchError: missing, truncated or mismatching weights.

    """
    path = find_weights(weights, SHIPPED)
    state = {k.removeprefix("module.").removeprefix(PREFIX): v for k, v in read_tensors(path).items()}
    fill_module(network, state, network.state_dict(), path)
    return path


@register_method("sr3")
class Sr3(Method):
    """SR3 with one network per scale.

    Args:
        unet: keys of :class:`methods.sr3.unet.Sr3Config`.
        weights: "x4", "x8" to file; a bare name is looked for among the shipped weights.
        steps: steps out of 2000 (published: all).
        sampler: "ancestral" (published) or "ddim", deterministic after the first noise.
        project: whether samples are made consistent with y, against the colour shift (paper, section 4.1).
        batch: samples that go through the network together.
        channels_last: memory format of the network.

    """

    facts = Facts(
        title="SR3",
        scales=(4, 8),
        uses_tau=False,
        evaluations=2000,
        citation="Saharia et al. 2021 (github:Janspiry/Image-Super-Resolution-via-Iterative-Refinement)",
        weights_licence="MIT (shipped)",
    )

    def __init__(
        self,
        unet: Mapping[str, Any],
        weights: Mapping[str, str | None],
        steps: int = 2000,
        sampler: SamplerName = "ancestral",
        project: bool = True,
        batch: int = 1,
        channels_last: bool = False,
    ) -> None:
        check_range("steps", steps, 2, 2000)
        check_range("batch", batch, 1)
        check_option("sampler", sampler, ("ancestral", "ddim"))
        self.config = Sr3Config(**unet)
        self.files = dict(weights)
        self.steps = steps
        self.sampler: SamplerName = sampler
        self.project = project
        self.batch = batch
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format

    def prepare(self, degradation: Degradation, device: torch.device) -> None:
        """Build the network for one scale and load its weights."""
        check_size(degradation, self.config.size)
        file = file_of_scale(self.files, degradation.scale, "sr3")
        self.degradation = degradation
        self.network = Sr3Unet(self.config).eval().requires_grad_(False)
        self.path = load_weights(self.network, file)
        self.network.to(device).to(memory_format=self.memory_format)

    def sample(self, y: Tensor, n: int, tau: float | None, noise: Noise) -> Tensor:
        """Sample; see :func:`methods.sr3.sampler.sample`. There is no temperature."""
        size = self.config.size
        start = noise.normal(3, size, size).flatten(0, 1)
        condition = (2 * self.degradation.up(y) - 1).repeat_interleave(n, 0)
        scheduler = make_scheduler(self.steps, self.sampler)
        parts = []
        for part in pieces(len(start), self.batch):
            parts.append(sample(self.network, scheduler, condition[part], start[part], noise.streams[part]))
        x = ((torch.cat(parts) + 1) / 2).unflatten(0, (len(y), n))
        return finish(x, y, self.degradation, self.project)

    @property
    def evaluations(self) -> int:
        """One per step."""
        return self.steps

    def weights(self) -> Sequence[Path]:
        """The file of the scale that is prepared."""
        return [self.path]

"""SR3 as a method of the benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from bench.contract import Facts, Noise, register_method
from bench.network import NetworkMethod, check_scale
from methods.sr3.checkpoints import load_weights
from methods.sr3.condition import Condition, upsample
from methods.sr3.sampler import TRAIN_STEPS, SamplerName, moves_of, sample
from methods.sr3.unet import Sr3Config, Sr3Unet


@register_method("sr3")
class Sr3(NetworkMethod):
    """SR3 with one network per scale.

    Args:
        unet: shape of the network.
        weights: "x4", "x8" to file; a bare name is looked for among the shipped weights.
        steps: steps out of 2000 (published: all).
        sampler: "ancestral" (published) or "ddim", deterministic after the first noise.
        condition: enlargement of y that the network sees: "exact", or "pil" (8 bits) for the public checkpoints.
        project: whether samples are made consistent with y, against the colour shift (paper, section 4.1).

    """

    facts = Facts(
        title="SR3",
        scales=(4, 8),
        operators=("bicubic",),
        sigmas=(0.0,),
        uses_tau=False,
        evaluations=2000,
        citation="Saharia et al. 2021 (github:Janspiry/Image-Super-Resolution-via-Iterative-Refinement)",
        weights_licence="MIT (shipped)",
        version=2,
    )

    def __init__(
        self,
        unet: Sr3Config,
        weights: Mapping[str, str | None],
        steps: Annotated[int, Field(ge=2, le=TRAIN_STEPS)] = TRAIN_STEPS,
        sampler: SamplerName = "ancestral",
        condition: Condition = "exact",
        project: bool = True,
        **common: Any,
    ) -> None:
        super().__init__(project=project, **common)
        self.config = unet
        self.weights = weights
        self.steps = steps
        self.sampler: SamplerName = sampler
        self.condition: Condition = condition

    @property
    def size(self) -> tuple[int, int]:
        """The network's."""
        return self.config.size, self.config.size

    @property
    def evaluations(self) -> int:
        """One per step."""
        return self.steps

    def load(self) -> None:
        """Build the network for one scale and load its weights."""
        self.network = Sr3Unet(self.config)
        file = check_scale(self.weights, self.operator.scale, "sr3", "weights")
        self.loaded = {"network": load_weights(self.network, file)}
        self.place(self.network)

    def draw(self, y: Tensor, n: int, tau: float | None, noise: Noise) -> Tensor:
        """Sample; see :func:`methods.sr3.sampler.sample`. There is no temperature."""
        condition = upsample(y, self.operator.size, self.condition).repeat_interleave(n, 0)
        moves = moves_of(self.steps)
        x = self.by_rows(noise, lambda part, normal: sample(self.network, moves, condition[part], normal, self.sampler))
        return self.finish((x + 1) / 2, y)

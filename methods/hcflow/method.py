"""HCFlow as a method of the benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bench.contract import Facts, Noise, register_method
from bench.errors import BenchError
from bench.network import NetworkMethod, check_scale
from methods.hcflow.checkpoints import load_weights
from methods.hcflow.flow import Hcflow, HcflowConfig


def flow_config(flows: Mapping[str, HcflowConfig], scale: int) -> HcflowConfig:
    """The flow for a scale factor.

    Raises:
        BenchError: there is none, or its levels do not make that factor.

    """
    config: HcflowConfig = check_scale(flows, scale, "hcflow", "flow")
    if 2**config.levels != scale:
        raise BenchError(f"A flow of {config.levels} levels is for x{2**config.levels}, not x{scale}: change levels.")
    return config


@register_method("hcflow")
class HcflowMethod(NetworkMethod):
    """HCFlow with one flow per scale; tau scales the latents.

    Args:
        flow: "x4", "x8" to the shape of the flow.
        weights: "x4", "x8" to file; a bare name is looked for among the shipped weights.

    """

    facts = Facts(
        title="HCFlow",
        scales=(4, 8),
        operators=("bicubic",),
        sigmas=(0.0,),
        citation="Liang et al., ICCV 2021 (github:JingyunLiang/HCFlow)",
        weights_licence="MIT (shipped); Apache-2.0 (official)",
    )

    def __init__(self, flow: Mapping[str, HcflowConfig], weights: Mapping[str, str | None], **common: Any) -> None:
        super().__init__(**common)
        self.flows, self.weights = flow, weights

    def load(self) -> None:
        """Build the flow for one scale, load its weights and invert its convolutions once."""
        scale = self.operator.scale
        self.model = Hcflow(flow_config(self.flows, scale))
        self.loaded = {"flow": load_weights(self.model, check_scale(self.weights, scale, "hcflow", "weights"))}
        self.place(self.model)
        self.model.freeze()

    def draw(self, y: Tensor, n: int, tau: float | None, noise: Noise) -> Tensor:
        """Sample; see :meth:`methods.hcflow.flow.Hcflow.generate`."""
        assert tau is not None
        latents = [noise.normal(*shape).flatten(0, 1) * tau for shape in self.model.shapes(self.operator.size)]
        y_of_row = y.repeat_interleave(n, 0)
        with self.autocast():
            coarse = self.model.coarse_features(y).repeat_interleave(n, 0)
            parts = [
                self.model.generate(y_of_row[part], [z[part] for z in latents], coarse[part])
                for part in self.pieces(len(y_of_row))
            ]
        return self.finish(torch.cat(parts), y)

"""HCFlow as a method of the benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.contract import Degradation, Facts, Method, Noise, register_method
from bench.errors import BenchError
from bench.network import check_range, file_of_scale, finish, pieces
from bench.weights import fill_module, find_weights, read_tensors
from methods.hcflow.flow import Hcflow, HcflowConfig

SHIPPED = Path(__file__).parent / "shipped"


def flow_config(flows: Mapping[str, Mapping[str, Any]], scale: int) -> HcflowConfig:
    """The flow for a scale factor.

    Raises:
        BenchError: there is none, or its levels do not make that factor.

    """
    if f"x{scale}" not in flows:
        raise BenchError(f"scale={scale} has no flow: add flow.x{scale}.")
    settings = dict(flows[f"x{scale}"])
    config = HcflowConfig(**{**settings, "blocks": tuple(settings.get("blocks", HcflowConfig.blocks))})
    if 2**config.levels != scale:
        raise BenchError(f"A flow of {config.levels} levels is for x{2**config.levels}, not x{scale}: change levels.")
    return config


def load_weights(model: Hcflow, weights: str | Path) -> Path:
    """Load ours (safetensors) or an official checkpoint (``.pth`` state dict) into a flow; return the file.

    Raises:
        BenchError: missing, truncated or mismatching weights.

    """
    path = find_weights(weights, SHIPPED)
    state = {k.removeprefix("module."): v for k, v in read_tensors(path).items()}
    fill_module(model, state, model.state_dict(), path)
    return path


@register_method("hcflow")
class HcflowMethod(Method):
    """HCFlow with one flow per scale; tau scales the latents.

    Args:
        flow: "x4", "x8" to keys of :class:`methods.hcflow.flow.HcflowConfig`.
        weights: "x4", "x8" to file; a bare name is looked for among the shipped weights.
        project: whether samples are made consistent with y (published: no).
        batch: samples that go through the flow together; at full size on a CPU one is the fastest.
        channels_last: memory format of the network.

    """

    facts = Facts(
        title="HCFlow",
        scales=(4, 8),
        citation="Liang et al., ICCV 2021 (github:JingyunLiang/HCFlow)",
        weights_licence="MIT (shipped); Apache-2.0 (official)",
    )

    def __init__(
        self,
        flow: Mapping[str, Mapping[str, Any]],
        weights: Mapping[str, str | None],
        project: bool = False,
        batch: int = 1,
        channels_last: bool = False,
    ) -> None:
        check_range("batch", batch, 1)
        self.batch = batch
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.flows, self.files, self.project = dict(flow), dict(weights), project

    def prepare(self, degradation: Degradation, device: torch.device) -> None:
        """Build the flow for one scale, load its weights and invert its convolutions once."""
        config = flow_config(self.flows, degradation.scale)
        file = file_of_scale(self.files, degradation.scale, "hcflow")
        self.degradation = degradation
        self.model = Hcflow(config).eval().requires_grad_(False)
        self.path = load_weights(self.model, file)
        self.model.to(device).to(memory_format=self.memory_format).freeze()

    def sample(self, y: Tensor, n: int, tau: float | None, noise: Noise) -> Tensor:
        """Sample; see :meth:`methods.hcflow.flow.Hcflow.generate`."""
        shapes = self.model.shapes(self.degradation.size)
        latents = [noise.normal(*shape).flatten(0, 1) * (1.0 if tau is None else tau) for shape in shapes]
        rows = y.repeat_interleave(n, 0)
        parts = []
        with torch.no_grad():
            coarse = self.model.coarse_features(y).repeat_interleave(n, 0)
            for part in pieces(len(rows), self.batch):
                parts.append(self.model.generate(rows[part], [z[part] for z in latents], coarse[part]))
        x = torch.cat(parts).unflatten(0, (len(y), n))
        return finish(x, y, self.degradation, self.project)

    def weights(self) -> Sequence[Path]:
        """The file of the scale that is prepared."""
        return [self.path]

"""MATLAB's bicubic enlargement, the deterministic baseline of the paper's Table 1."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.contract import Degradation, Facts, Method, Noise, register_method


@register_method("bicubic")
class Bicubic(Method):
    """Keys' cubic interpolation (1981) as in MATLAB's ``imresize``."""

    facts = Facts(
        title="Bicubic",
        uses_tau=False,
        deterministic=True,
        evaluations=0,
        citation="R. Keys, Cubic convolution interpolation for digital image processing, IEEE TASSP 1981",
    )

    def prepare(self, degradation: Degradation, device: torch.device) -> None:
        """Keep the operator; there is nothing to load."""
        self.degradation = degradation

    def sample(self, y: Tensor, n: int, tau: float | None, noise: Noise) -> Tensor:
        """Enlarge and repeat `n` times."""
        x = self.degradation.up(y).clamp(0, 1)
        return x[:, None].expand(-1, n, -1, -1, -1).contiguous()

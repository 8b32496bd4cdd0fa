"""MATLAB's bicubic enlargement, the deterministic baseline of the paper's Table 1."""

from __future__ import annotations

from torch import Tensor

from bench.contract import Facts, Method, Noise, register_method
from bench.operators.bicubic import enlarge


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

    def draw(self, y: Tensor, n: int, tau: float | None, noise: Noise) -> Tensor:
        """Enlarge and repeat `n` times."""
        x = self.operator.clip(enlarge(y, self.operator.size))
        return x[:, None].expand(-1, n, -1, -1, -1).contiguous()

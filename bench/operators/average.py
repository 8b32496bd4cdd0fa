"""Average pooling: every observed pixel is the mean of a square of pixels."""

from __future__ import annotations

import numpy as np

from bench.operators import OperatorFacts, register_operator
from bench.operators.separable import Separable


@register_operator("average")
class Average(Separable):
    """Means over squares of scale x scale pixels; all singular values are 1 / scale, A^+ repeats each pixel."""

    facts = OperatorFacts(title="Average pooling", source="as in DDRM and DDNM (SR with block averages)")

    def matrix(self, side: int) -> np.ndarray:
        """Rows of 1 / scale."""
        return np.kron(np.eye(side // self.scale), np.full((1, self.scale), 1 / self.scale))

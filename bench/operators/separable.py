"""Operators that act along rows and columns apart: y = D_h x D_w^T with two small dense matrices.

Adjoint, pseudo-inverse and singular value decomposition are exact and cost as little as the operator itself.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from bench.errors import BenchError
from bench.operators import Operator, Svd

RANK = 1e-9
"""Singular values below this share of the largest are zero."""


class Separable(Operator):
    """y = D_h x D_w^T, where D is the operator's `matrix` for a side; built in float64 and kept in `dtype`."""

    def __init__(self, size: int | tuple[int, int], scale: int, **common: Any) -> None:
        super().__init__(size, scale, **common)
        self._exact = [_Side(self.matrix(side)) for side in self.size]
        self._round()

    def _round(self) -> None:
        self._down = [_tensor(s.down, self) for s in self._exact]
        self._pinv = [_tensor(s.pinv, self) for s in self._exact]

    @abstractmethod
    def matrix(self, side: int) -> np.ndarray:
        """Return D for a side of the image, float64 [side / scale, side]."""

    def forward(self, x: Tensor) -> Tensor:
        """A x."""
        return apply_matrices(self._down[0], self._down[1], x)

    def adjoint(self, y: Tensor) -> Tensor:
        """A^T y."""
        return apply_matrices(self._down[0].T, self._down[1].T, y)

    def pinv(self, y: Tensor) -> Tensor:
        """A^+ y."""
        return apply_matrices(self._pinv[0], self._pinv[1], y)

    def svd(self) -> Svd:
        """U, s and V are products of those of the sides."""
        return SeparableSvd(self._exact, self)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Self:
        """Return the same operator elsewhere; its float64 matrices are rounded anew."""
        other = copy.copy(self)
        other.device, other.dtype = torch.device(device), self.dtype if dtype is None else dtype
        other._round()
        return other


class _Side:
    """What is derived from D along one side, in float64; the decomposition only where it is asked for."""

    def __init__(self, down: np.ndarray) -> None:
        self.down = down

    @cached_property
    def pinv(self) -> np.ndarray:
        """D^+ [side, side / scale]."""
        s = np.linalg.svd(self.down, compute_uv=False)
        if s.min() > RANK * s.max():  # the small Gram matrix can be solved exactly
            return np.linalg.solve(self.down @ self.down.T, self.down).T
        return np.linalg.pinv(self.down, rcond=RANK)

    @cached_property
    def svd(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """U, s padded with zeros to the side, V."""
        u, s, vt = np.linalg.svd(self.down, full_matrices=True)
        padded = np.zeros(self.down.shape[1])
        padded[: len(s)] = np.where(s > RANK * s.max(), s, 0)
        return u, padded, vt.T


class SeparableSvd(Svd):
    """U = U_h x U_w, s = s_h s_w^T, V = V_h x V_w."""

    def __init__(self, sides: list[_Side], operator: Operator) -> None:
        self._low = operator.low_size
        self._size = operator.size
        self._u, s, self._v = zip(*([_tensor(m, operator) for m in side.svd] for side in sides), strict=True)
        self.s = s[0][:, None] * s[1]
        self._seen = [int((side > 0).sum()) for side in s]  # singular values fall: A sees the first rows and columns

    def v_t(self, x: Tensor) -> Tensor:
        """V^T x."""
        return apply_matrices(self._v[0].T, self._v[1].T, x)

    def v(self, c: Tensor) -> Tensor:
        """V c."""
        return apply_matrices(self._v[0], self._v[1], c)

    def pull(self, x: Tensor, target: Tensor, gain: Tensor | float) -> Tensor:
        """V diag(gain) (target - V^T x), with those columns of V alone that A sees."""
        h, w = self._seen
        left, right = self._v[0][:, :h], self._v[1][:, :w]
        gain = gain[:h, :w] if isinstance(gain, Tensor) else gain
        return apply_matrices(left, right, gain * (target[..., :h, :w] - apply_matrices(left.T, right.T, x)))

    def diagonal(self, c: Tensor) -> Tensor:
        """Diagonal of V diag(c) V^T."""
        return apply_matrices(self._v[0].square(), self._v[1].square(), c)

    def u_t(self, y: Tensor) -> Tensor:
        """U^T y, padded with zeros."""
        c = apply_matrices(self._u[0].T, self._u[1].T, y)
        (h, w), (height, width) = self._low, self._size
        c = torch.nn.functional.pad(c, (0, width - w, 0, height - h))
        return torch.where(self.s > 0, c, torch.zeros_like(c))

    def u(self, c: Tensor) -> Tensor:
        """U c."""
        c = torch.where(self.s > 0, c, torch.zeros_like(c))
        return apply_matrices(self._u[0], self._u[1], c[..., : self._low[0], : self._low[1]])


def _tensor(matrix: np.ndarray, operator: Operator) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(matrix)).to(operator.device, operator.dtype)


def apply_matrices(left: Tensor, right: Tensor, x: Tensor) -> Tensor:
    """Left @ x @ right^T for [..., H, W], in the precision of the matrices.

    Raises:
        BenchError: x has other sides than the matrices.

    """
    if x.shape[-2:] != (left.shape[1], right.shape[1]):
        raise BenchError(
            f"Expected images of {left.shape[1]}x{right.shape[1]} pixels, got {x.shape[-2]}x{x.shape[-1]}."
        )
    # A method may sample within autocast, a plugin may have allowed TF32: 8 or 10 bits would spoil consistency
    with torch.autocast(x.device.type, enabled=False), exact_products():
        x = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        return left @ x @ right.T


MATMUL = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
"""Where the precision of products is kept, whichever of PyTorch's interfaces has set it."""


class exact_products:  # noqa: N801 -- a context manager
    """Matrix products in full float32 within, whatever the global precision is."""

    def __enter__(self) -> None:
        self._before = [backend.fp32_precision for backend in MATMUL]
        for backend in MATMUL:
            backend.fp32_precision = "ieee"

    def __exit__(self, *_: object) -> None:
        for backend, before in zip(MATMUL, self._before, strict=True):
            backend.fp32_precision = before

"""Inpainting: some pixels are seen, the others are to be found."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from bench.errors import BenchError
from bench.operators import Operator, OperatorFacts, Svd, register_operator


def box_mask(size: tuple[int, int], missing: float) -> np.ndarray:
    """Bool [H, W], False in a centred box with a share `missing` of the area and the image's proportions."""
    mask = np.ones(size, dtype=bool)
    sides = [round(side * math.sqrt(missing)) for side in size]
    top, left = ((side - inner) // 2 for side, inner in zip(size, sides, strict=True))
    mask[top : top + sides[0], left : left + sides[1]] = False
    return mask


def random_mask(size: tuple[int, int], missing: float) -> np.ndarray:
    """Bool [H, W], False in a share `missing` of the pixels, the same ones for every image of this size."""
    count = size[0] * size[1]
    mask = np.ones(count, dtype=bool)
    mask[np.random.default_rng(0).permutation(count)[: round(missing * count)]] = False
    return mask.reshape(size)


MAKERS = {"box": box_mask, "random": random_mask}


def read_mask(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Bool [H, W] from an image, white where pixels are seen.

    Raises:
        BenchError: there is no such image, or it has another size.

    """
    try:
        with Image.open(path) as image:
            mask: np.ndarray = np.asarray(image.convert("L")) > 127
    except OSError as error:
        raise BenchError(f"operator.mask={path} is neither box, random nor an image that can be read.") from error
    if mask.shape != size:
        raise BenchError(
            f"The mask {path} has {mask.shape[0]}x{mask.shape[1]} pixels, the images {size[0]}x{size[1]}: resize it."
        )
    return mask


@register_operator("inpainting")
class Inpainting(Operator):
    """y is x with 0 where nothing is seen; its size is x's, `scale` has no meaning and is 1.

    Args:
        mask: "box", "random", or the path of an image that is white where pixels are seen.
        missing: share of the pixels that are not seen, for "box" and "random".

    """

    facts = OperatorFacts(title="Inpainting", source="a mask, the same for all colours and images", scaled=False)

    def __init__(
        self,
        size: int | tuple[int, int],
        scale: int = 1,
        mask: str = "box",
        missing: Annotated[float, Field(gt=0, lt=1)] = 0.25,
        **common: Any,
    ) -> None:
        super().__init__(size, 1, **common)
        seen = MAKERS[mask](self.size, missing) if mask in MAKERS else read_mask(Path(mask), self.size)
        if seen.all() or not seen.any():
            raise BenchError(
                f"operator.mask={mask} hides {'none' if seen.all() else 'all'} of the pixels: change operator.missing."
            )
        self._kind = f"{self.name} {mask} {missing:g}" if mask in MAKERS else f"{self.name} {Path(mask).stem}"
        self._mask = torch.from_numpy(seen).to(self.device, self.dtype)

    @classmethod
    def files(cls, settings: Mapping[str, Any]) -> dict[str, Path]:
        """The mask's, whatever its name."""
        mask = settings.get("mask")
        return {"mask": Path(mask)} if isinstance(mask, str) and mask not in MAKERS and Path(mask).is_file() else {}

    @classmethod
    def any_size(cls, scale: int, settings: Mapping[str, Any]) -> tuple[int, int]:
        """Those of the mask, where it is an image."""
        try:
            with Image.open(str(settings.get("mask"))) as image:
                return image.height, image.width
        except OSError:  # none, which is told when the operator is made
            return super().any_size(scale, settings)

    @property
    def kind(self) -> str:
        """With the mask."""
        return self._kind

    @property
    def observed(self) -> int:
        """Pixels that are seen."""
        return int(self._mask.sum())

    def masked(self, y: Tensor) -> Tensor:
        """Return y with 0 where nothing is seen."""
        return y * self._mask

    def forward(self, x: Tensor) -> Tensor:
        """A x, in float32 at least.

        Raises:
            BenchError: x has other sides than the mask.

        """
        if tuple(x.shape[-2:]) != self.size:
            raise BenchError(
                f"Expected images of {self.size[0]}x{self.size[1]} pixels, got {x.shape[-2]}x{x.shape[-1]}."
            )
        return self.masked(x.float() if x.dtype in (torch.bfloat16, torch.float16) else x)

    def adjoint(self, y: Tensor) -> Tensor:
        """A is its own adjoint."""
        return self.forward(y)

    def pinv(self, y: Tensor) -> Tensor:
        """A is its own pseudo-inverse."""
        return self.forward(y)

    def svd(self) -> Svd:
        """U = V = I, s = the mask."""
        return DiagonalSvd(self._mask)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Self:
        """Return the same operator elsewhere."""
        other = copy.copy(self)
        other.device, other.dtype = torch.device(device), self.dtype if dtype is None else dtype
        other._mask = self._mask.to(other.device, other.dtype)
        return other


class DiagonalSvd(Svd):
    """A = diag(s) with s of 0 and 1: coefficients are pixels."""

    def __init__(self, s: Tensor) -> None:
        self.s = s

    def v_t(self, x: Tensor) -> Tensor:
        """V^T x = x."""
        return x

    def v(self, c: Tensor) -> Tensor:
        """V c = c."""
        return c

    def diagonal(self, c: Tensor) -> Tensor:
        """Diagonal of diag(c)."""
        return c

    def u_t(self, y: Tensor) -> Tensor:
        """U^T y = y, 0 where nothing is seen."""
        return y * self.s

    def u(self, c: Tensor) -> Tensor:
        """U c = c, 0 where nothing is seen."""
        return c * self.s

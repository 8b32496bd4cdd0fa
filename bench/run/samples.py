"""Samples that a cell keeps, without loss: PNG files where they have 8 bits, else NumPy's arrays."""

from __future__ import annotations

import io
from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bench.errors import BenchError
from bench.files import write_atomic, write_png
from bench.operators import Operator, to_uint8

PNG_BYTES = 3
"""At most, per pixel."""
ARRAY_BYTES = 12


class SampleFiles:
    """The folder ``samples`` of a cell: ``000007_2.png`` (image 7, sample 2), or ``.npy`` with float32 [3, H, W]."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def count(self, index: int) -> int:
        """How many samples of an image there are, from the first one on without a gap."""
        number = 0
        while self._path(index, number) is not None:
            number += 1
        return number

    def write(self, index: int, samples: Tensor, operator: Operator, rounded: bool) -> None:
        """Keep samples [n, 3, H, W] of an image, in place of those that are there.

        Args:
            index: of the image.
            samples: in the operator's range.
            operator: its range tells whether there is one.
            rounded: whether the samples have 8 bits.

        """
        for number, x in enumerate(samples.cpu()):
            name = self.folder / f"{index:06d}_{number}"
            if rounded and operator.range is not None:
                write_png(name.with_suffix(".png"), as_picture(x, operator.range))
            else:
                buffer = io.BytesIO()
                np.save(buffer, x.float().numpy())
                write_atomic(name.with_suffix(".npy"), buffer.getvalue())

    def read(self, index: int, n: int, operator: Operator) -> Tensor:
        """Return the first `n` samples of an image as they were drawn: float32 [n, 3, H, W].

        Raises:
            BenchError: a file is missing or damaged.

        """
        return torch.stack([self._read(index, number, operator.range) for number in range(n)])

    def picture(self, index: int, number: int, range: tuple[float, float] = (0.0, 1.0)) -> np.ndarray:
        """Return a sample, whose intensities are in `range`, for showing: uint8 [H, W, 3]."""
        return as_picture(self._read(index, number, range), range)

    def of(self, indices: Collection[int]) -> list[Path]:
        """All files of some images."""
        wanted = set(indices)
        files = (p for p in self.folder.glob("*_*") if p.suffix in (".png", ".npy"))
        return [p for p in files if p.stem.partition("_")[0].isdecimal() and int(p.stem.partition("_")[0]) in wanted]

    def _path(self, index: int, number: int) -> Path | None:
        name = self.folder / f"{index:06d}_{number}"
        return next((p for s in (".png", ".npy") if (p := name.with_suffix(s)).is_file()), None)

    def _read(self, index: int, number: int, range: tuple[float, float] | None) -> Tensor:
        path = self._path(index, number)
        if path is None:
            raise BenchError(f"{self.folder} has no sample {number} of image {index}.")
        if path.suffix == ".png":
            low, high = range or (0.0, 1.0)
            x = torch.from_numpy(read_picture(path).copy()).permute(2, 0, 1).float() / 255
            return x if (low, high) == (0.0, 1.0) else low + (high - low) * x
        try:
            return torch.from_numpy(np.load(path))
        except (OSError, ValueError, EOFError) as error:
            raise BenchError(damaged(path, error)) from error


def as_picture(x: Tensor, range: tuple[float, float]) -> np.ndarray:
    """An image [3, H, W] in `range` as uint8 [H, W, 3]."""
    low, high = range
    picture: np.ndarray = to_uint8((x - low) / (high - low)).permute(1, 2, 0).cpu().numpy()
    return picture


def read_picture(path: Path) -> np.ndarray:
    """Read a PNG file as uint8 [H, W, 3]; BenchError where it is missing or damaged."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:  # Pillow reports damaged files by all of these
        raise BenchError(damaged(path, error)) from error


def damaged(path: Path, error: Exception) -> str:
    """The sentence for a damaged picture."""
    reason = str(error) or type(error).__name__
    return f"{path} is damaged ({reason}): delete it; with resample=true the same run draws it again."

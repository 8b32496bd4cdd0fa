"""Samples that a cell keeps, without loss: PNG files where they have 8 bits, else NumPy's arrays."""

from __future__ import annotations

import io
from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bench.data import content_of
from bench.errors import BenchError
from bench.files import disk_errors, read_json, write_atomic, write_json, write_png
from bench.operators import Operator, to_uint8

PNG_BYTES = 3
"""At most, per pixel."""
ARRAY_BYTES = 12
AGAIN = "with resample=true the same run draws it again"


class SampleFiles:
    """The folder ``samples`` of a cell: ``000007_2.png`` (image 7, sample 2), or ``.npy`` with float32 [3, H, W].

    The folder ``hashes`` beside it has the sha256 of the samples' pixels (:func:`bench.data.content_of`), a file per
    image, which is written after its samples: a file that is damaged or replaced is never taken for a sample.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hashes = folder.with_name("hashes")

    @property
    def kept(self) -> bool:
        """Whether there are samples of any image."""
        return any(self.folder.glob("*_*"))

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
        with disk_errors(self._hash_file(index)):  # those of former samples do not hold while they are replaced
            self._hash_file(index).unlink(missing_ok=True)
        contents = []
        for number, x in enumerate(samples.cpu()):
            name = self.folder / f"{index:06d}_{number}"
            if rounded and operator.range is not None:
                pixels = as_picture(x, operator.range)
                write_png(name.with_suffix(".png"), pixels)
            else:
                pixels = x.float().numpy()
                buffer = io.BytesIO()
                np.save(buffer, pixels)
                write_atomic(name.with_suffix(".npy"), buffer.getvalue())
            contents.append(content_of(pixels))
        write_json(self._hash_file(index), contents)

    def read(self, index: int, n: int, operator: Operator) -> Tensor:
        """Return the first `n` samples of an image as they were drawn: float32 [n, 3, H, W].

        Raises:
            BenchError: a file is missing, damaged or of another size.

        """
        samples = [self._read(index, number, operator.range) for number in range(n)]
        for number, x in enumerate(samples):
            if tuple(x.shape) != (3, *operator.size):
                height, width = operator.size
                reason = f"it has {x.shape[-2]}x{x.shape[-1]} pixels, not {height}x{width}"
                raise BenchError(damaged(self._path(index, number) or self.folder, reason))
        return torch.stack(samples)

    def picture(self, index: int, number: int, range: tuple[float, float] = (0.0, 1.0)) -> np.ndarray:
        """Return a sample, whose intensities are in `range`, for showing: uint8 [H, W, 3]."""
        return as_picture(self._read(index, number, range), range)

    def of(self, indices: Collection[int]) -> list[Path]:
        """All files of some images."""
        wanted = set(indices)
        files = (p for p in self.folder.glob("*_*") if p.suffix in (".png", ".npy"))
        return [p for p in files if p.stem.partition("_")[0].isdecimal() and int(p.stem.partition("_")[0]) in wanted]

    def hashes_of(self, indices: Collection[int]) -> list[Path]:
        """The files of hashes of some images."""
        return [path for i in sorted(set(indices)) if (path := self._hash_file(i)).is_file()]

    def _hash_file(self, index: int) -> Path:
        return self.hashes / f"{index:06d}.json"

    def _check(self, index: int, number: int, path: Path, pixels: np.ndarray) -> None:
        """Raise BenchError where pixels are not those that were written."""
        file = self._hash_file(index)
        if not file.is_file():  # kept by an earlier version, or the write was killed
            return
        contents = read_json(file, list[str], "delete it, and the samples are taken as they are")
        if number < len(contents) and content_of(pixels) != contents[number]:
            raise BenchError(damaged(path, "its pixels are not those that were drawn"))

    def _path(self, index: int, number: int) -> Path | None:
        name = self.folder / f"{index:06d}_{number}"
        return next((p for s in (".png", ".npy") if (p := name.with_suffix(s)).is_file()), None)

    def _read(self, index: int, number: int, range: tuple[float, float] | None) -> Tensor:
        path = self._path(index, number)
        if path is None:
            raise BenchError(f"{self.folder} has no sample {number} of image {index}.")
        if path.suffix == ".png":
            low, high = range or (0.0, 1.0)
            picture = read_picture(path)
            self._check(index, number, path, picture)
            x = torch.from_numpy(picture.copy()).permute(2, 0, 1).float() / 255
            return x if (low, high) == (0.0, 1.0) else low + (high - low) * x
        try:
            pixels = np.load(path)
        except (OSError, ValueError, EOFError) as error:
            raise BenchError(damaged(path, error)) from error
        self._check(index, number, path, pixels)
        return torch.from_numpy(pixels)


def as_picture(x: Tensor, range: tuple[float, float]) -> np.ndarray:
    """An image [3, H, W] in `range` as uint8 [H, W, 3]."""
    low, high = range
    picture: np.ndarray = to_uint8((x - low) / (high - low)).permute(1, 2, 0).cpu().numpy()
    return picture


def read_picture(path: Path, mend: str = AGAIN) -> np.ndarray:
    """Read a PNG file as uint8 [H, W, 3]; BenchError, with what mends it, where it is missing or damaged."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError as error:
        raise BenchError(f"{path} is gone: {mend}.") from error
    except (OSError, SyntaxError, ValueError) as error:  # Pillow reports damaged files by all of these
        raise BenchError(damaged(path, error, mend)) from error


def damaged(path: Path, why: Exception | str, mend: str = AGAIN) -> str:
    """The sentence for a damaged picture, with what mends it when the picture is gone."""
    reason = str(why) or type(why).__name__
    return f"{path} is damaged ({reason}): delete it; {mend}."

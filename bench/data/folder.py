"""Any folder of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from PIL import Image
from pydantic import Field

from bench.data import DataFacts, Dataset, register_dataset
from bench.data.images import centre_square, list_images, read_rgb
from bench.errors import BenchError
from bench.files import file_identity


@register_dataset("folder")
class Folder(Dataset):
    """All images below `path`, in the order of their relative paths, centre-cropped and shrunk to `size` (Lanczos)."""

    facts = DataFacts(
        title="Any folder of images",
        licence="yours",
        how_to_get="dataset=folder dataset.path=DIR; png, jpg, webp, bmp or tiff, searched recursively",
    )

    def __init__(self, path: str, size: Annotated[int, Field(ge=1)] = 256) -> None:
        self.folder = Path(path)
        self.size = size
        if not self.folder.is_dir():
            raise BenchError(f"dataset.path={path} is no folder: give a folder of images.")
        self.files = list_images(self.folder)
        if not self.files:
            raise BenchError(f"There are no images (png, jpg, webp, bmp, tiff) in {path}.")
        self.ids = [printable(p.relative_to(self.folder).as_posix()) for p in self.files]

    def load(self, index: int) -> np.ndarray:
        """Read, crop and shrink one image."""
        return centre_square(read_rgb(self.files[index]), self.size, Image.Resampling.LANCZOS, self.files[index])

    def fingerprint(self, indices: Sequence[int]) -> str:
        """Identify the files."""
        return self.identify(indices, [file_identity(self.files[i]) for i in indices])


def printable(name: str) -> str:
    r"""Write the bytes of a file's name that are not UTF-8, which no table can hold, as \udcNN."""
    return name.encode("utf-8", "backslashreplace").decode()

"""FFHQ at 256 x 256 pixels with the split of the paper's authors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from bench.data import DataFacts, Dataset, check_split, register_dataset
from bench.data.images import centre_square, list_images, read_rgb
from bench.errors import BenchError
from bench.files import file_identity

COUNT = 70000
VALIDATION = 7000
TEST = 1000
SPLITS = ("train", "val", "test", "dps_held_out")
DPS_HELD_OUT = 1000
"""The first images in the order of the files, on which the prior of DPS was not trained (its issue 4)."""
HOW_TO_GET = (
    "ffhq-256.npy: run setup_ffhq256.sh of github:openai/vdvae (13.8 GB), or the images of github:NVlabs/ffhq-dataset "
    "(thumbnails or 1024 originals) in one folder; then dataset.path=FILE_OR_FOLDER"
)


def split_indices(split: str) -> np.ndarray:
    """Indices into the 70000 images.

    "train", "val" and "test": seed-5 permutation, the last 7000 held out, the first 1000 of those are the test set.
    Source: github:openai/vdvae (data.py, ffhq256), followed by github:jprost76/srvdvae. "dps_held_out": the first 1000
    images; of the other three splits each has some of them.
    """
    check_split("ffhq256", split, SPLITS)
    if split == "dps_held_out":
        return np.arange(DPS_HELD_OUT)
    order = np.random.RandomState(5).permutation(COUNT)
    held_out = order[-VALIDATION:]
    return {"train": order[:-VALIDATION], "val": held_out[TEST:], "test": held_out[:TEST]}[split]


@register_dataset("ffhq256")
class Ffhq256(Dataset):
    """`path` is ``ffhq-256.npy`` (memory-mapped) or a folder that holds the 70000 images.

    Originals of 1024 pixels are shrunk bilinearly with antialiasing, as VD-VAE's own preparation does.
    """

    facts = DataFacts(
        title="FFHQ-256",
        licence="CC BY-NC-SA 4.0 (the dataset); images have licences of their own",
        how_to_get=HOW_TO_GET,
        default_limit=TEST,
    )
    size = 256

    def __init__(self, path: str, split: str = "test") -> None:
        self.indices = split_indices(split)
        self.ids = [f"{i:05d}" for i in self.indices]
        self.path = Path(path)
        if not self.path.exists():
            raise BenchError(f"dataset.path={path} does not exist. To get FFHQ: {HOW_TO_GET}.")
        if self.path.is_dir():
            self.files = list_images(self.path)
            if len(self.files) != COUNT:
                raise BenchError(
                    f"{path} holds {len(self.files)} images, FFHQ has {COUNT}: the split is defined on all of them."
                )
        else:
            self.array  # noqa: B018 -- opens and checks the file now, not in the middle of a run

    @cached_property
    def array(self) -> np.ndarray:
        """The memory-mapped file, uint8 [70000, 256, 256, 3]."""
        try:
            array = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise BenchError(f"{self.path} is no complete npy file ({error}): fetch ffhq-256.npy again.") from error
        if array.shape != (COUNT, 256, 256, 3) or array.dtype != np.uint8:
            raise BenchError(
                f"{self.path} holds {array.dtype} {list(array.shape)}, expected uint8 [{COUNT}, 256, 256, 3]."
            )
        return array

    def load(self, index: int) -> np.ndarray:
        """Read one image."""
        number = int(self.indices[index])
        if self.path.is_dir():
            return centre_square(read_rgb(self.files[number]), 256, Image.Resampling.BILINEAR, self.files[number])
        return np.array(self.array[number])

    def fingerprint(self, indices: Sequence[int]) -> str:
        """Identify the npy file, or the files of these images."""
        numbers = [int(self.indices[i]) for i in indices]
        files = [self.files[i] for i in numbers] if self.path.is_dir() else [self.path]
        return self.identify(numbers, [file_identity(f) for f in files])

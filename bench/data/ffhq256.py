"""FFHQ at 256 x 256 pixels with the split of the paper's authors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from bench.data import DataFacts, Dataset, check_split, register_dataset
from bench.data.images import centre_square, list_images, read_rgb
from bench.download import KnownFile, describe, get
from bench.errors import BenchError
from bench.files import cache_dir, file_identity

COUNT = 70000
VALIDATION = 7000
TEST = 1000
SPLITS = ("train", "val", "test", "dps_held_out")
HEADER = 128
"""Bytes that npy files have at most before an array of four dimensions."""
DPS_HELD_OUT = 1000
"""The first images in the order of the files, on which the prior of DPS was not trained (its issue 4)."""
HOW_TO_GET = (
    "python -m bench data get ffhq256 (13.8 GB), or dataset.path=FILE_OR_FOLDER: ffhq-256.npy, or a folder with the "
    "images of github:NVlabs/ffhq-dataset (thumbnails or 1024 originals)"
)


class _FfhqFile(KnownFile):
    @property
    def folder(self) -> Path:
        return cache_dir() / "ffhq256"

    @property
    def by_hand(self) -> str:
        return "give dataset.path=FILE"

    def check(self, path: Path) -> None:
        array = open_array(path)
        if (extra := path.stat().st_size - array.nbytes) > HEADER:
            raise BenchError(f"{path} has {extra} bytes beside its pixels: fetch ffhq-256.npy again.")


FILE = _FfhqFile(
    "ffhq256", "ffhq-256.npy", "dataset=ffhq256", "github:openai/vdvae (setup_ffhq256.sh)", "CC BY-NC-SA 4.0",
    url="https://openaipublic.blob.core.windows.net/very-deep-vaes-assets/vdvae-assets/ffhq-256.npy",
)  # fmt: skip
"""VD-VAE's copy, shrunk as NVAE's. Nobody has published its hash: it is pinned when it first arrives."""


def open_array(path: Path) -> np.ndarray:
    """Memory-map the npy file, uint8 [70000, 256, 256, 3]; BenchError for a file of another length, type or shape."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise BenchError(f"{path} is no complete npy file ({error}): fetch ffhq-256.npy again.") from error
    if array.shape != (COUNT, 256, 256, 3) or array.dtype != np.uint8:
        raise BenchError(f"{path} holds {array.dtype} {list(array.shape)}, expected uint8 [{COUNT}, 256, 256, 3].")
    return array


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
    """`path` is ``ffhq-256.npy`` (memory-mapped) or a folder that holds the 70000 images; None for the downloaded file.

    Originals of 1024 pixels are shrunk bilinearly with antialiasing, as VD-VAE's own preparation does.
    """

    facts = DataFacts(
        title="FFHQ-256",
        licence="CC BY-NC-SA 4.0 (the dataset); images have licences of their own",
        how_to_get=HOW_TO_GET,
        default_limit=TEST,
    )
    size = 256

    def __init__(self, path: str | None = None, split: str = "test") -> None:
        self.indices = split_indices(split)
        self.ids = [f"{i:05d}" for i in self.indices]
        self.path = FILE.path if path is None else Path(path)
        if not self.path.exists():
            missing = "The FFHQ-256 file is not here" if path is None else f"dataset.path={path} does not exist"
            raise BenchError(f"{missing}. To get FFHQ: {HOW_TO_GET}.")
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
        return open_array(self.path)

    @classmethod
    def download(cls) -> Path:
        """VD-VAE's file, into the cache."""
        return get(FILE)

    @classmethod
    def offer(cls) -> str:
        """The file, its address and its size."""
        return describe(FILE, "python -m bench data get ffhq256 downloads it from")

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

"""200 photo-realistic CC0 portraits of people who do not exist, aligned as FFHQ is.

Source: github:faker-js/assets-person-portrait at a pinned commit. ``portraits256_quads.csv`` has, for each image, the
file's sha256 and the corners of its crop, found as FFHQ's are from five landmarks.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from urllib.error import URLError

import numpy as np
from PIL import Image
from tqdm import tqdm

from bench.data import DataFacts, Dataset, check_split, register_dataset
from bench.data.images import read_rgb
from bench.errors import BenchError, ImageError
from bench.files import cache_dir, sha256

COMMIT = "63aef57b5a839aebe3ad913ec7c76469aabbb6c5"
URL = f"https://cdn.jsdelivr.net/gh/faker-js/assets-person-portrait@{COMMIT}/"
CONNECTIONS = 8
SIDE = 1024


def crop_quad(image: Image.Image, quad: np.ndarray, side: int = SIDE, size: int = 256) -> np.ndarray:
    """Sample a quadrilateral into a square, the way the FFHQ authors' alignment does.

    Args:
        image: RGB source.
        quad: [4, 2] corners (x, y) in source pixels: upper left, lower left, lower right, upper right.
        side: pixels of the bicubic sampling of the quadrilateral.
        size: pixels after the Lanczos shrinking.

    Returns:
        uint8 [size, size, 3]. What lies outside of the source is mirrored.

    """
    low, high = np.floor(quad.min(0)).astype(int), np.ceil(quad.max(0)).astype(int)
    left, top = np.maximum(-low, 0)
    right, bottom = np.maximum(high - image.size, 0)
    if left or top or right or bottom:
        padded = np.pad(np.asarray(image), ((top, bottom), (left, right), (0, 0)), mode="reflect")
        image = Image.fromarray(padded)
        quad = quad + np.array([left, top])
    square = image.transform(
        (side, side), Image.Transform.QUAD, tuple((quad + 0.5).flatten()), Image.Resampling.BICUBIC
    )
    return np.asarray(square.resize((size, size), Image.Resampling.LANCZOS)).copy()


@register_dataset("portraits256")
class Portraits256(Dataset):
    """160 train and 40 test portraits; downloaded once, or read from a local checkout `source`."""

    facts = DataFacts(
        title="Portraits-256",
        licence="CC0 1.0",
        how_to_get="downloaded on first use (test split 10 MB), or dataset.source=CHECKOUT of "
        "github:faker-js/assets-person-portrait",
        default_limit=40,
    )

    def __init__(self, split: str = "test", size: int = 256, source: str | None = None) -> None:
        check_split("portraits256", split, ("train", "test"))
        if not 16 <= size <= SIDE:
            raise BenchError(f"dataset.size={size} is not from 16 to {SIDE} pixels.")
        self.size = size
        with (files("bench.data") / "portraits256_quads.csv").open(encoding="utf-8") as file:
            self.rows = [row for row in csv.DictReader(file) if row["split"] == split]
        self.ids = [row["name"] for row in self.rows]
        self.mend = f"check out commit {COMMIT[:7]}"
        if source is None:
            self.mend = "delete it, and the next start downloads it again"
            self.folder = cache_dir() / f"portraits-{COMMIT[:8]}"
            self._download()
        else:
            self.folder = Path(source)
            if not self.folder.is_dir():
                raise BenchError(f"dataset.source={source} is no folder: give a checkout of the portraits' repository.")

    @classmethod
    def download(cls) -> Path:
        """Both splits."""
        cls("train")
        return cls("test").folder

    def _download(self) -> None:
        missing = [r for r in self.rows if not (self.folder / r["source"]).is_file()]
        if not missing:
            return

        from torch.hub import download_url_to_file

        def fetch(row: dict[str, str]) -> None:
            target = self.folder / row["source"]
            target.parent.mkdir(parents=True, exist_ok=True)
            download_url_to_file(URL + row["source"], str(target), row["sha256"], progress=False)

        try:
            with ThreadPoolExecutor(CONNECTIONS) as pool:
                list(tqdm(pool.map(fetch, missing), total=len(missing), desc="portraits256: download", unit="file"))
        except (URLError, OSError, RuntimeError) as error:  # RuntimeError: the hash differs
            raise BenchError(
                f"portraits256 could not be downloaded ({error}): check the network, or clone "
                f"github:faker-js/assets-person-portrait at {COMMIT[:7]} and add dataset.source=CHECKOUT."
            ) from error

    def load(self, index: int) -> np.ndarray:
        """Check the file's sha256 and crop it."""
        row = self.rows[index]
        path = self.folder / row["source"]
        if path.is_file() and sha256(path) != row["sha256"]:
            raise ImageError(f"{path} is not the published file (sha256 differs): {self.mend}.")
        quad = np.array([[float(row[f"x{k}"]), float(row[f"y{k}"])] for k in range(4)])
        return crop_quad(read_rgb(path), quad, size=self.size)

    def fingerprint(self, indices: Sequence[int]) -> str:
        """Identify the published files and their crops; `load` refuses other files."""
        return self.identify(indices, [self.rows[i] for i in indices])

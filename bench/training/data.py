"""Training images: a fixed pool, kept on disk once it is made, and the order in which it is visited.

Images of a known distribution are drawn when a step asks for them: of those there can be as many as steps use.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from bench.data import Dataset
from bench.data.splits import train_and_val
from bench.errors import BenchError, DiskError, ImageError
from bench.files import cache_dir, digest, disk_errors, file_identity, replacing, sha256, write_atomic

CHUNK = 32
SHOWN = 20
"""Numbers at most in a sentence."""


class Drawn:
    """The first images of a dataset, drawn anew whenever they are asked for: pool[numbers] is [B, H, H, 3]."""

    def __init__(self, dataset: Dataset, count: int) -> None:
        self.dataset, self.numbers = dataset, range(count)
        self.shape = (count, dataset.size, dataset.size, 3)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, which: np.ndarray | slice) -> np.ndarray:
        chosen = self.numbers[which] if isinstance(which, slice) else [self.numbers[i] for i in which]
        return self.dataset.load_many(chosen)


Images = np.ndarray | Drawn
"""[N, H, H, 3] by numbers or slices: uint8, memory-mapped, or float32 of a dataset whose images have no range."""


class Pool(NamedTuple):
    """Images, and a sha256 that tells them from others: of the file that holds them, or of what draws them."""

    images: Images
    sha256: str


def make_splits(config: Mapping[str, Any], pool: int, val: int) -> tuple[Pool, Pool]:
    """Images for training and others for validation.

    Args:
        config: a dataset's configuration; its split is replaced.
        pool: number of training images at most.
        val: number of validation images at most.

    Raises:
        BenchError: too few images.

    """
    train, held_out = train_and_val(config)
    return _kept(train, config["name"], pool), _kept(held_out, config["name"], val)


def _kept(dataset: Dataset, name: str, most: int) -> Pool:
    """Load images once and keep them in the cache folder, under what they are; or none where they can be drawn."""
    numbers = range(min(most, len(dataset)))
    if not len(numbers):
        raise BenchError(f"{name} has no images for training: use a larger dataset.")
    if dataset.mixture is not None:
        return Pool(Drawn(dataset, len(numbers)), dataset.fingerprint(numbers))
    path = cache_dir() / "pools" / f"{name}-{dataset.size}-{dataset.fingerprint(numbers)[:16]}.npy"
    known = _known(path) or _make(path, dataset, len(numbers))
    if _stand_ins(path).is_file():
        tqdm.write(_stand_ins(path).read_text(errors="replace").strip(), file=sys.stderr)
    return Pool(np.load(path, mmap_mode="r"), known)


def _make(path: Path, dataset: Dataset, count: int) -> str:
    """Write a pool, unless another process does, which is waited for; return its hash."""
    from filelock import FileLock

    with disk_errors(path), ExitStack() as held:
        path.parent.mkdir(parents=True, exist_ok=True)
        held.enter_context(FileLock(f"{path}.lock"))
        if known := _known(path):
            return known
        with replacing(path) as temporary:
            dtype = np.float32 if dataset.range is None else np.uint8
            array = np.lib.format.open_memmap(temporary, "w+", dtype, (count, dataset.size, dataset.size, 3))
            stand_ins = _fill(array, dataset)
            array.flush()
            made = sha256(temporary)
            write_atomic(_beside(path), made)  # before the pool: one without a hash is none
            _stand_ins(path).unlink(missing_ok=True)
            if stand_ins:
                write_atomic(_stand_ins(path), _about_stand_ins(path, stand_ins, count) + "\n")
        return _sealed(path, made)


def _beside(path: Path) -> Path:
    """The file with a pool's hash, and a seal that says of which file it is."""
    return path.with_suffix(".sha256")


def _stand_ins(path: Path) -> Path:
    """The file that says at every start what of a pool could not be used, where there is anything."""
    return path.with_suffix(".stand_ins")


def _about_stand_ins(path: Path, numbers: list[int], count: int) -> str:
    shown = ", ".join(map(str, numbers[:SHOWN])) + (", ..." if len(numbers) > SHOWN else "")
    return (
        f"Others stand in for {len(numbers)} of {count} training images, which could not be used when {path} was made "
        f"(numbers {shown}). To read them again, delete it and train in another out=DIR."
    )


def _known(path: Path) -> str | None:
    """The hash of a pool that is as it was made; None for one that is damaged or not there.

    It is hashed again only where the file, or what is noted of it, is not the one that was last looked at.
    """
    beside = _beside(path)
    if not (path.is_file() and beside.is_file()):
        return None
    noted, *seal = beside.read_text(errors="replace").split("\n")
    if seal == [_seal(path, noted)]:
        return noted
    return _sealed(path, noted) if sha256(path) == noted else None


def _sealed(path: Path, noted: str) -> str:
    """Note that a pool has a hash, as a file; where nothing can be noted it is hashed again the next time."""
    with suppress(DiskError):
        write_atomic(_beside(path), f"{noted}\n{_seal(path, noted)}")
    return noted


def _seal(path: Path, noted: str) -> str:
    return digest([noted, file_identity(path)])


def _fill(array: np.ndarray, dataset: Dataset) -> list[int]:
    """Load all images; return the numbers of those that could not be used, for which others stand in."""
    stand_ins: list[int] = []
    with tqdm(total=len(array), desc="images", unit="image") as bar:
        for first in range(0, len(array), CHUNK):
            chunk = range(first, min(first + CHUNK, len(array)))
            try:
                array[first : first + len(chunk)] = dataset.load_many(chunk)
            except ImageError:
                for row in chunk:
                    try:
                        array[row] = dataset.load(row)
                    except ImageError as error:
                        if not row:
                            raise
                        tqdm.write(str(error), file=sys.stderr)
                        array[row] = array[row - 1]
                        stand_ins.append(row)
            bar.update(len(chunk))
    return stand_ins


class Order:
    """Which images of the pool a step sees, and which are mirrored: a seeded function of the step alone."""

    def __init__(self, count: int, batch: int, seed: int, flip: bool) -> None:
        if count < batch:
            raise BenchError(f"{count} training images are fewer than batch={batch}: use a smaller batch.")
        self.count, self.batch, self.seed, self.flip = count, batch, seed, flip
        self.per_epoch = count // batch
        self._epoch = -1

    def __call__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Numbers [batch] and whether each is mirrored."""
        epoch, within = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._permutation = np.random.default_rng([self.seed, epoch]).permutation(self.count)
            self._epoch = epoch
        numbers = self._permutation[within * self.batch : (within + 1) * self.batch]
        flips = np.random.default_rng([self.seed, 1, step]).random(self.batch) < 0.5
        return numbers, flips & self.flip

    def corners(self, step: int, places: int) -> np.ndarray:
        """Where each image of a step is cropped: [batch, 2] row and column, from 0 to below `places`."""
        return np.random.default_rng([self.seed, 2, step]).integers(places, size=(self.batch, 2))


def cropped(images: np.ndarray, corners: np.ndarray, side: int) -> np.ndarray:
    """Squares [B, side, side, 3] of images [B, H, H, 3], from their corners [B, 2]."""
    pairs = zip(images, corners, strict=True)
    return np.stack([image[row : row + side, column : column + side] for image, (row, column) in pairs])


def to_tensor(images: np.ndarray, flips: np.ndarray | None, device: torch.device) -> Tensor:
    """[B, H, H, 3], uint8 or float32, to float32 [B, 3, H, H] on the device; 255 becomes 1."""
    x = torch.from_numpy(np.array(images)).to(device).permute(0, 3, 1, 2).float()
    x = x / 255 if images.dtype == np.uint8 else x
    if flips is not None and flips.any():
        mirrored = torch.from_numpy(flips).to(device)
        x = torch.where(mirrored[:, None, None, None], x.flip(-1), x)
    return x.contiguous(memory_format=torch.channels_last)

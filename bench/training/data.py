"""Training images: a fixed pool, kept on disk once it is made, and the order in which it is visited."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from bench.data import Dataset, make_dataset
from bench.data.mixture import with_split
from bench.errors import BenchError, ImageError
from bench.files import cache_dir, disk_errors

CHUNK = 32
HELD_OUT = 20
"""Without a val split, one image of this many is held out."""


def make_splits(config: Mapping[str, Any], pool: int, val: int) -> tuple[np.ndarray, np.ndarray]:
    """Images for training and validation, uint8 [N, H, H, 3] each, memory-mapped.

    Args:
        config: a dataset's configuration; its split is replaced.
        pool: number of training images at most.
        val: number of validation images at most.

    Raises:
        BenchError: no images.

    """
    train = make_dataset(with_split(config, "train"))
    try:
        held_out = make_dataset(with_split(config, "val"))
    except BenchError:  # a dataset without a val split
        held_out = train
    if held_out is train or config["name"] == "folder":
        numbers = np.arange(len(train))
        mine, theirs = numbers[numbers % HELD_OUT != 0][:pool], numbers[numbers % HELD_OUT == 0][:val]
    else:
        mine, theirs = np.arange(min(pool, len(train))), np.arange(min(val, len(held_out)))
    return _kept(train, with_split(config, "train"), mine), _kept(held_out, with_split(config, "val"), theirs)


def _kept(dataset: Dataset, config: Mapping[str, Any], numbers: np.ndarray) -> np.ndarray:
    """Load images once and keep them in the cache folder."""
    if not len(numbers):
        raise BenchError(f"{config['name']} has no images for training: use a larger dataset.")
    description = json.dumps([config, int(numbers[0]), int(numbers[-1]), len(numbers)], sort_keys=True, default=str)
    digest = hashlib.sha256(description.encode()).hexdigest()[:12]
    path = cache_dir() / "pools" / f"{config['name']}-{dataset.size}-{digest}.npy"
    if not path.exists():
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(f".{os.getpid()}.tmp")
            shape = (len(numbers), dataset.size, dataset.size, 3)
            try:
                array = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)
                _fill(array, dataset, numbers)
                array.flush()
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
    return np.load(path, mmap_mode="r")


def _fill(array: np.ndarray, dataset: Dataset, numbers: np.ndarray) -> None:
    with tqdm(total=len(numbers), desc="images", unit="image") as bar:
        for first in range(0, len(numbers), CHUNK):
            chunk = [int(i) for i in numbers[first : first + CHUNK]]
            try:
                array[first : first + len(chunk)] = dataset.load_many(chunk)
            except ImageError:
                for row, number in enumerate(chunk, first):
                    array[row] = _load_or_neighbour(dataset, number, array[row - 1] if row else None)
            bar.update(len(chunk))


def _load_or_neighbour(dataset: Dataset, number: int, neighbour: np.ndarray | None) -> np.ndarray:
    """One image; where it cannot be used it is reported and the one before stands in."""
    try:
        return dataset.load(number)
    except ImageError as error:
        if neighbour is None:
            raise
        tqdm.write(str(error), file=sys.stderr)
        return neighbour


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


def to_tensor(images: np.ndarray, flips: np.ndarray | None, device: torch.device) -> Tensor:
    """uint8 [B, H, H, 3] to float32 [B, 3, H, H] in [0, 1] on the device."""
    x = torch.from_numpy(np.array(images)).to(device).permute(0, 3, 1, 2).float() / 255
    if flips is not None and flips.any():
        mirrored = torch.from_numpy(flips).to(device)
        x = torch.where(mirrored[:, None, None, None], x.flip(-1), x)
    return x.contiguous(memory_format=torch.channels_last)

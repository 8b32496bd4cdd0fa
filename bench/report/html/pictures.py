"""Pictures of a report, without loss: the samples of an image by a method are one sheet, as WebP.

The page computes mean, deviation and difference from the sheets by itself, which halves its size.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.errors import BenchError
from bench.files import disk_errors, write_atomic
from bench.report.figures import SAME_RUN, sample_picture
from bench.report.html.collect import Collected
from bench.run.samples import read_picture

COLUMNS = 8
"""Samples in a row of a sheet: WebP ends at 16383 pixels."""
EMBEDDED = 13_000_000
"""Characters of pictures that the page holds; more go to a folder beside it."""
THUMBNAIL = 48
"""Side in pixels of the small pictures that the page holds where the others are in a folder."""


@dataclass
class Pictures:
    """Packed pictures.

    Attributes:
        index: what is where. ``truth`` and ``lr``: per run, scale to image to key; ``sheets``: per row, image to key
            and number of samples. Images are numbered as in `Collected.images`.
        embedded: key to data URI; empty where pictures are in files.
        files: numbers of the images that have a file.
        thumbnails: image to data URI, of the truth; only where pictures are in files.

    """

    index: dict[str, Any]
    embedded: dict[str, str] = field(default_factory=dict)
    files: list[int] = field(default_factory=list)
    thumbnails: dict[int, str] = field(default_factory=dict)


def pack(found: Collected, folder: Path, most: int = EMBEDDED) -> Pictures:
    """Encode all samples, images and observations that the runs have kept.

    Args:
        found: the runs.
        folder: for the files, one script per image, where the pictures are too many for the page. What else a former
            report left there is deleted.
        most: characters of pictures that the page holds.

    Raises:
        BenchError: a picture is damaged, or the disk is full.

    """
    index: dict[str, Any] = {
        "truth": [{} for _ in found.runs],
        "lr": [{} for _ in found.runs],
        "sheets": [{} for _ in found.entries],
    }
    packed = Pictures(index)
    held: dict[int, dict[str, str]] = {}
    size = 0
    for number in range(len(found.images)):
        pictures = dict(_of_image(found, number, index))
        if not pictures:
            continue
        held[number] = {key: _data_uri(picture, lossless=True) for key, picture in pictures.items()}
        size += sum(map(len, held[number].values()))
        largest = max(pictures.values(), key=lambda p: p.shape[0])
        small = Image.fromarray(largest[: largest.shape[0], : largest.shape[0]])
        packed.thumbnails[number] = _data_uri(np.asarray(small.resize((THUMBNAIL, THUMBNAIL))), lossless=False)
        if size > most:
            for n, uris in held.items():
                write_atomic(folder / file_name(n), _script(uris))
                packed.files.append(n)
            held = {}
    if size <= most:
        packed.embedded = {key: uri for uris in held.values() for key, uri in uris.items()}
        packed.thumbnails = {}
    _drop_others(folder, {file_name(n) for n in packed.files})
    return packed


def file_name(number: int) -> str:
    """Name of the file with the pictures of an image."""
    return f"{number:06d}.js"


def _of_image(found: Collected, number: int, index: dict[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """Keys and pixels of all pictures of an image; where they are goes to `index`."""
    name = found.images[number]
    for i, entry in enumerate(found.entries):
        at = next((k for k, image in entry.images.items() if image == name), None)
        count = 0 if at is None else entry.row.cell.samples.count(at)
        if at is None or not count:
            continue
        sheet = _sheet([sample_picture(entry.row.cell, at, j) for j in range(count)])
        yield (key := _key(sheet)), sheet
        index["sheets"][i][number] = [key, count]
        scale, run = entry.row.cell.key.scale, found.runs[entry.run]
        for kind, file in (("truth", "hr"), ("lr", "lr")):
            known = index[kind][entry.run].setdefault(scale, {})
            if number not in known and run.has_image(scale, at):
                picture = read_picture(run.image_folder(scale, at) / f"{file}.png", SAME_RUN)
                yield (key := _key(picture)), picture
                known[number] = key


def _sheet(samples: list[np.ndarray]) -> np.ndarray:
    """Samples uint8 [H, W, 3] side by side, `COLUMNS` in a row."""
    height, width, _ = samples[0].shape
    columns = min(len(samples), COLUMNS)
    sheet = np.zeros((-(-len(samples) // columns) * height, columns * width, 3), np.uint8)
    for j, sample in enumerate(samples):
        y, x = j // columns * height, j % columns * width
        sheet[y : y + height, x : x + width] = sample
    return sheet


def _key(picture: np.ndarray) -> str:
    """Equal pictures are kept once."""
    return hashlib.sha256(str(picture.shape).encode() + picture.tobytes()).hexdigest()[:16]


def _data_uri(picture: np.ndarray, lossless: bool) -> str:
    buffer = io.BytesIO()
    try:
        Image.fromarray(picture).save(buffer, "webp", lossless=lossless, method=0, quality=50)
    except KeyError:  # Pillow leaves a format out whose library it could not load
        raise BenchError(
            "Pillow cannot write WebP, of which the report's pictures are: its library did not load, as where memory "
            "is short, or this Pillow was built without it. Tables and figures are written; start again for the report."
        ) from None
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _script(pictures: dict[str, str]) -> str:
    """A script that hands pictures to the page: a page from disk may not read other files, but may run them."""
    return f"addPictures({json.dumps(pictures)});\n"


def _drop_others(folder: Path, names: set[str]) -> None:
    if not folder.is_dir():
        return
    with disk_errors(folder):
        for path in folder.glob("[0-9]*.js"):
            if path.name not in names:
                path.unlink()
        if not any(folder.iterdir()):
            folder.rmdir()

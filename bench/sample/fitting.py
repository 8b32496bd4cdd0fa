"""Fit an image to what a method takes: its scale, and its size. What does not fit is refused or changed as asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image, ImageOps

from bench.contract import Method
from bench.errors import ImageError
from bench.sample.config import Fit

Size = tuple[int, int]
"""Rows and columns, (H, W)."""


@dataclass(frozen=True)
class Fitted:
    """An image as a method takes it.

    Attributes:
        image: RGB.
        scale: scale factor.
        tile: rows and columns of a low-resolution tile, where it is to be tiled; else None.
        note: what was done to the image, "" for nothing.

    """

    image: Image.Image
    scale: int
    tile: Size | None = None
    note: str = ""


def text(size: Size) -> str:
    """A size as a person writes it, width first."""
    return f"{size[1]}x{size[0]}"


def size_of(image: Image.Image) -> Size:
    """Rows and columns of an image."""
    return image.height, image.width


def fitting_scales(method: Method) -> list[int] | None:
    """The scales that a method can do at its size; None where neither bounds them."""
    scales = method.facts.scales
    if method.size is None:
        return None if scales is None else list(scales)
    height, width = method.size
    return [s for s in scales or range(1, min(height, width) // 2 + 1) if height % s == 0 and width % s == 0]


def choose_scale(method: Method, name: str, low: Size | None, given: int | None) -> int:
    """The scale for an image: the given one, else the only one that fits.

    Args:
        method: built, with its size.
        name: of the image, for messages.
        low: size of the low-resolution image; None where it is not known, since a high-resolution one is degraded.
        given: by the user.

    Raises:
        ImageError: none or several fit; the sentence says which.

    """
    if given is not None:
        return given
    scales = fitting_scales(method)
    if scales is not None and method.size is not None and low is not None:
        exact = [s for s in scales if (low[0] * s, low[1] * s) == method.size]
        if len(exact) == 1:
            return exact[0]
        raise ImageError(f"{name} has {text(low)} pixels: {_takes(method, scales)}; {_mend('scale=')}.")
    if scales is not None and len(scales) == 1:
        return scales[0]
    listed = "any scale" if scales is None else "scale=" + " or scale=".join(map(str, scales))
    example = 4 if scales is None else scales[0]
    raise ImageError(f"{name} does not tell the scale, and {method.facts.title} does {listed}: add scale={example}.")


def _takes(method: Method, scales: list[int]) -> str:
    assert method.size is not None
    height, width = method.size
    shown = [f"{text((height // s, width // s))} (scale={s})" for s in scales]
    more = f" or smaller ones ({len(shown) - 4} more scales)" if len(shown) > 4 else ""
    return f"{method.facts.title} takes {' or '.join(shown[:4])}{more} with this network"


def _mend(scale: str = "") -> str:
    chosen = f"{scale}... and " if scale else ""
    return f"give such an image, or {chosen}fit=crop, fit=shrink or fit=tile"


def fit_image(image: Image.Image, name: str, method: Method, given: int | None, fit: Fit, degrade: bool) -> Fitted:
    """Make an image one that a method takes.

    Args:
        image: RGB; a low-resolution one, or with `degrade` a high-resolution one.
        name: in messages.
        method: built.
        given: scale by the user, None for the one that fits.
        fit: what to do with an image of another size.
        degrade: whether the image is to be observed.

    Raises:
        ImageError: the image does not fit, or is too small.

    """
    have = size_of(image)
    scale = choose_scale(method, name, None if degrade else have, given)
    size = method.size
    if size is not None and (size[0] % scale or size[1] % scale):
        raise ImageError(
            f"scale={scale} does not divide the {size[0]} pixels of {method.facts.title}'s images: choose a divisor."
        )
    if fit == "tile" and size is not None:
        return _tiled(image, name, (size[0] // scale, size[1] // scale), scale, degrade)
    want = _wanted(have, size, scale, degrade)
    if size is None and min(want) < (2 * scale if degrade else 2):
        raise ImageError(f"{name} has {text(have)} pixels, too few for scale={scale}: use a larger image.")
    if have == want:
        return Fitted(image, scale)
    if have[0] < want[0] or have[1] < want[1]:
        raise ImageError(
            f"{name} has {text(have)} pixels, fewer than the {text(want)} that {method.facts.title} takes at "
            f"scale={scale}: use a larger image."
        )
    if fit == "refuse":
        if size is None:
            raise ImageError(
                f"{name} has {text(have)} pixels, which scale={scale} does not divide: add fit=crop, or crop it to "
                f"{text(want)}."
            )
        raise ImageError(
            f"{name} has {text(have)} pixels: {method.facts.title} takes {text(want)} at scale={scale} with this "
            f"network; {_mend()}."
        )
    if fit == "shrink" and size is not None:
        small = ImageOps.fit(image, (want[1], want[0]), Image.Resampling.LANCZOS)
        return Fitted(small, scale, note=f"the central part of {text(have)} pixels, shrunk to {text(want)} (Lanczos)")
    return Fitted(_centre(image, want), scale, note=f"the central {text(want)} of {text(have)} pixels")


def _wanted(have: Size, size: Size | None, scale: int, degrade: bool) -> Size:
    """The size that an image must have."""
    if size is not None:
        return size if degrade else (size[0] // scale, size[1] // scale)
    return (have[0] // scale * scale, have[1] // scale * scale) if degrade else have


def _tiled(image: Image.Image, name: str, tile: Size, scale: int, degrade: bool) -> Fitted:
    have = size_of(image)
    want = _wanted(have, None, scale, degrade)
    low = (want[0] // scale, want[1] // scale) if degrade else want
    if low[0] < tile[0] or low[1] < tile[1]:
        raise ImageError(f"{name} has {text(have)} pixels, fewer than one tile at scale={scale}: use a larger image.")
    if low == tile:
        return Fitted(_centre(image, want), scale)
    count = len(list(places(low, tile)))
    return Fitted(_centre(image, want), scale, tile, f"{count} tiles, each sampled alone: seams can be seen")


def places(size: Size, tile: Size) -> Iterator[Size]:
    """First row and column of the tiles that cover an image; the last ones of a row or column end at its border."""
    for top in _starts(size[0], tile[0]):
        for left in _starts(size[1], tile[1]):
            yield top, left


def _starts(side: int, tile: int) -> list[int]:
    return sorted({*range(0, side - tile + 1, tile), side - tile})


def _centre(image: Image.Image, want: Size) -> Image.Image:
    if size_of(image) == want:
        return image
    top, left = (image.height - want[0]) // 2, (image.width - want[1]) // 2
    return image.crop((left, top, left + want[1], top + want[0]))

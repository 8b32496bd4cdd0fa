"""Read image files of any kind into square 8-bit RGB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from bench.errors import ImageError

EXTENSIONS = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}


def list_images(folder: Path) -> list[Path]:
    """All image files below a folder, sorted by their path relative to it (the same order on every machine)."""
    found = [p for p in folder.rglob("*") if p.suffix.lower() in EXTENSIONS and p.is_file()]
    return sorted(found, key=lambda p: p.relative_to(folder).as_posix())


def read_rgb(path: Path) -> Image.Image:
    """Decode a file: EXIF rotation applied, grey repeated, transparency over white, 16 bits scaled to 8.

    Raises:
        ImageError: missing, truncated, not an image.

    """
    try:
        with Image.open(path) as file:
            image: Image.Image = ImageOps.exif_transpose(file)
            image.load()
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist.") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # Pillow reports broken files by all of these
        raise ImageError(f"{path} cannot be decoded ({error}): replace or remove it.") from None
    if image.mode.startswith("I"):  # 16 bits per pixel, which Pillow's own conversion would clip
        return Image.fromarray(
            (np.asarray(image).astype(np.float64) / 257).round().clip(0, 255).astype(np.uint8)
        ).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def centre_square(image: Image.Image, size: int, resample: Image.Resampling, name: object) -> np.ndarray:
    """Crop the central square and shrink it to uint8 [size, size, 3].

    Raises:
        ImageError: the shorter side has fewer than `size` pixels (enlarging would invent the ground truth).

    """
    side = min(image.size)
    if side < size:
        raise ImageError(
            f"{name} has {image.width}x{image.height} pixels, too few for {size}x{size}: "
            "use larger images or a smaller dataset.size."
        )
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return np.asarray(square if side == size else square.resize((size, size), resample)).copy()

"""Read image files of any kind into square 8-bit RGB; what a file does not tell is refused, never guessed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from bench.errors import ImageError

EXTENSIONS = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
EIGHT_BITS = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}
"""Pixel formats of Pillow that its own conversion to RGB treats rightly."""
BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339
"""Tags of TIFF 6.0."""
WHITE_IS_ZERO, UNSIGNED = 0, 1


def list_images(folder: Path) -> list[Path]:
    """All image files below a folder, sorted by their path relative to it (the same order on every machine).

    Hidden files and folders are left out: macOS writes a resource file ``._A.JPG`` beside ``A.JPG``. A link to what is
    not there counts: it is an image that cannot be read.
    """
    images = (p for p in folder.rglob("*") if p.suffix.lower() in EXTENSIONS)
    found = [p.relative_to(folder) for p in images if p.is_file() or (p.is_symlink() and not p.exists())]
    return [folder / p for p in sorted(found, key=Path.as_posix) if not any(part.startswith(".") for part in p.parts)]


def _refusal(file: Image.Image) -> str | None:
    """Why the pixels of an open file are ambiguous, None if they are not."""
    tags = getattr(file, "tag_v2", {})  # of TIFF
    deep = ";16" in str(getattr(file, "tile", ""))
    # what follows the first picture of a JPEG (MPO) are previews and maps of it
    frames = 1 if file.format == "MPO" else getattr(file, "n_frames", 1)
    if frames > 1:
        return f"has {frames} frames: save the one that you mean as a file of its own"
    if file.mode == "F":
        return "has floating-point pixels, and no file tells their range: save it with 8 or 16 bits"
    if file.mode == "I" and file.format != "PNG":  # what older versions of Pillow call 16 bits in PNG
        return "has 32-bit or signed pixels, and no file tells their range: save it with 8 or 16 bits"
    if any(form != UNSIGNED for form in tags.get(SAMPLE_FORMAT, ())):
        return "has pixels that are no unsigned integers: save it with 8 or 16 unsigned bits"
    if file.mode.startswith("I"):
        if file.format not in ("PNG", "TIFF") or any(bits != 16 for bits in tags.get(BITS_PER_SAMPLE, ())):
            return "has neither 8 nor 16 bits per pixel: save it with 8 or 16 bits"
        if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
            return "has 16 bits with 0 for white: save it with 0 for black"
    elif file.mode not in EIGHT_BITS:
        return f"has pixels of the format {file.mode}: save it as RGB"
    if deep and "transparency" in file.info:
        return "has 16 bits and a transparent colour: save it with an alpha channel or without transparency"
    return None


def read_rgb(path: Path) -> Image.Image:
    """Decode a file: EXIF rotation applied, grey repeated, transparency over white, 16 bits scaled to 8.

    Raises:
        ImageError: missing, truncated, not an image, several frames, or pixels whose range the file does not tell.

    """
    try:
        with Image.open(path) as file:
            refusal = _refusal(file)
            if refusal:
                raise ImageError(f"{path} {refusal}.")
            image: Image.Image = ImageOps.exif_transpose(file)
            image.load()
    except FileNotFoundError:
        what = "is a link to what is not there" if path.is_symlink() else "does not exist"
        raise ImageError(f"{path} {what}.") from None
    except ImageError:
        raise
    except Exception as error:  # noqa: BLE001 -- Pillow reports damaged files by errors of nearly every type
        raise ImageError(f"{path} cannot be decoded ({error}): replace or remove it.") from None
    if image.mode.startswith("I"):  # 16 bits per pixel, which Pillow's own conversion would clip
        return Image.fromarray((np.asarray(image).astype(np.float64) / 257).round().astype(np.uint8)).convert("RGB")
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

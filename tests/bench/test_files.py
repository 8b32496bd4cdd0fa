"""Files that are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.files import write_png


@pytest.mark.parametrize("kind", ["noise", "smooth", "texture", "one colour"])
def test_a_png_has_the_pixels_that_were_written(tmp_path: Path, kind: str) -> None:
    """Whatever the compression is made for."""
    y, x = np.mgrid[:64, :96]
    image = {
        "noise": np.random.default_rng(0).integers(0, 256, (64, 96, 3)),
        "smooth": np.stack([2 * x, 2 * y, x + y], -1),
        "texture": np.tile(np.random.default_rng(1).integers(0, 256, (8, 8, 3)), (8, 12, 1)),
        "one colour": np.full((64, 96, 3), 200),
    }[kind].astype(np.uint8)
    write_png(tmp_path / "image.png", image)
    assert (np.asarray(Image.open(tmp_path / "image.png")) == image).all()

"""Files that are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.errors import DiskError
from bench.files import write_atomic, write_png


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


def test_a_folder_that_cannot_be_made_is_named_with_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Path("/proc/nowhere/file")
    with pytest.raises(DiskError, match="none can be made: choose another out=DIR"):
        write_atomic(place, "x")
    monkeypatch.setenv("BENCH_CACHE", str(place.parent))
    with pytest.raises(DiskError, match="none can be made: set BENCH_CACHE to another folder"):
        write_atomic(place, "x")

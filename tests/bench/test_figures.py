from collections.abc import Callable

import numpy as np
from PIL import Image

from bench.config import RunConfig
from bench.figures import sample_grids
from bench.runner import run


def test_grids_show_the_kept_images(configure: Callable[..., RunConfig]) -> None:
    directory, _ = run(configure("scale=[4,8]", "save_images=2"))
    written = sample_grids(directory)
    assert sorted(p.name for p in written) == ["samples_x4.pdf", "samples_x4.png", "samples_x8.pdf", "samples_x8.png"]
    picture = np.asarray(Image.open(directory.path / "figures" / "samples_x4.png").convert("RGB")).astype(float)
    hr = Image.open(directory.path / "images/x4/000000/hr.png").convert("RGB")
    tile = np.asarray(hr.resize((161, 161), Image.Resampling.NEAREST)).astype(float)
    # the ground truth is somewhere in the last column
    column = picture[:, -170:]
    errors = [np.abs(column[y : y + 161, 4:165] - tile).mean() for y in range(0, 80)]
    assert min(errors) < 25


def test_figures_are_reproducible(configure: Callable[..., RunConfig]) -> None:
    directory, _ = run(configure("save_images=1"))
    first = [p.read_bytes() for p in sample_grids(directory)]
    assert first == [p.read_bytes() for p in sample_grids(directory)]


def test_nothing_kept_nothing_drawn(configure: Callable[..., RunConfig]) -> None:
    directory, _ = run(configure("save_images=0"))
    assert sample_grids(directory) == []

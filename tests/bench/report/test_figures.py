from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from bench.config import RunConfig
from bench.errors import BenchError
from bench.report.figures import Strip, deviation_map, picture_grid, sample_grids, sample_heads, strips_of_image
from bench.report.plots import on_front, write_plots
from bench.run.cell import CellKey
from bench.run.runner import run


def test_grids_show_the_kept_images(configure: Callable[..., RunConfig]) -> None:
    directory, _ = run(configure("scale=[4,8]", "figure_images=2"))
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
    directory, _ = run(configure("figure_images=1"))
    first = [p.read_bytes() for p in sample_grids(directory)]
    assert first == [p.read_bytes() for p in sample_grids(directory)]


def test_nothing_kept_nothing_drawn(configure: Callable[..., RunConfig]) -> None:
    directory, _ = run(configure("save_samples=none"))
    assert sample_grids(directory) == []


def test_as_many_images_as_asked_for(configure: Callable[..., RunConfig]) -> None:
    shown = {}
    for count in (1, 2):
        directory, _ = run(configure(f"figure_images={count}"))
        (grid,) = (p for p in sample_grids(directory) if p.suffix == ".png")
        shown[count] = Image.open(grid).height
    assert 1.5 * shown[1] < shown[2] < 2 * shown[1]
    assert directory.cell(CellKey("bicubic", 8, None)).samples.count(2) == 1  # kept, not shown
    assert directory.has_image(8, 2)


def test_a_damaged_picture_is_named(configure: Callable[..., RunConfig]) -> None:
    directory, _ = run(configure("limit=1"))
    for path in (directory.image_folder(8, 0) / "hr.png", directory.path / "cells/bicubic_x8/samples/000000_0.png"):
        whole = path.read_bytes()
        path.write_bytes(whole[:60])
        with pytest.raises(BenchError, match=f"{path.name} is damaged"):
            sample_grids(directory)
        path.write_bytes(whole)


def test_dollars_are_no_formula() -> None:
    grid = picture_grid([Strip(r"a_$x$", [np.zeros((4, 4, 3), np.uint8)])], ["LR"])
    assert grid.texts[0].get_text() == r"a_\$x\$"


def test_deviation_maps() -> None:
    still = np.full((4, 5, 3), 100, dtype=np.uint8)
    assert (deviation_map([still, still]) == deviation_map([still, still])[0, 0]).all()
    other = still.copy()
    other[1, 2] = 100 + 72  # deviation 72 / sqrt(2) / 255 = 0.1997 of 0.2
    shown = deviation_map([still, other]).astype(int).sum(-1)
    assert shown[1, 2] > 600
    assert shown[0, 0] < 10


def test_the_map_of_samples_has_its_column(configure: Callable[..., RunConfig]) -> None:
    directory, _ = run(configure("methods=[bicubic,cvdvae]", "n=2"))
    bicubic, cvdvae = strips_of_image(
        directory,
        0,
        [(directory.cell(CellKey("bicubic", 8, None)), "B"), (directory.cell(CellKey("cvdvae", 8, 0.8)), "C")],
        2,
        spread=True,
    )
    assert [p is not None for p in bicubic.pictures] == [True, True, False, False, True]  # one sample, no deviation
    assert [p is not None for p in cvdvae.pictures] == [False, True, True, True, False]  # LR and HR stand above
    assert len(sample_heads(2, spread=True)) == 5


def test_pareto_front() -> None:
    points = np.array([[1, 5], [2, 4], [1.5, 3], [3, 1], [3, 1], [2.5, np.nan]])
    assert on_front(points).tolist() == [True, True, False, True, True, False]


def test_plots_of_a_run(configure: Callable[..., RunConfig]) -> None:
    directory, _ = run(configure("methods=[bicubic,cvdvae]", "n=2", "metrics=[psnr,stlpips_alex,apd_mse,seconds]"))
    assert sorted(p.name for p in write_plots(directory)) == [
        "distributions_x8.pdf", "distributions_x8.png", "pareto_x8.pdf", "pareto_x8.png",
    ]  # fmt: skip
    directory, _ = run(configure("metrics=[seconds]", f"out={directory.path}_times"))
    assert write_plots(directory) == []

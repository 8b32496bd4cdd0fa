"""Faces from the fitted mixture: keyed by their numbers, with the mixture's moments, close to the rendered ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.contract import Noise
from bench.data import make_dataset
from bench.data.gaussians import FILE, load_mixture
from bench.errors import BenchError


def test_images_are_floats_that_follow_from_their_number() -> None:
    a, b = (make_dataset({"name": "gaussians", "size": 32}) for _ in range(2))
    assert (a.range, a.ids[3]) == (None, "test-000003")
    x = a.load(3)
    assert (x.dtype, x.shape) == (np.float32, (32, 32, 3))
    assert np.array_equal(x, b.load(3))
    assert not np.array_equal(x, make_dataset({"name": "gaussians", "size": 32, "split": "val"}).load(3))


def test_the_file_is_small_and_its_figures_are_those_of_a_mixture() -> None:
    assert FILE.stat().st_size < 6e6
    m = load_mixture(64)
    assert m.shape == (3, 64, 64)
    assert float(m.weights.sum()) == pytest.approx(1)
    assert (m.stds > 0.01).all()


@pytest.mark.parametrize("size", [32, 64])
def test_samples_look_like_rendered_faces_on_average(size: int) -> None:
    """Mean image and variance of validation faces, which the fit has not seen."""
    faces = make_dataset({"name": "synthfaces", "split": "val", "size": size}).load_many(range(128)) / 255.0
    drawn = load_mixture(size).sample(Noise(0, ["a"], range(128)))[0].permute(0, 2, 3, 1).numpy()
    assert np.abs(faces.mean(0) - drawn.mean(0)).mean() < 0.04
    assert drawn.var(0).mean() == pytest.approx(faces.var(0).mean(), rel=0.15)


def test_thirty_two_pixels_are_averages_of_sixty_four() -> None:
    high, low = load_mixture(64), load_mixture(32)
    assert torch.allclose(torch.nn.functional.avg_pool2d(high.means, 2), low.means)


def test_other_sizes_are_refused() -> None:
    with pytest.raises(BenchError, match="use 32 or 64"):
        make_dataset({"name": "gaussians", "size": 48})

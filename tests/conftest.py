"""Shared fixtures. No test needs a network, a GPU or weights that do not come with a package."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench.config import RunConfig, compose, read_config

os.environ.setdefault("BENCH_CACHE", "/nonexistent")


@pytest.fixture(autouse=True)
def _no_gradients_left_on() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    assert torch.is_grad_enabled()


@pytest.fixture
def photographs() -> torch.Tensor:
    """Three real photographs that come with scikit-image, float32 [3, 3, 64, 64] in [0, 1]."""
    import skimage.data

    crops = [
        skimage.data.astronaut()[30:94, 190:254],
        skimage.data.coffee()[100:164, 200:264],
        skimage.data.astronaut()[300:364, 60:124],
    ]
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255


@pytest.fixture
def configure(tmp_path: Path) -> Callable[..., RunConfig]:
    """Compose a run's configuration from overrides, with quick settings and a fresh run directory."""

    def make(*overrides: str, config: str = "run") -> RunConfig:
        quick = ["limit=3", "scale=8", "metrics=[psnr]", "device=cpu", f"out={tmp_path / 'run'}", "timing.repeats=1",
                 "statistics=false"]  # fmt: skip
        return read_config(compose(config, [*quick, *overrides]))

    return make


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Four 96x80 images of noise."""
    folder = tmp_path / "images"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for k in range(4):
        Image.fromarray(generator.integers(0, 256, (80, 96, 3), dtype=np.uint8)).save(folder / f"{k}.png")
    return folder

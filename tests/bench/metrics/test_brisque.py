"""Against piq with the same figures, and against the LIVE release run in Octave with libsvm."""

import sys

import numpy as np
import piq
import pytest
import skimage.data
import torch

from bench.metrics.brisque import _model, brisque

CROPS = {
    "launch": lambda: skimage.data.astronaut()[:256, :256],
    "cup": lambda: skimage.data.coffee()[100:228, 200:328],
    "face": lambda: skimage.data.astronaut()[40:104, 190:254],
}
# github:utlive/BRISQUE: brisque_feature.m in GNU Octave 7 with MATLAB's imresize(., 0.5), then libsvm's two programs
LIVE = {"launch": -4.35436, "cup": 14.13715, "face": 32.62678}


def image(name: str) -> torch.Tensor:
    return torch.from_numpy(CROPS[name]().copy()).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize("name", CROPS)
def test_equals_piq(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model()
    weights = (torch.from_numpy(model["coefficients"])[:, None], torch.from_numpy(model["support_vectors"]))
    monkeypatch.setattr(sys.modules["piq.brisque"], "load_url", lambda *a, **k: (weights[0], weights[1].clone()))
    theirs = piq.brisque(image(name).double(), data_range=1.0)
    assert brisque(image(name)).item() == pytest.approx(theirs.item(), abs=1e-4)


@pytest.mark.parametrize("name", CROPS)
def test_near_the_live_release(name: str) -> None:
    assert brisque(image(name)).item() == pytest.approx(LIVE[name], abs=0.25)


def test_batch_equals_single_images(photographs: torch.Tensor) -> None:
    single = torch.cat([brisque(x[None]) for x in photographs])
    torch.testing.assert_close(brisque(photographs), single)


def test_blur_is_worse(photographs: torch.Tensor) -> None:
    blurred = torch.nn.functional.avg_pool2d(photographs, 5, 1, 2, count_include_pad=False)
    assert (brisque(blurred) > brisque(photographs) + 5).all()


def test_a_constant_image_has_no_value() -> None:
    assert np.isnan(brisque(torch.full((1, 3, 64, 64), 0.5)).item())

"""The smallest image that each metric declares is the smallest that it can measure."""

import contextlib
import io
import warnings
from functools import cache

import lpips
import numpy as np
import pytest
import skimage.data
import torch

from bench.metrics import Evaluation, metric_facts, metrics, too_small
from bench.metrics import perceptual as module
from bench.metrics.brisque import brisque
from bench.operators.bicubic import Bicubic

MEASURED = [n for n in metrics.names() if metrics.get(n).facts.domain != "timing"]
LIMITED = [n for n in MEASURED if metric_facts(n).least_size > 1 and n != "brisque"]


LOAD = module.load_net


@cache
def random_net(name: str, device: torch.device) -> module.PerceptualNet:
    """LPIPS' own weights need a download; what it can measure does not depend on them."""
    if name.startswith("stlpips"):
        return LOAD(name, device)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        return module.from_lpips(lpips.LPIPS(net=name.removeprefix("lpips_"), pnet_rand=True))


@pytest.fixture(autouse=True)
def _random_backbones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "load_net", random_net)


def evaluation(size: int) -> Evaluation:
    """One image of noise with two samples; the observation is not asked for."""
    hr = torch.rand(1, 3, size, size)
    return Evaluation(hr, hr, torch.rand(1, 2, 3, size, size), Bicubic(size, 1))


@pytest.mark.parametrize("name", [n for n in MEASURED if n != "brisque"])
def test_it_is_measured_from_there_on(name: str) -> None:
    least = metric_facts(name).least_size
    for size in (max(least, 2), least + 2):  # an operator makes no image of one pixel
        assert metrics.get(name)()(evaluation(size)).isfinite().all()


@pytest.mark.parametrize("name", LIMITED)
def test_it_is_not_below(name: str) -> None:
    with pytest.raises((RuntimeError, ValueError)):
        metrics.get(name)()(evaluation(metric_facts(name).least_size - 1))


def without_brisque(size: int, count: int = 600) -> float:
    """Share of textured crops of three photographs without a BRISQUE."""
    photographs = (skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea())
    random = np.random.default_rng(0)
    crops = []
    for k in range(count):
        image = photographs[k % 3]
        top, left = random.integers(0, image.shape[0] - size), random.integers(0, image.shape[1] - size)
        crops.append(image[top : top + size, left : left + size])
    x = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255
    textured = x.mean(1).std((1, 2)) > 0.02
    return float(brisque(x[textured]).isnan().double().mean())


def test_brisque_fades_out_below() -> None:
    """It has no sharp limit: the smaller an image, the more often its products of neighbours have one sign only."""
    least = metric_facts("brisque").least_size
    assert without_brisque(least) < 0.005
    assert without_brisque(least // 2) > 0.03


def test_too_small_is_one_sentence() -> None:
    assert too_small("ssim", 8) == "ssim is n/a for images of 8x8 pixels: it needs 11x11 or more."
    assert too_small("ssim", 11) is None
    assert too_small("psnr", 1) is None
    assert too_small("seconds", 8) is None
    assert "apd_stlpips_alex" in str(too_small("apd_stlpips_alex", 16))

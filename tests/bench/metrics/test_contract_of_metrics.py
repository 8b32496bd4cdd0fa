import numpy as np
import pytest
import torch

from bench.errors import BenchError
from bench.metrics import Evaluation, column, metric_facts, metrics, resolve_metrics
from bench.operators.bicubic import Bicubic, enlarge

SHAPES = {"sample": (2, 3), "pair": (2, 3), "image": (2,)}
OFFLINE = [n for n in metrics.names() if "_lpips" not in f"_{n}"]  # lpips_* need a download


@pytest.mark.parametrize("name", metrics.names())
def test_facts_are_complete(name: str) -> None:
    f = metrics.get(name).facts
    assert f.label
    assert f.range
    assert f.source
    assert f.better in ("higher", "lower", "neither")
    assert format(12.345, f.digits)
    assert column(name).startswith(name)


@pytest.mark.parametrize("name", [n for n in OFFLINE if metrics.get(n).facts.domain != "timing"])
def test_shapes_follow_the_domain(name: str) -> None:
    d = Bicubic(64, 4)
    hr = torch.rand(2, 3, 64, 64)
    e = Evaluation(hr, d.observe(hr), torch.rand(2, 3, 3, 64, 64), d)
    value = metrics.get(name)()(e)
    assert tuple(value.shape) == SHAPES[metric_facts(name).domain]
    assert value.isfinite().all()


@pytest.mark.parametrize("name", ["seconds", "throughput"])
def test_time_is_not_computed_from_images(name: str) -> None:
    d = Bicubic(64, 4)
    hr = torch.rand(2, 3, 64, 64)
    with pytest.raises(BenchError, match=r"bench\.run\.timing"):
        metrics.get(name)()(Evaluation(hr, d.observe(hr), hr[:, None], d))


def test_unknown_metric() -> None:
    with pytest.raises(BenchError, match="Did you mean 'psnr'"):
        resolve_metrics(["psnrr"], "auto")


def test_pyiqa_is_optional_and_agrees_on_psnr(photographs: torch.Tensor) -> None:
    try:
        import pyiqa  # noqa: F401
    except ImportError:
        with pytest.raises(BenchError, match=r"pip install 'diverse-sr-bench\[iqa\]'"):
            resolve_metrics(["pyiqa:psnr"], "auto")
        return
    from bench.metrics import load_metrics

    d = Bicubic(64, 4)
    samples = enlarge(d.forward(photographs), d.size).clamp(0, 1)[:, None]
    e = Evaluation(photographs, d.observe(photographs), samples, d)
    ours, theirs = (m(e).numpy() for m in load_metrics(["psnr", "pyiqa:psnr"], "cpu").values())
    np.testing.assert_allclose(ours, theirs, atol=1e-3)

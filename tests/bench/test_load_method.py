"""Methods from Python: the settings of the command line, any size that a method can do, sentences for what is wrong."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from bench import load_method
from bench.config import RunConfig
from bench.contract import Noise, UnusableSamples
from bench.data import make_dataset
from bench.errors import BenchError
from bench.load import make_method
from bench.operators import make_operator
from bench.operators.bicubic import Bicubic, enlarge
from bench.run.draw import Sampler, finite_images, observe


def observed(photographs: Tensor, scale: int, size: tuple[int, int] = (64, 64)) -> Tensor:
    x = photographs[..., : size[0], : size[1]]
    return Bicubic(size, scale).observe(x)


def test_importing_the_package_imports_no_torch() -> None:
    code = "import bench, sys; print('torch' in sys.modules, bench.__version__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("False ")


@pytest.mark.parametrize(
    ("name", "scale", "settings"),
    [
        ("bicubic", 4, {}),
        ("cvdvae", 8, {"output": "mean"}),
        ("hcflow", 4, {}),
        ("sr3", 8, {"steps": 4}),
        ("dps", 8, {"steps": 4, "compute": {"rows": 2}}),
    ],
)
def test_samples_are_those_of_the_harness(
    name: str, scale: int, settings: dict[str, Any], configure: Callable[..., RunConfig]
) -> None:
    words = [f"methods.{name}.{k}={v}" for k, v in settings.items() if not isinstance(v, dict)]
    words += [f"methods.{name}.{k}.{i}={w}" for k, v in settings.items() if isinstance(v, dict) for i, w in v.items()]
    config = configure(f"methods=[{name}]", f"scale={scale}", *words)
    dataset = make_dataset(config.dataset)
    exact = make_operator(config.operator, scale, dataset.size, dtype=torch.float64)
    y = torch.stack([observe(dataset, i, exact, config.seed)[1] for i in range(2)])
    method = make_method(config.methods[0]).prepare(exact.to("cpu", torch.float32))
    stored = Sampler(method, name, config.seed, n=2)(y, dataset.ids[:2], 0.8 if method.facts.uses_tau else None)

    m = load_method(name, scale, device="cpu", **settings)
    x = m.sample(y, stored.shape[1], 0.8, Noise(config.seed, dataset.ids[:2], range(stored.shape[1])))
    assert x.dtype == torch.float32
    assert torch.equal((x.clamp(0, 1) * 255).round(), (stored * 255).round())


def test_equal_calls_give_equal_samples_and_a_batch_equals_its_images(photographs: Tensor) -> None:
    m = load_method("cvdvae", scale=8)
    y = observed(photographs, 8)
    x = m.sample(y, 3, 0.8)
    assert x.shape == (3, 3, 3, 64, 64)
    assert torch.equal(x, m.sample(y, 3, 0.8))
    alone = torch.cat([m.sample(row[None], 3, 0.8) for row in y])
    assert ((x - alone).abs() > 1 / 255).float().mean() < 1e-3
    assert not torch.equal(x, m.sample(y, 3, 0.8, Noise.of_content(y, 3, seed=1)))


@pytest.mark.parametrize("name", ["bicubic", "hcflow"])
def test_methods_of_any_size_follow_y(name: str, photographs: Tensor) -> None:
    m = load_method(name, 8, device="cpu")
    for size in ((32, 64), (64, 32), (64, 64)):
        y = observed(photographs, 8, size)
        x = m.sample(y, 2, 0.5)
        assert x.shape == (3, 2, 3, *size)
        # a plausible image of y: its observation is near to y
        again = Bicubic(size, 8).forward(x)
        assert (again - y[:, None]).abs().mean() < 0.03
        if name == "bicubic":
            torch.testing.assert_close(x[:, 0], enlarge(y, size).clamp(0, 1))


def test_samples_that_failed_are_named(photographs: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    m = load_method("bicubic", np.int64(4), device="cpu")  # type: ignore[arg-type]
    real = m.method.draw

    def draw(y: Tensor, n: int, tau: float | None, noise: Noise) -> Tensor:
        x = real(y, n, tau, noise)
        x[1:] = torch.nan
        return x

    monkeypatch.setattr(m.method, "draw", draw)
    for _ in range(2):  # every time
        with pytest.warns(UnusableSamples, match=r"failed for 2 of 3 images, y\[\[1, 2\]\]: samples of them are NaN"):
            x = m.sample(observed(photographs, 4), 2)
    assert finite_images(x).tolist() == [True, False, False]


def test_a_network_fixes_the_size(photographs: Tensor) -> None:
    m = load_method("sr3", 8, steps=2)
    with pytest.raises(BenchError, match=r"expects y of the shape \[B, 3, 8, 8\], got \[3, 3, 8, 4\]"):
        m.sample(observed(photographs, 8, (64, 32)), 1)


def test_another_operator_and_its_noise(photographs: Tensor) -> None:
    m = load_method("bicubic", 4, operator="average", sigma=0.05)
    y = observed(photographs, 4) + 0.5  # with noise, y may leave the range
    assert m.sample(y, 1).shape == (3, 1, 3, 64, 64)
    assert m.method.operator.title == "average x4, sigma 0.05"
    same = load_method("bicubic", 4, operator={"name": "average", "sigma": 0.05})
    assert same.method.size is None
    with pytest.raises(BenchError, match=r"operator\.width is no setting of average"):
        load_method("bicubic", 4, operator={"name": "average", "width": 2})


@pytest.mark.parametrize(
    ("arguments", "settings", "sentence"),
    [
        (("bicubik", 4), {}, "There is no method 'bicubik'. Did you mean 'bicubic'?"),
        (("dps", 8), {"step": 4}, "methods.dps.step is no setting of dps. Did you mean 'steps'"),
        (("dps", 8), {"compute": {"row": 4}}, "methods.dps.compute.row is no setting of dps. Did you mean 'rows'"),
        (("dps", 8), {"precision": "bf16"}, "precision is no setting of dps. Did you mean 'compute.precision'?"),
        (("dps", 8), {"steps": "many"}, "methods.dps.steps=many is wrong: it should be a whole number."),
        (("cvdvae", 3), {}, "CVDVAE does not do scale=3: it does bicubic x4, x8"),
        (("cvdvae", 8), {"operator": "average"}, "CVDVAE does not do operator=average: it does bicubic x4, x8"),
        (("cvdvae", 8), {"sigma": 0.1}, "CVDVAE does not do operator.sigma=0.1"),
        (("bicubic", 8), {"operator": "bicubik"}, "There is no operator 'bicubik'. Did you mean 'bicubic'?"),
        (("bicubic", 8), {"device": "tpu"}, "device=tpu"),
        (("bicubic", 2.5), {}, "scale=2.5 is wrong: give a whole number, as 4 or 8."),
        ((3, 8), {}, "The method's name is 3: give that of its configuration"),
        (("bicubic", 8), {"device": None}, "device=None is wrong: give text"),
        (("bicubic", 8), {"operator": None}, "operator=None is wrong: give a name or settings"),
        (("dps", 8), {"operator": {"name": "bicubic", "range": [0, 255]}}, "not for operator.range=[0,255]"),
        (("bicubic", 8), {"sigma": float("nan")}, "operator.sigma=nan is wrong"),
        (("bicubic", 8), {"sigma": float("inf")}, "operator.sigma=inf is wrong"),
        (("bicubic", 8), {"sigma": -1.0}, "operator.sigma=-1 is wrong"),
        (("bicubic", 8), {"operator": {"name": "bicubic", "range": [1, 0]}}, "operator.range=[1,0] is wrong"),
        (("dps", 8), {"weights": "nowhere.pt"}, "The weights nowhere.pt do not exist"),
    ],
)
def test_wrong_arguments_are_one_sentence(arguments: tuple[Any, ...], settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BenchError) as error:
        load_method(*arguments, **settings)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda a: a, r"y is a numpy.ndarray, not a tensor: .*torch.from_numpy"),
        (Image.fromarray, r"y is a PIL.Image.Image, not a tensor: .*torch.from_numpy"),
        (lambda a: torch.from_numpy(a).permute(2, 0, 1)[None], r"y is torch.uint8: give .* y.float\(\) / 255"),
        (lambda a: torch.from_numpy(a).permute(2, 0, 1)[None].double() / 255, r"y is torch.float64: give .* y.float"),
        (
            lambda a: torch.from_numpy(a).permute(2, 0, 1).float() / 255,
            r"\[3, 8, 6\], not .*: for one image give y\[No",
        ),
        (lambda a: torch.from_numpy(a).float() / 255, r"\[8, 6, 3\], not .*: give y.movedim\(-1, -3\)\[None\]"),
        (lambda a: torch.zeros(1, 3, 8, 6, device="meta"), "y is on the device meta"),
        (lambda a: torch.zeros(1, 4, 8, 6), r"\[1, 4, 8, 6\], not \[B, 3, h, w\]"),
        (lambda a: torch.from_numpy(a).permute(2, 0, 1)[None].float(), "expects y between 0 and 1, got values from"),
    ],
    ids=["numpy", "PIL", "uint8", "float64", "one image", "channels last", "meta", "four channels", "0 to 255"],
)
def test_wrong_images_are_told_how_to_be_converted(make: Callable[[np.ndarray], Any], sentence: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    m = load_method("bicubic", 4)
    with pytest.raises(BenchError, match=sentence):
        m.sample(make(pixels), 1)
    good = torch.from_numpy(np.array(Image.fromarray(pixels))).permute(2, 0, 1)[None].float() / 255
    assert m.sample(good, 1).shape == (1, 1, 3, 32, 24)

"""Every operator against its dense matrix at a small size, and what belongs to one of them alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import torch
from PIL import Image

from bench.config import compose, read_config
from bench.contract import Noise
from bench.errors import BenchError
from bench.operators import Operator, make_operator, operator_kind, operators
from bench.run.selection import cell_keys

SETTINGS: dict[str, dict[str, Any]] = {
    "average": {"name": "average"},
    "bicubic": {"name": "bicubic"},
    "blur": {"name": "blur"},
    "blur, wide": {"name": "blur", "std": 2.5},
    "box": {"name": "inpainting"},
    "random": {"name": "inpainting", "mask": "random", "missing": 0.6},
}
each = pytest.mark.parametrize("label", SETTINGS)
SIZE = (8, 12)


def make(label: str, **settings: Any) -> Operator:
    return make_operator({**SETTINGS[label], **settings}, 2, SIZE, dtype=torch.float64)


def dense(operator: Operator) -> np.ndarray:
    """A as a matrix [h w, H W], by its columns."""
    pixels = SIZE[0] * SIZE[1]
    images = torch.eye(pixels, dtype=torch.float64).view(pixels, *SIZE)
    return operator.forward(images).flatten(1).T.numpy()


@each
def test_adjoint_and_pinv_are_those_of_the_dense_matrix(label: str) -> None:
    operator = make(label)
    a = dense(operator)
    y = torch.randn(3, *operator.low_size, dtype=torch.float64)
    for ours, matrix in ((operator.adjoint(y), a.T), (operator.pinv(y), np.linalg.pinv(a, rcond=1e-12))):
        np.testing.assert_allclose(ours.flatten(1).numpy(), y.flatten(1).numpy() @ matrix.T, atol=1e-9)


@each
def test_svd_is_that_of_the_dense_matrix(label: str) -> None:
    operator = make(label)
    a, svd = dense(operator), operator.svd()
    expected = np.linalg.svd(a, compute_uv=False)
    found = svd.s.flatten().sort(descending=True).values.numpy()
    np.testing.assert_allclose(found[: len(expected)], expected, atol=1e-12)
    assert (found[len(expected) :] == 0).all()
    x = torch.randn(2, 3, *SIZE, dtype=torch.float64)
    torch.testing.assert_close(svd.v(svd.v_t(x)), x)
    torch.testing.assert_close(svd.v_t(x).square().sum(), x.square().sum())
    torch.testing.assert_close(svd.u(svd.s * svd.v_t(x)), operator.forward(x))
    variances = torch.rand(SIZE, dtype=torch.float64)
    v = svd.v(torch.eye(SIZE[0] * SIZE[1], dtype=torch.float64).view(-1, *SIZE)).flatten(1)  # a column of V each
    diagonal = torch.einsum("cp,c,cp->p", v, variances.flatten(), v)
    torch.testing.assert_close(svd.diagonal(variances).flatten(), diagonal)
    y = torch.randn(2, 3, *operator.low_size, dtype=torch.float64)
    coefficients = svd.u_t(y)
    assert (coefficients[..., svd.s == 0] == 0).all()
    torch.testing.assert_close(svd.v(svd.s * coefficients), operator.adjoint(y))


@each
def test_elsewhere_it_is_the_same(label: str) -> None:
    operator = make(label, sigma=0.1)
    single = operator.to("cpu", torch.float32)
    assert (single.kind, single.sigma, single.size, single.observed) == (
        operator.kind, 0.1, operator.size, operator.observed,
    )  # fmt: skip
    x = torch.rand(1, 3, *SIZE)
    assert single.forward(x).dtype == torch.float32
    torch.testing.assert_close(single.forward(x).double(), operator.forward(x.double()), atol=1e-6, rtol=0)
    with torch.autocast("cpu", torch.bfloat16):
        assert single.forward(x.bfloat16()).dtype == torch.float32


def test_all_operators_are_tested() -> None:
    assert {s["name"] for s in SETTINGS.values()} == set(operators.names())


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_blur_is_scipys_gaussian_filter(scale: int) -> None:
    """Where samples are at pixels (odd scales); between two pixels (even ones) by the kernel's definition."""
    size, std = 24, 1.6
    operator = make_operator({"name": "blur", "std": std}, scale, size, dtype=torch.float64)
    x = torch.rand(size, size, dtype=torch.float64)
    if scale % 2:
        blurred = scipy.ndimage.gaussian_filter(x.numpy(), std, mode="reflect", truncate=4.0)
        np.testing.assert_allclose(
            operator.forward(x).numpy(), blurred[scale // 2 :: scale, scale // 2 :: scale], atol=1e-12
        )
    else:
        weights = np.exp(-0.5 * ((np.arange(24) - 11.5 + 0.0) / std) ** 2) * (np.abs(np.arange(24) - 11.5) <= 4 * std)
        weights = np.roll(weights / weights.sum(), 1)  # the sample at 12.5, between pixels 12 and 13
        expected = np.einsum("i,ij,j", weights, x.numpy(), weights)
        assert operator.forward(x)[6, 6].item() == pytest.approx(expected, abs=1e-12)


def test_blur_keeps_constants_and_tells_its_width() -> None:
    operator = make_operator({"name": "blur", "std": 3.0, "sigma": 0.05}, 4, 32, dtype=torch.float64)
    torch.testing.assert_close(operator.forward(torch.ones(32, 32, dtype=torch.float64)), torch.ones(8, 8).double())
    assert operator.title == "blur 3 x4, sigma 0.05"


def test_a_run_of_inpainting_has_one_scale_whatever_is_asked_for() -> None:
    words = ["methods=[ddnm]", "operator=inpainting", "scale=[4,8]", "limit=2"]
    config = read_config(compose("run", words))
    assert [(key.scale, key.label) for key in cell_keys(config)] == [(1, "ddnm")]
    assert config.record()["scale"] == [1]
    assert config.directory == read_config(compose("run", [*words, "scale=8"])).directory


def test_a_scale_of_inpainting_is_a_scale_nevertheless() -> None:
    for nonsense in ("banana", "0", "[]"):
        with pytest.raises(BenchError, match="scale"):
            read_config(compose("run", ["methods=[ddnm]", "operator=inpainting", f"scale={nonsense}"]))
    for right in ("1", "[1]", "[1,4]", "8"):
        config = read_config(compose("run", ["methods=[ddnm]", "operator=inpainting", f"scale={right}"]))
        assert config.scales == (1,)


def test_inpainting_has_the_images_size_and_ignores_the_scale() -> None:
    operator = make_operator({"name": "inpainting", "sigma": 0.1}, 8, 32)
    assert (operator.scale, operator.low_size) == (1, (32, 32))
    assert operator.title == "inpainting box 0.25, sigma 0.1"
    assert operator.observed == 32 * 32 * 3 // 4
    y = operator.observe(torch.rand(2, 3, 32, 32), Noise.of_observation(0, ["a", "b"]))
    assert (y[..., 8:24, 8:24] == 0).all()  # no noise either where nothing is seen
    assert (y != 0).float().mean().item() == pytest.approx(0.75, abs=1e-3)


def test_random_masks_have_the_share_asked_for_and_stay_the_same() -> None:
    config = {"name": "inpainting", "mask": "random", "missing": 0.7}
    first, second = (make_operator(config, 1, 20) for _ in range(2))
    assert first.observed == 120
    x = torch.rand(20, 20)
    torch.testing.assert_close(first.forward(x), second.forward(x))


def test_a_mask_of_ones_own(tmp_path: Path) -> None:
    mask = np.zeros((16, 16), dtype=np.uint8)
    mask[:, :4] = 255
    Image.fromarray(mask).save(tmp_path / "left.png")
    config = {"name": "inpainting", "mask": str(tmp_path / "left.png")}
    operator = make_operator(config, 1, 16)
    assert (operator.observed, operator.kind) == (64, "inpainting left")
    assert operator_kind(config, 4) == "inpainting left"  # whatever size the mask has
    with pytest.raises(BenchError, match="16x16 pixels, the images 32x32"):
        make_operator(config, 1, 32)
    with pytest.raises(BenchError, match="neither box, random nor an image"):
        make_operator({"name": "inpainting", "mask": "circle"}, 1, 16)
    with pytest.raises(BenchError, match="hides none of the pixels"):
        make_operator({"name": "inpainting", "missing": 1e-4}, 1, 16)
    with pytest.raises(BenchError, match=r"operator\.missing=1.5 is wrong"):
        make_operator({"name": "inpainting", "missing": 1.5}, 1, 16)


def test_wrong_size_is_refused() -> None:
    with pytest.raises(BenchError, match="8x12"):
        make("box").forward(torch.zeros(3, 12, 8))

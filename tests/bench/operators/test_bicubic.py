"""Against MATLAB's own figures, two other implementations and the definitions of the operators."""

import numpy as np
import pytest
import torch
from piq.functional.resize import imresize as piq_imresize
from resize_right import interp_methods, resize
from scipy.signal import convolve2d

from bench.errors import BenchError
from bench.operators import quantise, to_uint8
from bench.operators.bicubic import Bicubic, enlarge, resize_matrix

# MATLAB's imresize(reshape(0:63, [8, 8])', ...); source: github:sanghyun-son/bicubic_pytorch, test_answer/*_aa.mat
RAMP = np.arange(64.0).reshape(8, 8)
MATLAB = {
    (4, 4): [
        [4.04296875, 6.08203125, 8.10546875, 10.14453125],
        [20.35546875, 22.39453125, 24.41796875, 26.45703125],
        [36.54296875, 38.58203125, 40.60546875, 42.64453125],
        [52.85546875, 54.89453125, 56.91796875, 58.95703125],
    ],
    (2, 2): [[12.38378906, 16.63183594], [46.36816406, 50.61621094]],
    (3, 4): [
        [6.47252877, 8.51159127, 10.53502877, 12.57409127],
        [28.44921875, 30.48828125, 32.51171875, 34.55078125],
        [50.42590873, 52.46497123, 54.48840873, 56.52747123],
    ],
}
SCALES = [2, 4, 8]


@pytest.fixture(params=SCALES)
def operator(request: pytest.FixtureRequest) -> Bicubic:
    return Bicubic(64, request.param, dtype=torch.float64)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("shape", MATLAB)
def test_matlab_golden_figures(shape: tuple[int, int]) -> None:
    ours = resize_matrix(8, shape[0]) @ RAMP @ resize_matrix(8, shape[1]).T
    np.testing.assert_allclose(ours, MATLAB[shape], atol=5e-9)


def test_down_agrees_with_piq_borders_included(operator: Bicubic, x: torch.Tensor) -> None:
    theirs = piq_imresize(x, sizes=operator.low_size)
    torch.testing.assert_close(operator.forward(x), theirs, atol=1e-6, rtol=0)


def test_down_agrees_with_resize_right_away_from_the_borders(operator: Bicubic, x: torch.Tensor) -> None:
    theirs = resize(x, scale_factors=1 / operator.scale, interp_method=interp_methods.cubic, antialiasing=True)
    inner = (..., slice(2, -2), slice(2, -2))  # that package mirrors without repeating the border
    torch.testing.assert_close(operator.forward(x)[inner], theirs[inner], atol=1e-12, rtol=0)


def test_up_agrees_with_piq(operator: Bicubic, x: torch.Tensor) -> None:
    y = operator.forward(x)
    theirs = piq_imresize(y, sizes=(64, 64), antialiasing=False)
    torch.testing.assert_close(enlarge(y, operator.size), theirs, atol=1e-6, rtol=0)


def test_constant_images_stay_constant(operator: Bicubic) -> None:
    one = torch.ones(3, 64, 64, dtype=torch.float64)
    torch.testing.assert_close(operator.forward(one), torch.ones_like(operator.forward(one)))
    torch.testing.assert_close(enlarge(operator.forward(one), operator.size), one)


def test_adjoint(operator: Bicubic, x: torch.Tensor) -> None:
    y = torch.randn(2, 3, *operator.low_size, dtype=torch.float64)
    torch.testing.assert_close((operator.forward(x) * y).sum(), (x * operator.adjoint(y)).sum())


def test_pinv_is_moore_penrose(operator: Bicubic) -> None:
    one_side = np.linalg.pinv(resize_matrix(64, operator.low_size[0]))
    y = torch.rand(3, *operator.low_size, dtype=torch.float64)
    np.testing.assert_allclose(operator.pinv(y).numpy(), one_side @ y.numpy() @ one_side.T, atol=1e-10)


@pytest.mark.parametrize("size", [64, 256])
@pytest.mark.parametrize("scale", SCALES)
def test_projection_reaches_100_db_in_float32(scale: int, size: int) -> None:
    operator = Bicubic(size, scale)
    y = operator.observe(torch.rand(2, 3, size, size))
    projected = operator.project(torch.rand(2, 3, size, size), y)
    assert -10 * torch.log10((operator.forward(projected) - y).square().mean()) > 100


def test_projection_is_the_nearest_consistent_image(operator: Bicubic, x: torch.Tensor) -> None:
    y = operator.forward(torch.rand_like(x))
    projected = operator.project(x, y)
    other = operator.project(x + torch.randn_like(x), y)  # consistent as well
    assert ((projected - x).square().sum() < (other - x).square().sum()).item()
    torch.testing.assert_close(operator.project(projected, y), projected)


def test_differentiable(operator: Bicubic, x: torch.Tensor) -> None:
    leaf = x.clone().requires_grad_()
    operator.forward(leaf).square().sum().backward()
    torch.testing.assert_close(leaf.grad, 2 * operator.adjoint(operator.forward(x)))


def test_autocast_leaves_the_operators_in_float32() -> None:
    d = Bicubic(64, 4)
    x, y = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        error = (d.forward(d.project(x, y)) - y).square().mean()
        assert d.forward(x.bfloat16()).dtype == torch.float32
    assert error.log10() < -10  # 100 dB; bf16 ends at 50


def test_any_leading_shape(operator: Bicubic, x: torch.Tensor) -> None:
    stacked = x[None].expand(4, -1, -1, -1, -1)
    torch.testing.assert_close(operator.forward(stacked)[3], operator.forward(x))


def test_quantise_gives_multiples_of_one_level() -> None:
    x = torch.tensor([-0.2, 0.0, 0.4999 / 255, 0.5001 / 255, 0.7, 1.3])
    assert (quantise(x) * 255).tolist() == pytest.approx([0, 0, 0, 1, round(0.7 * 255), 255])
    assert to_uint8(x).tolist() == [0, 0, 0, 1, 178, 255]


@pytest.mark.parametrize(("scale", "size"), [(3, 64), (0, 64), (64, 64)])
def test_impossible_scales_are_refused(scale: int, size: int) -> None:
    with pytest.raises(BenchError, match=f"scale={scale}"):
        Bicubic(size, scale)


def test_wrong_size_is_refused() -> None:
    with pytest.raises(BenchError, match="64x64"):
        Bicubic(64, 4).forward(torch.zeros(3, 32, 32))


def test_consistent_images_are_in_range_and_consistent() -> None:
    d = Bicubic(64, 8, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    hr = (torch.randn(4, 3, 64, 64, generator=generator, dtype=torch.float64) * 0.5 + 0.9).clamp(0, 1)  # much white
    y = d.observe(hr)
    x = hr + 0.3 * torch.randn(hr.shape, generator=generator, dtype=torch.float64)

    def error(z: torch.Tensor) -> float:
        return float((d.forward(z) - y).square().mean().sqrt())

    once, found = d.project(x, y).clamp(0, 1), d.consistent(x, y)
    assert found.min() >= 0
    assert found.max() <= 1
    assert error(found) < 0.3 * error(once)
    assert error(d.consistent(x, y, rounds=300)) < 1e-4  # an image that is both exists: it converges
    grey = 0.5 + 0.01 * torch.randn(hr.shape, generator=generator, dtype=torch.float64)
    same = d.observe(grey)
    torch.testing.assert_close(d.consistent(grey, same), d.project(grey, same))  # nothing to clip: the paper's


@pytest.mark.parametrize("scale", [4, 8])
def test_the_cem_kernel_is_the_response_of_a_cubic_enlargement(scale: int) -> None:
    """PyTorch's bicubic enlargement has OpenCV's a = -0.75; the kernel acts on an image with repeated borders."""
    impulse = torch.zeros(1, 1, 11, 11, dtype=torch.float64)
    impulse[..., 5, 5] = 1
    response = torch.nn.functional.interpolate(impulse, scale_factor=scale, mode="bicubic")[0, 0].numpy()
    kernel = response[
        3 * scale + scale // 2 : -3 * scale - scale // 2, 3 * scale + scale // 2 : -3 * scale - scale // 2
    ]
    assert kernel.shape == (4 * scale, 4 * scale)
    image = np.random.default_rng(0).random((64, 64))
    first = 2 * scale - scale // 2  # taps before the first pixel of a block
    padded = np.pad(image, (first, first), mode="edge")
    expected = convolve2d(padded, kernel / scale**2, "valid")[::scale, ::scale]
    operator = Bicubic(64, scale, kernel="cem", dtype=torch.float64)
    y = operator.forward(torch.from_numpy(image)[None, None])
    np.testing.assert_allclose(y[0, 0].numpy(), expected, atol=1e-12)
    assert operator.kind == "bicubic_cem"


def test_rounding_after_each_axis(x: torch.Tensor) -> None:
    """Columns are shrunk first, to 8 bits, then rows, as the authors' resizer does with 8-bit images."""
    x = quantise(x)
    operator = Bicubic(64, 4, rounding="each_axis", dtype=torch.float64)
    d = resize_matrix(64, 16)
    half = np.around((d @ (x.numpy() * 255)).clip(0, 255))
    expected = np.around((half @ d.T).clip(0, 255))
    y = operator.observe(x)
    off = np.abs((y * 255).round().numpy() - expected)
    assert off.max() <= 1  # a value halfway between two levels, which intensities in [0, 1] cannot hit
    assert (off > 0).mean() < 0.002
    plain = Bicubic(64, 4, dtype=torch.float64)
    assert torch.equal(operator.forward(x), plain.forward(x))  # A is the same
    assert operator.kind == plain.kind == "bicubic"
    assert 0.02 < (y != plain.observe(x)).double().mean() < 0.4


def test_rounding_each_axis_is_for_eight_bits() -> None:
    for settings in ({"sigma": 0.1}, {"range": None}):
        with pytest.raises(BenchError, match="each_axis rounds y to 8 bits"):
            Bicubic(64, 4, rounding="each_axis", **settings)  # type: ignore[arg-type]

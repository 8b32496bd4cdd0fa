"""What all operators share: the noise of y, rounding and clipping, settings."""

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.contract import Noise
from bench.errors import BenchError
from bench.operators import make_operator, operators
from bench.operators.average import Average
from bench.operators.bicubic import Bicubic

SIZE = (16, 24)


@pytest.fixture
def x() -> Tensor:
    return torch.rand(3, 3, *SIZE, generator=torch.Generator().manual_seed(0))


def test_an_observation_without_noise_has_8_bits(x: Tensor) -> None:
    a = Bicubic(SIZE, 4)
    y = a.observe(x)
    torch.testing.assert_close(y * 255, (y * 255).round(), atol=1e-4, rtol=0)
    torch.testing.assert_close(y, a.forward(x), atol=0.5001 / 255, rtol=0)


def test_noise_is_added_and_nothing_is_rounded_or_clipped() -> None:
    """A black image: half of the observed values are below 0; mean and deviation of 1e5 and more draws."""
    a = Average((512, 512), 2, sigma=0.1)
    y = a.observe(torch.zeros(1, 3, 512, 512), Noise.of_observation(0, ["a"]))
    assert y.numel() > 1e5
    assert y.mean().item() == pytest.approx(0, abs=4 * 0.1 / y.numel() ** 0.5)
    assert y.std().item() == pytest.approx(0.1, rel=0.01)
    assert (y < 0).float().mean().item() == pytest.approx(0.5, abs=0.01)
    assert ((y * 255 - (y * 255).round()).abs() > 0.1).float().mean() > 0.7


def test_the_noise_of_an_image_is_its_own(x: Tensor) -> None:
    """The same in any batch and order; another for another image or seed; not that of any sample."""
    a = Bicubic(SIZE, 4, sigma=0.05)
    together = a.observe(x, Noise.of_observation(0, ["a", "b", "c"]))
    for order in ([2, 0, 1], [1]):
        again = a.observe(x[order], Noise.of_observation(0, ["abc"[i] for i in order]))
        assert torch.equal(again, together[order])
    noise = (together - a.forward(x)) / 0.05
    torch.testing.assert_close(noise[1], Noise.of_observation(0, ["b"]).normal(3, 4, 6)[0, 0], atol=1e-4, rtol=0)
    for other in (
        Noise.of_observation(1, ["b"]),
        Noise.of_observation(0, ["c"]),
        *(Noise(0, ["b"], [i]) for i in range(5)),
    ):
        assert (other.normal(3, 4, 6)[0, 0] - noise[1]).abs().max() > 1


def test_noise_is_needed_and_not_negative(x: Tensor) -> None:
    with pytest.raises(BenchError, match=r"bicubic x4, sigma 0\.05 needs noise"):
        Bicubic(SIZE, 4, sigma=0.05).observe(x)
    with pytest.raises(BenchError, match=r"operator\.sigma=-1"):
        Bicubic(SIZE, 4, sigma=-1)


def test_without_a_range_nothing_is_clipped_or_rounded(x: Tensor) -> None:
    wide = 10 * x - 3
    a = Bicubic(SIZE, 4, range=None)
    assert torch.equal(a.observe(wide), a.forward(wide))
    assert torch.equal(a.clip(wide), wide)
    assert torch.equal(a.round(wide), wide)
    y = a.forward(wide.flip(0))
    assert torch.equal(a.consistent(wide, y), a.project(wide, y))


def test_a_range_has_256_levels(x: Tensor) -> None:
    a = Bicubic(SIZE, 4, range=(-1, 1))
    rounded = a.round(4 * x - 2)
    levels = (rounded + 1) / 2 * 255
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)
    torch.testing.assert_close(rounded, (4 * x - 2).clamp(-1, 1), atol=1.001 / 255, rtol=0)
    assert (rounded.min(), rounded.max()) == (-1, 1)
    assert (a.clip(4 * x - 2).min(), a.clip(4 * x - 2).max()) == (-1, 1)


@pytest.mark.parametrize("name", operators.names())
def test_every_operator_can_be_configured(name: str, x: Tensor) -> None:
    a = make_operator({"name": name, "sigma": 0.1}, 4, SIZE)
    assert (a.name, a.sigma, a.size, a.range) == (name, 0.1, SIZE, (0.0, 1.0))
    y = a.observe(x, Noise.of_observation(0, ["a", "b", "c"]))
    assert y.shape == (3, 3, *a.low_size)
    z = torch.rand(y.shape)
    torch.testing.assert_close((a.forward(x) * z).sum(), (x * a.adjoint(z)).sum(), rtol=1e-4, atol=1e-4)
    assert make_operator({"name": name}, 4, SIZE, range=None).range is None
    assert make_operator({"name": name, "range": [-1, 1]}, 4, 16).range == (-1.0, 1.0)


def test_misspelt_settings_get_near_matches() -> None:
    with pytest.raises(BenchError, match=r"operator\.sigam is no setting of average\. Did you mean 'sigma'"):
        make_operator({"name": "average", "sigam": 0.1}, 4, 16)
    with pytest.raises(BenchError, match="There is no operator 'bicubik'. Did you mean 'bicubic'"):  # noqa: RUF043
        make_operator({"name": "bicubik"}, 4, 16)


def test_titles() -> None:
    assert Bicubic(16, 4).title == "bicubic x4"
    assert Average(16, 8, sigma=0.05).title == "average x8, sigma 0.05"


@pytest.mark.parametrize("size", [(16, 18), (18, 16)])
def test_both_sides_must_be_multiples(size: tuple[int, int]) -> None:
    with pytest.raises(BenchError, match="scale=4 does not divide the image size 18"):
        Average(size, 4)


def test_the_mean_of_an_image_is_kept() -> None:
    """Rows of a resizing matrix sum to one: constant images stay constant."""
    for a in (Bicubic(SIZE, 4), Average(SIZE, 4)):
        np.testing.assert_allclose(a.forward(torch.full((3, *SIZE), 0.3)).numpy(), 0.3, atol=1e-6)

"""Against torch.distributions and sums over all 8-bit values."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from methods.cvdvae.distributions import Gaussian, LogisticMixture


def gaussian(seed: int) -> Gaussian:
    g = torch.Generator().manual_seed(seed)
    return Gaussian(torch.randn(2, 3, 4, 4, generator=g), torch.randn(2, 3, 4, 4, generator=g))


def test_kl_is_the_closed_form() -> None:
    p, q = gaussian(0), gaussian(1)
    expected = kl_divergence(Normal(p.mean, p.log_std.exp()), Normal(q.mean, q.log_std.exp()))
    torch.testing.assert_close(p.kl(q), expected, rtol=1e-4, atol=1e-5)
    assert p.kl(p).abs().max() < 1e-6


def test_temperature_scales_the_standard_deviation() -> None:
    p = Gaussian(torch.full((100_000,), 3.0), torch.full((100_000,), math.log(2.0)))
    x = p.draw(torch.randn(100_000, generator=torch.Generator().manual_seed(0)), 0.25)
    assert x.mean().item() == pytest.approx(3, abs=0.01)
    assert x.std().item() == pytest.approx(0.5, abs=0.01)


@pytest.fixture
def parameters() -> torch.Tensor:
    return torch.randn(2, 30, 2, 2, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("bits", "levels"), [(8, 256), (5, 32)])
def test_probabilities_of_the_first_channel_sum_to_one(parameters: torch.Tensor, bits: int, levels: int) -> None:
    """Green and blue are made irrelevant, so that the sum over red values is that of one channel."""
    mixture = LogisticMixture(parameters.double(), bits)
    values = torch.linspace(-1, 1, levels, dtype=torch.float64)
    mixture.coefficients = torch.zeros_like(mixture.coefficients)
    total = torch.zeros(2, dtype=torch.float64)
    for red in values:
        x = torch.zeros(2, 3, 2, 2, dtype=torch.float64)
        x[:, 0] = red
        x[:, 1:] = values[levels // 2]
        only_one_pixel = LogisticMixture(parameters.double()[:, :, :1, :1], bits)
        only_one_pixel.coefficients = torch.zeros_like(only_one_pixel.coefficients)
        only_one_pixel.means[:, 1:] = 0
        only_one_pixel.log_scales[:, 1:] = 0
        x = x[:, :, :1, :1]
        total += only_one_pixel.log_prob(x).exp()
    x[:, 0] = values[levels // 2]
    single = LogisticMixture(parameters.double()[:, :, :1, :1], bits)
    single.means[:], single.log_scales[:] = 0, 0
    single.coefficients = torch.zeros_like(single.coefficients)
    other_channels = (single.log_prob(x) * 2 / 3).exp()
    torch.testing.assert_close(total, other_channels, rtol=1e-3, atol=0)


def test_draws_follow_the_probabilities() -> None:
    """The histogram of red draws against the mixture's own probabilities."""
    g = torch.Generator().manual_seed(1)
    one = torch.randn(1, 30, 1, 1, generator=g, dtype=torch.float64)
    n = 40_000
    mixture = LogisticMixture(one.expand(n, -1, -1, -1))
    x = mixture.draw(torch.rand(n, 3, 1, 1, generator=g).double(), torch.rand(n, 3, 1, 1, generator=g).double())
    red = x[:, 0].flatten()
    weights = mixture.logits[0].flatten().softmax(0)
    means, scales = mixture.means[0, 0].flatten(), mixture.log_scales[0, 0].flatten().exp()
    for threshold in (-0.5, 0.0, 0.5):
        expected = (weights * torch.sigmoid((threshold - means) / scales)).sum()
        assert (red < threshold).double().mean().item() == pytest.approx(expected.item(), abs=0.01)


def test_mean_and_mode_of_a_sharp_component() -> None:
    parameters = torch.zeros(1, 30, 1, 1)
    parameters[0, 1] = 20.0  # component 1 of 3
    for colour, value in enumerate((0.2, -0.3, 0.4)):
        parameters[0, 3 + colour * 9 + 1] = value
        parameters[0, 3 + colour * 9 + 4] = -6.0
    mixture = LogisticMixture(parameters)
    expected = torch.tensor([0.2, -0.3, 0.4])
    torch.testing.assert_close(mixture.mode().flatten(), expected)
    torch.testing.assert_close(mixture.mean().flatten(), expected, atol=1e-5, rtol=0)


def test_gradients_are_finite_at_the_edges(parameters: torch.Tensor) -> None:
    leaf = (parameters * 5).requires_grad_()
    x = torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 2, 2)
    LogisticMixture(leaf).log_prob(x).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()

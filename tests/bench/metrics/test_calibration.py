"""Calibration of samples against published packages, closed forms for Gaussians, and brute force.

`python -m scripts.calibration_reference` prints the figures of the packages (with NumPy 2.4.6).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.metrics import calibration as c
from bench.metrics.truth import covered, rank_curves, rank_table
from bench.operators import make_operator
from bench.operators.bicubic import Bicubic
from scripts.calibration_reference import golden

SHAPE = (3, 2, 2)


def images(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(x).unflatten(-1, SHAPE)


def test_energy_score_is_that_of_scoringrules() -> None:
    """scoringrules 0.10.0: es_ensemble(truth[:5], samples[:5], estimator="fair"), Euclidean norm of 12 numbers."""
    theirs = [1.4032370826214466, 2.9724667993704137, 2.63921259526042, 2.289569275574823, 2.9566110887292494]
    truth, samples, _ = golden()
    errors = c.gram(images(samples[:5]), images(truth[:5]))
    np.testing.assert_allclose(c.energy_score(errors) * 12**0.5, theirs, rtol=1e-12)


def test_crps_is_that_of_scoringrules() -> None:
    """scoringrules 0.10.0: crps_ensemble(truth[:5], samples[:5], estimator="fair"), the mean of 12."""
    theirs = [0.32341098396393053, 0.7016847218683719, 0.5946357083759061, 0.5407836543011335, 0.70881461935987]
    truth, samples, _ = golden()
    np.testing.assert_allclose(c.crps(images(samples[:5]), images(truth[:5])), theirs, rtol=1e-12)


def test_crps_is_that_of_properscoring_but_for_its_biased_pair_term() -> None:
    """properscoring 0.1: crps_ensemble, whose mean over pairs counts a sample with itself."""
    theirs = [0.38111067074566224, 0.7630716542949342, 0.6582887643243369, 0.6078027887981411, 0.7704213146035755]
    truth, samples, _ = golden()
    error = np.abs(samples[:5] - truth[:5, None]).mean((1, 2))
    ours = c.crps(images(samples[:5]), images(truth[:5])).numpy()
    np.testing.assert_allclose(error - (error - ours) * 5 / 6, theirs, rtol=1e-12)


class Given:
    """An operator whose pseudo-inverse gives the reference points."""

    @staticmethod
    def pinv(y: torch.Tensor) -> torch.Tensor:
        return y


def test_coverage_is_that_of_tarp(monkeypatch: pytest.MonkeyPatch) -> None:
    """tarp 0.1.1: get_tarp_coverage(samples, truth, references, norm=False, num_alpha_bins=7).

    Its bins lie between the shares k / 6 of samples within the ball, so that its curve has our steps: 0, 0.1,
    0.125, 0.35, 0.35, 0.5, 0.675, 1 (one bin holds no share).
    """
    theirs = [0.0, 0.1, 0.125, 0.35, 0.5, 0.675]  # of at most 0, 1, ... 5 samples
    truth, samples, references = golden()
    monkeypatch.setattr(c, "reference_offsets", lambda _: torch.zeros(c.DIRECTIONS, *SHAPE, dtype=torch.float64))
    both = c.members(images(samples), images(truth))
    ranks = c.ranks(c.reference_distances(both, images(references), Given()))  # type: ignore[arg-type]
    table = rank_table(ranks.flatten(1).numpy())
    assert table.shape == (40, 7, c.DIRECTIONS)
    np.testing.assert_allclose(rank_curves(table[:, 0], 7)[0], theirs, atol=1e-12)


def test_errors_and_pairs_by_brute_force() -> None:
    g = torch.Generator().manual_seed(0)
    x, truth = torch.rand(2, 4, 3, 5, 6, generator=g), torch.rand(2, 3, 5, 6, generator=g)
    errors = c.gram(x, truth)
    torch.testing.assert_close(c.mse(errors).float(), (x - truth[:, None]).square().mean((2, 3, 4)))
    torch.testing.assert_close(c.mse_of_mean(errors).float(), (x.mean(1) - truth).square().mean((1, 2, 3)))
    pairs = torch.stack([(x[:, i] - x[:, j]).square().mean((1, 2, 3)) for i in range(4) for j in range(4) if i != j], 1)
    torch.testing.assert_close(c.mean_of_pairs(c.pair_mse(errors)).float(), pairs.mean(1))
    assert c.mean_of_pairs(c.pair_mse(errors[:, :1, :1])).isnan().all()


def test_energy_and_crps_of_a_gaussian() -> None:
    """Of N(0, 1) at the truth t, CRPS = t (2 F(t) - 1) + 2 f(t) - 1 / sqrt(pi); one number, so that energy is CRPS."""
    from scipy.stats import norm

    t = 0.7
    x = torch.randn(1, 100_000, 1, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = t * (2 * norm.cdf(t) - 1) + 2 * norm.pdf(t) - 1 / np.sqrt(np.pi)
    truth = torch.full((1, 1, 1, 1), t, dtype=torch.float64)
    assert float(c.crps(x, truth)) == pytest.approx(expected, abs=0.005)
    assert float(c.energy_score(c.gram(x[:, :2000], truth))) == pytest.approx(expected, abs=0.03)


def test_directions_are_fixed_unseen_and_of_length_one() -> None:
    operator = Bicubic(32, 4)
    v = c.null_directions(operator)
    assert v.shape == (c.DIRECTIONS, 3, 32, 32)
    assert float(operator.forward(v).abs().max()) < 1e-6
    torch.testing.assert_close(v.flatten(1).norm(dim=1), torch.ones(c.DIRECTIONS))
    torch.testing.assert_close(c.null_directions(Bicubic(32, 4)), v, rtol=0, atol=0)
    assert c.null_directions(Bicubic(32, 1)).isnan().all()  # it sees everything


def test_reference_points_lie_at_their_distance() -> None:
    operator = make_operator({"name": "bicubic", "sigma": 0.1}, 4, 32, range=None)
    y = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    x = torch.rand(2, 3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    found = c.reference_distances(x, y, operator)
    points = operator.pinv(y)[:, None] + c.reference_offsets(operator)
    expected = (x[:, :, None] - points[:, None]).square().mean((3, 4, 5))
    torch.testing.assert_close(found, expected)
    assert float(c.reference_offsets(operator).square().mean().sqrt()) == pytest.approx(c.REFERENCE, rel=0.02)


def test_ranks_by_counting() -> None:
    values = torch.rand(3, 6, 4, generator=torch.Generator().manual_seed(0))
    expected = (values[:, :, None] > values[:, None]).sum(2)
    torch.testing.assert_close(c.ranks(values), expected)


def test_pixel_ranks_share_ties() -> None:
    truth = torch.tensor([0.5, 0.5, 0.1, 0.9]).view(1, 1, 2, 2)
    samples = torch.tensor([[0.5, 0.2, 0.5, 0.5], [0.5, 0.7, 0.5, 0.5]]).view(1, 2, 1, 2, 2)
    # two ties: ranks 0, 1, 2 alike; one below; none below; all below
    expected = torch.tensor([[1 / 3 + 1, 1 / 3 + 1, 1 / 3 + 1]]).double() / 4
    torch.testing.assert_close(c.pixel_ranks(samples, truth), expected)


@pytest.mark.parametrize("n", [2, 5, 9])
@pytest.mark.parametrize("level", [0.5, 0.9])
def test_coverage_of_exchangeable_samples_is_the_level_for_every_n(n: int, level: float) -> None:
    x = torch.rand(1, n + 1, 3, 200, 200, generator=torch.Generator().manual_seed(n))
    histogram = c.pixel_ranks(x[:, 1:], x[:, 0])
    assert float(histogram.sum()) == pytest.approx(1)
    assert float(c.coverage(histogram, level)) == pytest.approx(level, abs=0.005)
    assert float(covered(histogram.numpy(), level)[0]) == pytest.approx(float(c.coverage(histogram, level)[0]))
    narrow = c.pixel_ranks(0.5 + 0.5 * (x[:, 1:] - 0.5), x[:, 0])
    assert float(c.coverage(narrow, level)) < level - 0.02
    if (n, level) == (2, 0.9):  # of the ranks 5/12, 1/6, 5/12 the interval has 0.85, all and 0.85
        assert float(c.coverage(narrow, level)) == pytest.approx(0.85 * 10 / 12 + 1 / 6, abs=0.005)


def test_residual_of_the_truth_is_the_noise() -> None:
    from bench.contract import Noise

    operator = make_operator({"name": "bicubic", "sigma": 0.1}, 2, 64, range=None)
    x = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    y = operator.observe(x, Noise.of_observation(0, list("abcd")))
    assert float(c.lr_residual(x[:, None], y, operator).mean()) == pytest.approx(0.01, rel=0.03)


def test_gap_is_unbiased() -> None:
    g = torch.Generator().manual_seed(0)
    mean = torch.zeros(400, 3, 4, 4)
    x = torch.randn(400, 3, 3, 4, 4, generator=g) + 0.2
    assert float(c.gap(x, mean).mean()) == pytest.approx(0.04, abs=0.02)
    assert float(c.gap(torch.full_like(x[:, :1], 0.3), mean).mean()) == pytest.approx(0.09)


def test_sliced_wasserstein_of_a_shift() -> None:
    x = torch.randn(2, 6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    v = c.null_directions(Bicubic(8, 2))
    shifted = x + 0.5 * v[0]
    found = c.sliced_wasserstein(shifted, x, v)
    expected = 0.5 * (v.flatten(1) @ v[0].flatten()).abs().mean()
    torch.testing.assert_close(found.float(), expected.expand(2), rtol=1e-4, atol=1e-5)

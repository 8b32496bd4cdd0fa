"""Each sampler with a Gaussian prior and its exact denoiser, where everything is known (docs/samplers.md).

With white images every coefficient of A's SVD is a scalar problem of its own, x ~ N(0, C), y = x + tau n in the
network's units: one small image is thousands of them. A sample is gain * y plus noise; the posterior has the gain
C / (C + tau^2) and the variance C tau^2 / (C + tau^2), and C itself where A sees nothing.
"""

import math
from typing import Any

import pytest
import torch

from bench.operators.average import Average
from bench.operators.bicubic import Bicubic
from methods.diffusion.exact import ExactDenoiser, Mixture, denoise
from methods.diffusion.prior import DiffusionPrior, even, pairs, quadratic
from methods.diffusion.sampler import DiffusionSampler, Task
from methods.diffusion.schedule import linear
from scripts.sampler_truth import Truth, geometric, make_sampler, measure, white

LOOSE, TIGHT = 0.012, 0.006
"""Of gains and variances where little, or much, is drawn: both beyond four standard errors."""


def truth(c: float, tau: float) -> tuple[float, float]:
    return c / (c + tau**2), c * tau**2 / (c + tau**2)


def test_the_posterior_is_the_truth_of_the_setting() -> None:
    assert truth(1.0, 0.4) == pytest.approx((0.862, 0.138), abs=1e-3)


@pytest.mark.parametrize("name", ["ddrm", "ddnm"])
@pytest.mark.parametrize(
    ("steps", "gain", "variance", "null"),
    [
        (20, 0.816, 0.066, 0.634),
        (100, 0.885, 0.035, 0.725),
        pytest.param(1000, 0.955, 0.013, 0.756, marks=pytest.mark.slow),
    ],
)
def test_ddrm_and_ddnm_are_too_narrow(name: str, steps: int, gain: float, variance: float, null: float) -> None:
    """More steps make the measured directions narrower still, and the others tend to 0.763 C at eta 0.85."""
    found = measure(name, 1.0, 0.4, steps=steps)
    assert found.gain == pytest.approx(gain, abs=TIGHT)
    assert found.variance == pytest.approx(variance, abs=0.003)
    assert found.null == pytest.approx(null, abs=0.02)


def test_the_null_space_of_ddrm_by_the_lemma_and_by_a_scalar_recursion() -> None:
    """A share eta^2 of fresh noise in each step is, in the limit, a temperature of (1 + sqrt(1 - eta^2)) / 2."""
    eta, kept = 0.85, [1.0, *linear().tolist()]
    assert (1 + math.sqrt(1 - eta**2)) / 2 == pytest.approx(0.763, abs=1e-3)
    for c, figures in ((1.0, (0.634, 0.725, 0.756)), (0.01, (0.255, 0.585, 0.722))):
        for steps, figure in zip((20, 100, 1000), figures, strict=True):
            times = even(1000, steps)
            variance = kept[times[0] + 1] * ((1 - kept[times[0] + 1]) / kept[times[0] + 1])
            for t, u in zip(times, [*times[1:], -1], strict=True):
                a, b = kept[t + 1], kept[u + 1]
                spread = a * c + 1 - a
                x0, noise = math.sqrt(a) * c / spread, math.sqrt(1 - a) / spread
                factor = math.sqrt(b) * x0 + math.sqrt((1 - b) * (1 - eta**2)) * noise
                variance = factor**2 * variance + (1 - b) * eta**2
            assert variance / c == pytest.approx(figure, abs=0.003)
            if steps < 1000:
                assert measure("ddrm", c, 0.4, steps=steps).null == pytest.approx(variance / c, abs=0.02)


def test_ddrm_is_svd_ddnm_from_the_same_start() -> None:
    """With eta_b = 1, in every coefficient and for the same noise."""
    truth = Truth(1.0, 0.4, rows=1)
    ddrm, ddnm = (make_sampler(name, truth.prior, steps=20) for name in ("ddrm", "ddnm"))
    svd = truth.task.svd
    times = even(1000, 20)
    generator = torch.Generator().manual_seed(0)
    draws = [torch.randn(truth.shape, generator=generator, dtype=torch.float64) for _ in range(21)]
    coefficients = iter(draws)
    first = ddrm.trajectory(truth.task, lambda: next(coefficients))
    v, prior = truth.prior.level(times[0]), truth.prior
    known = truth.task.s > 0
    start = torch.where(known, truth.task.z, 0.0)
    start = start + (v**2 - torch.where(known, truth.task.spread, 0.0).square()).sqrt() * draws[0]
    images = iter([prior.signal(times[0]) * svd.v(start), *(svd.v(d) for d in draws[1:])])
    second = ddnm.trajectory(truth.task, lambda: next(images))
    torch.testing.assert_close(first, second, atol=1e-9, rtol=0)


def test_without_noise_ddrm_and_ddnm_are_consistent() -> None:
    """A x = y exactly, and the null space keeps its mean."""
    for name in ("ddrm", "ddnm"):
        found = measure(name, 1.0, 0.0, steps=20)
        assert (found.gain, found.variance) == pytest.approx((1.0, 0.0), abs=1e-9)
        assert found.null == pytest.approx(0.634, abs=0.02)


def test_ddnm_keeps_the_mean_of_the_null_space() -> None:
    """A prior whose directions are not those of A: E[x | y], sigma = 0, from many samples; the covariance is narrow."""
    generator = torch.Generator().manual_seed(0)
    factors = torch.randn(1, 3 * 64, 4, generator=generator, dtype=torch.float64) * 0.3
    mixture = Mixture.of_factors(
        torch.ones(1, dtype=torch.float64), torch.zeros(1, 192, dtype=torch.float64), factors,
        torch.full((1,), 0.05, dtype=torch.float64),
    )  # fmt: skip
    operator = Average(8, 2, range=None, dtype=torch.float64)
    c = factors[0] @ factors[0].T + 0.0025 * torch.eye(192, dtype=torch.float64)
    a = operator.forward(torch.eye(192, dtype=torch.float64).view(192, 3, 8, 8)).flatten(1).T
    gain = c @ a.T @ torch.linalg.inv(a @ c @ a.T)
    x = factors[0] @ torch.randn(4, generator=generator, dtype=torch.float64)
    expected = gain @ (a @ x)
    method = make_sampler("ddnm", DiffusionPrior(ExactDenoiser(mixture, linear()), linear(), "clean"), steps=200)
    rows = 256
    y = ((a @ x).view(1, 3, 4, 4).expand(rows, -1, -1, -1) + 1) / 2
    samples = method.trajectory(
        Task(operator, y), lambda: torch.randn(rows, 3, 8, 8, generator=generator, dtype=torch.float64)
    ).flatten(1)
    error = (samples.mean(0) - expected).square().mean().sqrt()
    floor = samples.var(0).mean().div(rows).sqrt()
    assert error < 3 * floor + 0.02 * expected.std()
    exact = (c - gain @ a @ c).diagonal().mean()
    assert samples.var(0).mean() / exact == pytest.approx(0.74, abs=0.06)


@pytest.mark.parametrize(
    ("steps", "settings", "gain", "variance", "null"),
    [
        (100, {}, 0.879, 0.115, 0.905),
        (100, {"as_coded": True}, 0.965, 0.032, 0.905),
        (100, {"zeta": 0.0}, 0.908, 0.110, 0.98),
        (100, {"zeta": 1.0}, 0.867, 0.063, 0.484),
        pytest.param(1000, {}, 0.867, 0.124, 0.933, marks=pytest.mark.slow),
        pytest.param(1000, {"as_coded": True}, 0.962, 0.035, 0.933, marks=pytest.mark.slow),
        pytest.param(1000, {"zeta": 0.0}, 0.905, 0.116, 1.0, marks=pytest.mark.slow),
        pytest.param(1000, {"zeta": 1.0}, 0.862, 0.069, 0.5, marks=pytest.mark.slow),
    ],
)
def test_diffpir(steps: int, settings: dict[str, Any], gain: float, variance: float, null: float) -> None:
    """Nearly exact in consistent units; as coded the likelihood counts four times."""
    found = measure("diffpir", 1.0, 0.4, steps=steps, clip=False, **settings)
    assert found.gain == pytest.approx(gain, abs=0.009)
    assert found.variance == pytest.approx(variance, abs=0.005)
    assert found.null == pytest.approx(null, abs=0.025)


def diffpir_null(steps: int, zeta: float = 0.25) -> float:
    """Variance of a coefficient that A does not see, prior N(0, 1), where each step is a line and fresh noise."""
    kept = [*linear().tolist(), 1.0]
    times = quadratic(1000, steps)
    variance = 1 - kept[times[0]]
    for t, u in pairs(times):
        a, b = kept[t], kept[u]
        x0 = math.sqrt(a)
        noise = (1 - math.sqrt(a) * x0) / math.sqrt(1 - a)
        fresh = zeta * (1 - b)
        variance = (math.sqrt(b) * x0 + math.sqrt((1 - b) * (1 - zeta)) * noise) ** 2 * variance + fresh
    return variance


def test_the_null_space_of_diffpir_by_a_scalar_recursion() -> None:
    """It grows with the steps, to the temperature of a constant share of fresh noise."""
    figures = (0.824, 0.908, 0.928)
    assert [diffpir_null(steps) for steps in (20, 100, 1000)] == pytest.approx(figures, abs=5e-4)
    assert (1 + math.sqrt(1 - 0.25)) / 2 == pytest.approx(0.933, abs=1e-3)
    for steps, figure in zip((20, 100), figures, strict=False):
        assert measure("diffpir", 1.0, 0.4, steps=steps, clip=False).null == pytest.approx(figure, abs=0.02)


def test_full_pigdm_is_exact_where_the_prior_is_white_with_unit_variance() -> None:
    found = measure("pigdm", 1.0, 0.4, steps=250)
    assert (found.gain, found.variance) == pytest.approx(truth(1.0, 0.4), abs=LOOSE)
    assert found.null == pytest.approx(1.0, abs=0.06)


@pytest.mark.slow
def test_full_pigdm_has_the_wrong_mean_elsewhere() -> None:
    found = measure("pigdm", 0.1, 0.4, steps=1000)
    assert (found.gain, found.variance) == pytest.approx((0.319, 0.0622), abs=0.004)
    assert truth(0.1, 0.4) == pytest.approx((0.385, 0.0615), abs=1e-3)


def test_pigdm_as_coded_takes_y_for_the_truth() -> None:
    found = measure("pigdm", 1.0, 0.4, steps=100, rule="code")
    assert (found.gain, found.variance) == pytest.approx((1.0, 0.0), abs=1e-3)


@pytest.mark.slow
def test_reddiff_collapses() -> None:
    found = measure("reddiff", 1.0, 0.4, steps=1000)
    assert found.gain == pytest.approx(1.0, abs=0.01)
    assert found.variance < 0.001
    assert found.null < 0.15


def test_daps_with_an_exact_conditional_step_counts_the_prior_half() -> None:
    """Too wide: sqrt(prior) * likelihood, 2 C and more where A sees nothing.

    There the ODE maps level v to the level e where it ends by (C + e^2) / (C + v^2) in variance, the conditional step
    adds v^2 and the next level its own: 2 C + v^2 at every level, if it had the time. Few Euler steps take some away.
    """
    settings = {"conditional": "exact", "assumed_sigma": None}
    sampler = make_sampler("daps", Truth(0.1, 0.2).prior, steps=200)
    levels = [sampler.levels.level(t) for t in sampler.times]
    end = sampler.levels.level(sampler.ode_times(sampler.times[-1])[-1])
    variance = 0.0
    for v in levels:
        variance = (0.1 + end**2) / (0.1 + v**2) * (variance + v**2) + v**2
    found = measure("daps", 0.1, 0.2, steps=200, ode_steps=60, **settings)
    assert (found.gain, found.variance) == pytest.approx((0.833, 0.0333), abs=0.015)
    assert found.null == pytest.approx(variance / 0.1, rel=0.04)
    assert 2.0 < variance / 0.1 < 2.3
    published = measure("daps", 0.1, 0.2, steps=200, **settings)
    assert (published.gain, published.variance) == pytest.approx((0.833, 0.0333), abs=LOOSE)
    assert 1.6 < published.null < 2.0


def test_daps_as_configured_is_too_narrow_where_it_measures() -> None:
    found = measure("daps", 0.1, 0.2, steps=200, rows=1)
    assert found.gain > 0.95
    assert found.variance < 0.1 * truth(0.1, 0.2)[1]
    assert 0.7 < found.null < 1.1


def test_pnpdm_is_the_posterior_with_the_noise_of_its_coupling() -> None:
    """At rho = 0.3 (0.15 in [0, 1]), published steps: that of tau^2 + rho^2."""
    found = measure("pnpdm", 0.1, 0.2, steps=100)
    expected = truth(0.1, math.hypot(0.2, 0.3))
    assert expected == pytest.approx((0.435, 0.0565), abs=1e-3)
    assert (found.gain, found.variance) == pytest.approx(expected, abs=TIGHT)
    assert found.null == pytest.approx(1.0, abs=0.06)


@pytest.mark.slow
def test_pnpdm_is_exact_as_rho_goes_to_0() -> None:
    """On a schedule with steps below rho = 0.01; the linear one ends there."""
    found = measure("pnpdm", 0.1, 0.2, steps=200, inner=200, rho=0.5, rho_min=0.005, alpha_bar=geometric(200))
    assert (found.gain, found.variance) == pytest.approx(truth(0.1, 0.2), abs=LOOSE)
    assert found.null == pytest.approx(1.0, abs=0.06)


def test_dps_is_no_posterior() -> None:
    """The gain grows with zeta; a norm over 3 h w values makes it depend on the dimension."""
    found = [measure("dps", 1.0, 0.4, steps=100, clip=False, guidance=g, rows=2) for g in (0.3, 3.0)]
    assert found[0].gain < 0.6 < found[1].gain
    assert found[0].null == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("name", ["ddrm", "ddnm", "pigdm", "diffpir", "pnpdm"])
def test_what_holds_for_average_holds_for_bicubic(name: str) -> None:
    """Singular values that differ: each has its own tau = 2 sigma / s; the gain is that of the scalar problem."""
    settings: dict[str, Any] = {"steps": 20, "clip": False} if name == "diffpir" else {"steps": 20}
    truth = Truth(1.0, 0.4, rows=24, operator=Bicubic(32, 2, sigma=0.1, range=None, dtype=torch.float64))
    c = truth.coefficients(make_sampler(name, truth.prior, **settings))
    s = truth.task.s
    for value in s[s > 0].unique()[[0, -1]]:
        tau = 0.2 / float(value)
        scalar = measure(name, 1.0, tau, rows=4, **settings)
        where = s == value
        assert c[..., where].mean().item() == pytest.approx(scalar.gain, abs=0.12)
    assert c[..., s > 0].mean().item() > 0.5


def test_white_is_the_exact_denoiser_of_white_images() -> None:
    x = torch.randn(2, 12, dtype=torch.float64)
    torch.testing.assert_close(denoise(white(0.3, 12), x, 0.4), math.sqrt(0.4) * 0.3 / (0.12 + 0.6) * x)


def test_samplers_are_samplers() -> None:
    assert isinstance(make_sampler("ddrm", Truth(1.0, 0.4).prior, steps=20), DiffusionSampler)

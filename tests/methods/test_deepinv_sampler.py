"""deepinv as an independent reference: its DDRM, DiffPIR and DPS and ours, with the same noise, are one trajectory."""

import math
from typing import Any

import pytest
import torch

from bench.contract import Noise, methods
from bench.errors import BenchError
from bench.operators import Operator, make_operator
from bench.settings import build
from methods.diffusion.prior import DiffusionPrior, Estimate
from methods.diffusion.sampler import DiffusionSampler, Task
from methods.diffusion.schedule import linear

pytest.importorskip("deepinv")

UNET = {"size": 32, "channels": 32, "multipliers": [1, 2], "attention": [16], "head_channels": 16, "patch": 2}
STEPS = 12
OPERATOR = {"name": "average", "sigma": 0.05}


def tint(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """A nonlinear denoiser that mixes neighbours; nothing of it is special."""
    smooth = torch.nn.functional.avg_pool2d(x, 3, 1, 1)
    return torch.tanh(0.5 * smooth + 0.1 * x)


class Watched(DiffusionPrior):
    """Keeps what it was last asked and what it said."""

    def __call__(self, x: torch.Tensor, t: int) -> Estimate:
        self.asked, self.said = x, super().__call__(x, t)
        return self.said


def make(name: str, operator: Operator, **settings: Any) -> DiffusionSampler:
    method = build(methods.get(name), {"unet": UNET, "weights": "", **settings}, f"methods.{name}", name)
    assert isinstance(method, DiffusionSampler)
    method.operator, method.device = operator, operator.device
    method.prior = Watched(tint, linear(), "clean")
    return method


def theirs(operator: Operator, sampler: str, **options: float) -> Any:
    from methods.deepinv_sampler import DeepinvSampler, denoiser

    method = make("deepinv_sampler", operator, sampler=sampler, steps=STEPS, options=options)
    assert isinstance(method, DeepinvSampler)
    return method, method._build(denoiser(method.prior))


def problem() -> tuple[Operator, torch.Tensor]:
    operator = make_operator(OPERATOR, 4, 32, dtype=torch.float64)
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return operator, operator.observe(x, Noise.of_observation(0, ["a"]))


def stream() -> Any:
    generator = torch.Generator().manual_seed(1)
    return lambda: torch.randn(1, 3, 32, 32, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("eta_b", [1.0, 0.7])
def test_ddrm_is_deepinvs_but_for_the_size_of_its_noise(eta_b: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """deepinv divides all noise by sqrt(2); multiplied back, the last x0 agrees to what its eps of 1e-6 leaves."""
    from methods.deepinv_sampler import physics

    operator, y = problem()
    ours = make("ddrm", operator, steps=STEPS, eta_b=eta_b)
    ours.trajectory(Task(operator, y), stream())
    _, reconstruct = theirs(operator, "ddrm", eta=0.85, etab=eta_b)
    draw = stream()
    monkeypatch.setattr(torch, "randn_like", lambda _: math.sqrt(2) * draw())
    found = 2 * reconstruct(y, physics(operator)) - 1
    said = ours.prior.said.x0  # type: ignore[attr-defined]
    assert (found - said).abs().max() < 1e-4 * said.abs().max()


def test_diffpir_is_deepinvs_at_twice_the_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lambda counts against |A x - y|^2 / 2, sigma of images in [0, 1]; it returns the last noisy state."""
    from methods.deepinv_sampler import physics

    operator, y = problem()
    ours = make("diffpir", operator, steps=STEPS, regularisation=1.5, zeta=0.3)
    ours.trajectory(Task(operator, y), stream())
    _, reconstruct = theirs(operator, "diffpir", lambda_=3.0, zeta=0.3)
    draw = stream()
    monkeypatch.setattr(torch, "randn_like", lambda _: draw())
    found = 2 * reconstruct(y, physics(operator)) - 1
    state = ours.prior.asked  # type: ignore[attr-defined]
    assert (found - state).abs().max() < 1e-4 * state.abs().max()


def test_dps_is_deepinvs_but_for_the_size_of_its_steps() -> None:
    """On the levels of deepinv's schedule; its guidance is less where a step takes less noise away, ours is zeta."""
    from methods.deepinv_sampler import DeepinvSampler, denoiser, physics

    operator, y = problem()
    method = make("deepinv_sampler", operator, sampler="dps", steps=STEPS)
    assert isinstance(method, DeepinvSampler)
    sde = method._build(denoiser(method.prior)).sde  # type: ignore[attr-defined]
    times = torch.linspace(1, 0, STEPS + 1, dtype=torch.float64)
    alpha_bar = torch.stack([sde.scale_t(t) for t in times[:-1].flip(0)]).flatten().double().square()
    zeta = 20.0
    ours = make("dps", operator, steps=STEPS, guidance=zeta)
    ours.prior = Watched(lambda x, t: tint(x.double(), t), alpha_bar, "clean")  # deepinv asks in float32
    expected = ours.trajectory(Task(operator, y), stream())
    free = make("dps", operator, steps=STEPS, guidance=0.0)
    free.prior = ours.prior
    assert (expected - free.trajectory(Task(operator, y), stream())).abs().max() > 0.1 * expected.abs().max()

    draw = stream()
    method.prior = ours.prior
    reconstruct: Any = method._build(denoiser(method.prior))
    solver, step = reconstruct.solver, reconstruct.solver.step

    def as_published(equation: Any, t0: Any, t1: Any, *args: Any, **kwargs: Any) -> Any:
        scale0, scale1, sigma0, sigma1 = (f(t) for f in (equation.scale_t, equation.sigma_t) for t in (t0, t1))
        reconstruct.data_fidelity.weight = 2 * zeta / float(scale0 * scale1 * (sigma0**2 - sigma1**2))
        return step(equation, t0, t1, *args, **kwargs)

    solver.step = as_published
    solver.randn_like = lambda _: draw()
    found = 2 * reconstruct(y, physics(operator), x_init=draw()) - 1
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_physics_is_the_operator() -> None:
    from methods.deepinv_sampler import physics

    for name in ("average", "bicubic", "blur", "inpainting"):
        operator = make_operator({"name": name, "sigma": 0.05}, 4, 32, dtype=torch.float64)
        x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
        made = physics(operator)
        torch.testing.assert_close(made.A(x), operator.forward(x))
        y = operator.forward(x)
        torch.testing.assert_close(made.A_adjoint(y), operator.adjoint(y))
        assert made.adjointness_test(x).abs() < 1e-9


@pytest.mark.parametrize("sampler", ["ddrm", "diffpir", "dps"])
@pytest.mark.parametrize("sigma", [0.0, 0.05])
def test_samples_depend_on_their_own_stream_alone(sampler: str, sigma: float) -> None:
    """And cost what is declared."""
    operator = make_operator({"name": "average", "sigma": sigma}, 4, 32)
    words = {"weights": "gaussians", "sampler": sampler, "steps": 5}
    method = build(methods.get("deepinv_sampler"), {"unet": UNET, **words}, "m", "deepinv_sampler")
    assert isinstance(method, DiffusionSampler)
    method.prepare(operator)
    network, calls = method.prior.network, []
    method.prior.network = lambda x, t: calls.append(len(x)) or network(x, t)  # type: ignore[func-returns-value]
    y = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    together = method.sample(y, 2, noise=Noise(0, ["a", "b"], range(2)))
    assert calls == [1] * (4 * method.evaluations)
    alone = method.sample(y[1:], 1, noise=Noise(0, ["b"], range(1, 2)))
    assert torch.equal(alone[0, 0], together[1, 1])
    assert together.isfinite().all()
    assert (together[:, 0] - together[:, 1]).abs().mean() > 1e-3


def test_an_option_that_deepinv_does_not_know() -> None:
    method = build(
        methods.get("deepinv_sampler"), {"unet": UNET, "weights": "gaussians", "steps": 4, "options": {"zeat": 1.0}},
        "m", "deepinv_sampler",
    )  # fmt: skip
    with pytest.raises(BenchError, match="zeat"):
        method.prepare(make_operator({"name": "average"}, 4, 32))

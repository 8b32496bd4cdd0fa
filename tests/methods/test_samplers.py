"""What holds for every zero-shot sampler: rows of their own, any operator, declared evaluations."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from bench.config import compose, method_config, read_config
from bench.contract import Noise, methods
from bench.errors import BenchError
from bench.load import make_method
from bench.operators import Operator, make_operator
from bench.settings import build
from methods.daps import Daps
from methods.ddnm import travel
from methods.diffusion.checkpoints import GAUSSIANS, SHIPPED, load_weights
from methods.diffusion.prior import DiffusionPrior, Estimate, polynomial
from methods.diffusion.sampler import DiffusionSampler, Task
from methods.diffusion.schedule import cosine, linear
from methods.diffusion.unet import PriorNetwork, UnetConfig

TINY = {"size": 32, "channels": 32, "multipliers": [1, 2], "attention": [16], "head_channels": 16, "patch": 2}
SAMPLERS: dict[str, dict[str, Any]] = {
    "dps": {"steps": 4},
    "ddrm": {"steps": 4},
    "ddnm": {"steps": 4},
    "pigdm": {"steps": 4},
    "reddiff": {"steps": 4},
    "diffpir": {"steps": 4},
    "daps": {"steps": 3, "ode_steps": 2, "langevin_steps": 5},
    "pnpdm": {"steps": 3, "inner": 5},
}
ERROR_SHARE = 0.5
"""Mean square error of the trained denoiser against the exact one, over that of the exact one, at most."""
RESIDUAL: dict[str, tuple[float, dict[str, Any]]] = {
    "ddrm": (1e-3, {}),
    "ddnm": (1e-3, {}),
    "diffpir": (1e-3, {}),
    "reddiff": (0.4, {}),
    "pnpdm": (0.5, {}),
    "daps": (0.1, {"conditional": "exact"}),
    "dps": (0.95, {"guidance": 3.0}),
}
"""Of A x - y without noise over that of an unguided sample, at most, and settings. PiGDM is left out, which a random
network makes diverge, and so are DAPS' Langevin steps, which are too few here."""
OPERATORS = ("bicubic", "average", "blur", "inpainting")
each = pytest.mark.parametrize("name", SAMPLERS)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    network = PriorNetwork(UnetConfig(**TINY)).unet
    with torch.no_grad():  # an untrained network predicts large noise; a tenth of it keeps images finite
        for p in network.conv_out.parameters():
            p.mul_(0.1)
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, path)
    return path


def make(name: str, weights: Path, operator: Operator, **settings: Any) -> DiffusionSampler:
    values = {"unet": TINY, "weights": str(weights), **SAMPLERS[name], **settings}
    method = build(methods.get(name), values, f"methods.{name}", name)
    assert isinstance(method, DiffusionSampler)
    method.prepare(operator)
    return method


def observation(operator: Operator) -> torch.Tensor:
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return operator.observe(x, Noise.of_observation(0, ["a", "b"]) if operator.sigma else None)


def noise(samples: range = range(2), ids: tuple[str, ...] = ("a", "b")) -> Noise:
    return Noise(0, ids, samples)


@each
@pytest.mark.parametrize("sigma", [0.0, 0.05])
def test_a_row_depends_on_itself_alone(name: str, sigma: float, weights: Path) -> None:
    """In a batch, alone, and in other pieces."""
    operator = make_operator({"name": "average", "sigma": sigma}, 4, 32)
    y = observation(operator)
    together = make(name, weights, operator).sample(y, 2, noise=noise())
    pieces = make(name, weights, operator, compute={"rows": 3}).sample(y, 2, noise=noise())
    alone = make(name, weights, operator).sample(y[1:], 1, noise=noise(range(1, 2), ("b",)))
    # in the mean: the first step multiplies rounding by 1 / sqrt(alpha_bar), a hundred or more
    assert (pieces - together).abs().mean() < 1e-5
    assert (alone[0, 0] - together[1, 1]).abs().mean() < 1e-5
    assert (together[:, 0] - together[:, 1]).abs().mean() > 1e-3 or name == "reddiff"


@each
@pytest.mark.parametrize("kind", OPERATORS)
@pytest.mark.parametrize("sigma", [0.0, 0.05])
def test_any_operator(name: str, kind: str, sigma: float, weights: Path) -> None:
    """Samples are finite."""
    operator = make_operator({"name": kind, "sigma": sigma}, 4, 32)
    y = observation(operator)
    x = make(name, weights, operator).sample(y, 1, noise=noise(range(1)))
    assert x.isfinite().all()


@pytest.mark.parametrize("name", RESIDUAL)
@pytest.mark.parametrize("kind", OPERATORS)
def test_without_noise_a_sample_is_nearer_to_y_than_the_unguided_prior(name: str, kind: str, weights: Path) -> None:
    """Most of what y sees is in it, for whatever network; nothing is clipped."""
    operator = make_operator({"name": kind, "range": None}, 4, 32)
    y = observation(operator)

    def residual(name: str, **settings: Any) -> float:
        x = make(name, weights, operator, **settings).sample(y, 1, noise=noise(range(1)))
        return float((operator.forward(x) - y[:, None]).square().mean().sqrt())

    share, more = RESIDUAL[name]
    assert residual(name, **more) < share * residual("dps", guidance=0.0)


@each
def test_evaluations_and_backward_passes_are_declared(
    name: str, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = make_operator({"name": "average", "sigma": 0.05}, 4, 32)
    method = make(name, weights, operator)
    calls = {"forward": 0, "backward": 0}
    network = method.prior.network

    def count(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        calls["forward"] += 1
        out = network(x, t)
        if out.requires_grad:
            out.register_hook(lambda g: calls.update(backward=calls["backward"] + 1))
        return out

    method.prior.network = count
    method.sample(observation(operator), 1, noise=noise(range(1)))
    assert calls == {"forward": method.evaluations, "backward": method.backward_passes}
    assert methods.get(name).facts.evaluations > 0


@each
def test_the_shipped_prior_takes_every_sampler(name: str) -> None:
    """Its yaml builds and loads."""
    method = build(methods.get(name), method_config(name).parameters, f"methods.{name}", name)
    method.prepare(make_operator({"name": "bicubic"}, 8, 64))
    assert 20 <= method.evaluations <= 1000
    assert set(method.files()) == {"prior"}


def test_a_file_that_was_trained_on_the_cosine_schedule_is_sampled_on_it(weights: Path) -> None:
    values = {"unet": TINY | {"schedule": "cosine"}, "weights": str(weights), "steps": 4}
    method = build(methods.get("ddrm"), values, "methods.ddrm", "ddrm")
    assert method.levels.kept(999) == pytest.approx(float(cosine()[-1]), rel=1e-9)
    method.prepare(make_operator({"name": "average"}, 2, 32))
    assert method.prior.kept(500) == pytest.approx(float(cosine()[500]), rel=1e-9)
    words = ["methods=[ddrm]", "methods.ddrm.unet.schedule=cosine", "methods.ddrm.unet.learned_variance=false"]
    on_the_command_line = make_method(read_config(compose("run", words)).methods[0])
    assert isinstance(on_the_command_line, DiffusionSampler)
    assert on_the_command_line.shape.schedule == "cosine"
    assert not on_the_command_line.learned_variance
    assert method.prior.kept(500) != pytest.approx(float(linear()[500]), rel=0.05)


def test_dps_with_the_small_network_of_gaussians_samples_images() -> None:
    """Its learned variance is out of range, so that DDPM's is taken: samples have the spread of the images."""
    from bench.data.gaussians import load_mixture

    images = load_mixture(32).sample(Noise(1, ["a", "b", "c"], ["image"]))[:, 0].float()
    operator = make_operator({"name": "bicubic", "sigma": 0.05}, 4, 32, range=None)
    settings = {"weights": "gaussians", "steps": 20, "clip": False, "guidance": 1.0}
    method = make_method(method_config("dps", settings)).prepare(operator)
    samples = method.sample(operator.forward(images), 1, noise=noise(range(1), ("a", "b", "c")))
    assert float(samples.std()) == pytest.approx(float(images.std()), rel=0.3)


def test_evaluations_of_the_published_settings() -> None:
    """DAPS: 1000 but for levels that share a step; PnP-DM: ours, the published code has 1861 with VP's levels."""
    unet = UnetConfig(size=32)
    assert 800 < Daps(unet=unet, weights="", steps=200).evaluations <= 1000
    pnpdm = methods.get("pnpdm")
    assert pnpdm(unet=unet, weights="", steps=100).evaluations == pnpdm.facts.evaluations == 1960


def test_the_task_is_in_the_networks_units() -> None:
    """A (2 x - 1) + 2 sigma n, and what y says of each coefficient, also where A does not keep constants."""
    for kind in OPERATORS:
        operator = make_operator({"name": kind}, 2, 8, dtype=torch.float64)
        x = torch.rand(2, 3, 8, 8, dtype=torch.float64)
        task = Task(operator, operator.forward(x))
        torch.testing.assert_close(task.y, operator.forward(2 * x - 1), atol=1e-12, rtol=0)
        expected = torch.where(task.s > 0, task.svd.v_t(2 * x - 1), 0.0)
        torch.testing.assert_close(task.z, expected, atol=1e-9, rtol=0)
        projected = x + task.pull(x, 1.0)
        torch.testing.assert_close(operator.forward(projected), task.y, atol=1e-9, rtol=0)


def test_travel_is_repaints_schedule() -> None:
    assert travel(3, 1, 1) == [(2, 1), (1, 0), (0, -1)]
    assert travel(3, 1, 2) == [(2, 1), (1, 2), (2, 1), (1, 0), (0, 1), (1, 0), (0, -1)]
    longer = travel(100, 10, 10)  # get_schedule_jump of the published code visits each of 10 stretches 10 times
    assert sum(there < here for here, there in longer) == 100 + 9 * 9 * 10
    assert sum(there > here for here, there in longer) == 81


def test_daps_levels_are_evenly_spaced_in_the_seventh_root() -> None:
    levels = polynomial(100, 0.1, 201)
    assert levels[0] == pytest.approx(100)
    assert levels[-1] == pytest.approx(0.1)
    roots = torch.tensor(levels, dtype=torch.float64) ** (1 / 7)
    assert roots.diff().std() < 1e-9


def test_dps_in_a_batch_takes_one_norm_per_row() -> None:
    """The gradient's length: a row's alone when not coupled; 1 / sqrt(2) of it where two equal rows share a norm."""

    def normals() -> Iterator[torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        while True:
            yield torch.randn(1, 3, 8, 8, generator=generator).expand(2, -1, -1, -1)

    operator = make_operator({"name": "average"}, 2, 8)
    kept = torch.tensor([0.9, 0.1], dtype=torch.float64)
    y = torch.rand(1, 3, 4, 4).expand(2, -1, -1, -1)
    moved = []
    for settings in ({"guidance": 0.0}, {"guidance": 1e-3}, {"guidance": 1e-3, "coupled": True}):
        method = methods.get("dps")(unet=UnetConfig(size=8), weights="", steps=2, clip=False, **settings)
        method.prior = DiffusionPrior(lambda x, t: 0.5 * x, kept, "clean")
        draws = normals()
        moved.append(method.trajectory(Task(operator, y), lambda draws=draws: next(draws)))
    one, coupled = moved[1] - moved[0], moved[2] - moved[0]
    torch.testing.assert_close(coupled, one / math.sqrt(2), atol=1e-6, rtol=1e-3)


def test_an_estimate_without_variance() -> None:
    assert Estimate(torch.zeros(1), torch.zeros(1)).mixing is None


def test_diffpir_fits_each_estimate_to_y_by_least_squares() -> None:
    """Its loop, written down with a dense solution of |y - A x|^2 + rho |x - x0|^2, in two steps."""
    operator = make_operator({"name": "bicubic", "sigma": 0.05}, 2, 8, dtype=torch.float64, range=None)
    y = torch.rand(1, 3, 4, 4, dtype=torch.float64)
    kept = torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64)
    prior = DiffusionPrior(lambda x, t: 0.5 * x, kept, "clean")
    method = methods.get("diffpir")(unet=UnetConfig(size=8), weights="", steps=2, clip=False, zeta=0.25)
    method.prior = prior
    noise = [torch.randn(1, 3, 8, 8, dtype=torch.float64) for _ in range(2)]
    draws = iter(noise)
    found = method.trajectory(Task(operator, y), lambda: next(draws))

    a = operator.forward(torch.eye(64, dtype=torch.float64).view(64, 8, 8)).flatten(1).T
    target = (2 * y - 1).flatten(2)
    x = math.sqrt(0.1) * operator.pinv(2 * y - 1) + math.sqrt(0.9) * noise[0]
    for t, u in ((2, 0), (0, None)):
        rho = (2 * 0.05) ** 2 * kept[t] / (1 - kept[t])
        x0 = (0.5 * x).flatten(2)
        normal = a.T @ a + rho * torch.eye(64, dtype=torch.float64)
        x0 = torch.linalg.solve(normal, (target @ a + rho * x0).mT).mT.view(x.shape)
        if u is not None:
            predicted = (x - kept[t].sqrt() * x0) / (1 - kept[t]).sqrt()
            mixed = math.sqrt(0.75) * predicted + math.sqrt(0.25) * noise[1]
            x = kept[u].sqrt() * x0 + (1 - kept[u]).sqrt() * mixed
    torch.testing.assert_close(found, x0, atol=1e-9, rtol=0)


@pytest.mark.parametrize(("kind", "sigma"), [("bicubic", 0.05), ("bicubic", 0.0), ("inpainting", 0.05), ("blur", 0.05)])
def test_pigdm_is_its_equations_with_dense_matrices(kind: str, sigma: float) -> None:
    """J^T A^T (r^2 A A^T + sigma^2 I)^-1 (y - A x0) for an x0 whose Jacobian J is neither diagonal nor constant."""
    operator = make_operator({"name": kind, "sigma": sigma}, 2, 8, dtype=torch.float64, range=None)
    kept = torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64)

    def clean(x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(0.5 * x + 0.3 * x.roll(1, -1) - 0.2 * x.roll(1, 1))

    method = methods.get("pigdm")(unet=UnetConfig(size=8), weights="", steps=3)
    method.prior = DiffusionPrior(lambda x, t: clean(x), kept, "clean")
    y = operator.forward(torch.rand(1, 3, 8, 8, dtype=torch.float64))
    task = Task(operator, y)
    noise = [torch.randn(1, 3, 8, 8, dtype=torch.float64) for _ in range(3)]
    draws = iter(noise)
    found = method.trajectory(task, lambda: next(draws))

    a = operator.forward(torch.eye(192, dtype=torch.float64).view(192, 3, 8, 8)).flatten(1).T
    target = task.y.flatten()
    x = math.sqrt(0.1) * torch.linalg.pinv(a) @ target + math.sqrt(0.9) * noise[0].flatten()
    for t, u in ((2, 1), (1, 0), (0, None)):
        now, before = float(kept[t]), 1.0 if u is None else float(kept[u])
        c1 = math.sqrt((1 - before) * (1 - now / before) / (1 - now))
        c2 = math.sqrt(1 - before - c1**2)
        x0 = clean(x.view(1, 3, 8, 8)).flatten()
        jacobian = torch.autograd.functional.jacobian(lambda v: clean(v.view(1, 3, 8, 8)).flatten(), x)
        middle = (1 - now) * a @ a.T + (2 * sigma) ** 2 * torch.eye(len(a), dtype=torch.float64)
        gradient = jacobian.T @ a.T @ torch.linalg.pinv(middle, rtol=1e-9) @ (target - a @ x0)
        factor = math.sqrt(before) * (1 - now) / math.sqrt(now) - c2 * math.sqrt(1 - now)
        predicted = (x - math.sqrt(now) * x0) / math.sqrt(1 - now)
        fresh = torch.zeros_like(x) if u is None else noise[2 - t + 1].flatten()
        x = math.sqrt(before) * x0 + c1 * fresh + c2 * predicted + factor * gradient
    torch.testing.assert_close(found.flatten(), x, atol=1e-7, rtol=0)


def test_the_exact_prior_is_the_datasets() -> None:
    """No network: samples are nearly as near to the truth as the posterior's own, and y is fitted to its noise."""
    from bench.data.gaussians import load_mixture
    from bench.posterior import Posterior

    mixture = load_mixture(32)
    operator = make_operator({"name": "average", "sigma": 0.05}, 4, 32, range=None)
    posterior = Posterior(mixture, operator.to("cpu", torch.float64))
    x = mixture.sample(Noise(1, ["a", "b", "c", "d"], ["image"]))[:, 0].float()
    ids = ("a", "b", "c", "d")
    y = operator.observe(x, Noise.of_observation(0, ids))
    values = {"unet": TINY, "weights": "exact", "steps": 20}
    method = build(methods.get("ddrm"), values, "methods.ddrm", "ddrm").prepare(operator, posterior=posterior)
    samples = method.sample(y, 4, noise=noise(range(4), ids))
    exact = posterior.sample(y, noise(range(4), ids)).float()
    error, floor = ((s - x[:, None]).square().mean() for s in (samples, exact))
    assert error < 1.5 * floor
    assert (operator.forward(samples) - y[:, None]).square().mean().sqrt().item() == pytest.approx(0.05, rel=0.3)
    assert method.files() == {}


def test_the_exact_prior_needs_a_known_distribution() -> None:
    method = build(methods.get("ddrm"), {"unet": TINY, "weights": "exact", "steps": 20}, "methods.ddrm", "ddrm")
    with pytest.raises(BenchError, match="DDRM needs images whose posterior is known"):
        method.prepare(make_operator({"name": "average"}, 4, 32))


@pytest.mark.parametrize(("weights", "learned"), [("exact", False), ("gaussians", False), ("small64", True)])
def test_pnpdm_takes_the_learned_variance_of_priors_that_have_one(weights: str, learned: bool) -> None:
    """The shipped settings ask for it; the posterior's of DDPM in its place would be too narrow, and nobody told."""
    from bench.data.gaussians import load_mixture
    from bench.posterior import Posterior

    size = 64 if weights == "small64" else 32
    operator = make_operator({"name": "average", "sigma": 0.05}, 4, size, range=None)
    posterior = Posterior(load_mixture(size), operator.to("cpu", torch.float64))
    shipped = {**method_config("pnpdm").parameters, "steps": 2, "inner": 4}
    shipped |= {} if weights == "small64" else {"weights": weights}
    assert shipped["variance"] == "learned"
    for variance in ("learned", "sde"):
        method = build(methods.get("pnpdm"), {**shipped, "variance": variance}, "methods.pnpdm", "pnpdm")
        assert isinstance(method, DiffusionSampler)
        assert method.learned_variance == learned
        if variance == "learned" and not learned:
            with pytest.raises(BenchError, match=f"weights={weights}.* has no learned variance: use variance=sde"):
                method.prepare(operator, posterior=posterior)
            continue
        method.prepare(operator, posterior=posterior)
        with torch.no_grad():
            assert (method.prior(torch.zeros(1, 3, size, size), 500).mixing is not None) == learned


@each
def test_the_network_of_the_known_distribution_takes_every_sampler(name: str) -> None:
    """At 32 pixels, whatever `unet` says; other sizes are refused by a sentence."""
    settings = {"unet": {**TINY, "size": 64}, "weights": "gaussians", **SAMPLERS[name]}
    method = build(methods.get(name), settings, "m", name)
    assert isinstance(method, DiffusionSampler)
    operator = make_operator({"name": "average", "sigma": 0.05, "range": None}, 4, 32)
    method.prepare(operator)
    x = method.sample(observation(operator), 1, noise=noise(range(1)))
    assert x.isfinite().all()
    assert not method.needs_posterior
    with pytest.raises(BenchError, match="32"):
        method.prepare(make_operator({"name": "average", "range": None}, 4, 64))


def test_named_weights_have_the_shape_of_their_yaml() -> None:
    import configs

    text = (Path(next(iter(configs.__path__))) / "network" / "unet" / "gaussians32.yaml").read_text()
    settings = yaml.safe_load(text)
    assert UnetConfig(**settings).model_dump(mode="json") == GAUSSIANS.model_dump(mode="json")
    assert (SHIPPED / "gaussians32.safetensors").stat().st_size <= 5_000_000


def test_the_network_of_the_known_distribution_is_near_the_exact_denoiser_where_noise_is_large() -> None:
    """Its error, not that of a sampler, beside what exact denoising leaves; docs/samplers.md has the table."""
    from bench.data.gaussians import load_mixture
    from methods.diffusion.exact import Mixture, denoise

    known = load_mixture(32)
    columns = known.factors.flatten(2).mT
    mixture = Mixture.of_factors(known.weights, known.means.flatten(1), columns, known.stds).affine(2.0, -1.0)
    network = PriorNetwork(GAUSSIANS)
    load_weights(network, "gaussians32.safetensors")
    prior = DiffusionPrior(network.eval(), linear(), "velocity")
    x0 = 2 * known.sample(Noise(5, [str(i) for i in range(16)], ["image"]))[:, 0] - 1
    normal = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for t in (500, 800):
        xt = prior.noised(x0, normal, t)
        exact = denoise(mixture, xt.flatten(1), prior.kept(t)).view(x0.shape)
        with torch.no_grad():
            found = prior(xt.float(), t).x0
        error, least = (found - exact).square().mean(), (exact - x0).square().mean()
        assert error < ERROR_SHARE * least

"""Run the published code of zero-shot samplers beside ours: a small random network, the same noise and operator.

    python -m scripts.compare_samplers CHECKOUT...

Each CHECKOUT is one of github:bahjat-kawar/ddrm, wyhuai/DDNM, NVlabs/RED-diff, yuanzhi-zhu/DiffPIR,
zhangbingliang2019/DAPS, zihuiwu/PnP-DM-public. Prints the largest difference relative to the largest value, in float64,
of one trajectory; of single functions where a trajectory cannot be compared (docs/samplers.md says why). What both
cost is measured by scripts/time_samplers.py.

Their code asks for a GPU in places: "cuda" means the CPU here. Average pooling by 4 is the operator: all codes
mean the same by it. Noise is drawn as images and given to each code in its own coefficients.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.contract import methods
from bench.operators.average import Average
from methods.diffusion.prior import DiffusionPrior, Network, polynomial
from methods.diffusion.sampler import DiffusionSampler, Task
from methods.diffusion.schedule import linear
from methods.diffusion.unet import PriorNetwork, UnetConfig
from scripts.compare_dps import SIZES, fill
from scripts.side_by_side import error

SMALL = SIZES["small"]
SCALE, SIZE, ROWS = 4, SMALL.size, 2
SHAPE = (ROWS, 3, SIZE, SIZE)


class Draws:
    """Image-shaped standard normal noise, the same sequence for both codes."""

    def __init__(self, shape: tuple[int, ...] = SHAPE) -> None:
        self._generator = torch.Generator().manual_seed(7)
        self._shape = shape

    def __call__(self) -> Tensor:
        """The next one."""
        return torch.randn(self._shape, generator=self._generator)


@contextmanager
def checkout(folder: Path, **stubs: types.ModuleType) -> Iterator[None]:
    """Import from a checkout; modules that it does not need for this are replaced by `stubs`, "cuda" by the CPU."""
    before = dict(sys.modules)
    to, cuda = Tensor.to, Tensor.cuda
    sys.path.insert(0, str(folder))
    sys.modules.update({name.replace("__", "."): stub for name, stub in stubs.items()})
    Tensor.to = lambda self, *a, **k: to(self, *("cpu" if v == "cuda" else v for v in a), **k)  # type: ignore[method-assign]
    Tensor.cuda = lambda self, *a, **k: self  # type: ignore[method-assign]
    try:
        yield
    finally:
        Tensor.to, Tensor.cuda = to, cuda  # type: ignore[method-assign]
        sys.path.remove(str(folder))
        for name in set(sys.modules) - set(before):
            if getattr(sys.modules[name], "__file__", None) is None or str(folder) in str(sys.modules[name].__file__):
                del sys.modules[name]


@contextmanager
def normals(draw: Callable[[Tensor], Tensor] | None) -> Iterator[None]:
    """Let torch.randn_like give what `draw` makes of its argument; None leaves it as it is."""
    real = torch.randn_like
    if draw is not None:
        torch.randn_like = lambda like, **_: draw(like)  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.randn_like = real


def module(name: str, **content: Any) -> types.ModuleType:
    """A module that holds what is given."""
    made = types.ModuleType(name)
    made.__dict__.update(content)
    return made


def make_network(config: UnetConfig = SMALL) -> PriorNetwork:
    """Random weights in the default precision; the output is a noise of about 1."""
    network = PriorNetwork(config)
    fill(network)
    return network.to(torch.get_default_dtype()).eval().requires_grad_(False)


class Case:
    """Ours: a network, y and the task, in the default precision.

    Args:
        sigma: noise of y.
        shape: of the images; a square.
        network: the network of both, a small one by default.

    """

    def __init__(
        self, sigma: float = 0.0, shape: tuple[int, int, int, int] = SHAPE, network: Network | None = None
    ) -> None:
        self.shape, self.size = shape, shape[-1]
        self.operator = Average(self.size, SCALE, sigma=sigma, range=None, dtype=torch.get_default_dtype())
        self.network = make_network() if network is None else network
        self.prior = DiffusionPrior(self.network, linear())
        generator = torch.Generator().manual_seed(1)
        x = torch.rand(shape, generator=generator)
        y = self.operator.forward(x)
        self.task = Task(self.operator, y + sigma * torch.randn(y.shape, generator=generator))
        self.betas = torch.linspace(1e-4, 0.02, 1000)

    def model(self, x: Tensor, t: Tensor, *_: Any) -> Tensor:
        """As guided-diffusion's: noise and variance."""
        return self.network(x, t)

    def ours(
        self, name: str, normal: Callable[[], Tensor], prior: DiffusionPrior | None = None, **settings: Any
    ) -> Tensor:
        """Our trajectory."""
        method = methods.get(name)(unet=UnetConfig(size=self.size), weights="", **settings)  # type: ignore[call-arg]
        assert isinstance(method, DiffusionSampler)
        method.prior = prior or self.prior
        with torch.no_grad():
            return method.trajectory(self.task, normal)


def every(steps: int) -> list[int]:
    """The steps of the codes, rising."""
    return [i * (1000 // steps) for i in range(steps)]


def ddrm(folder: Path, case: Case, draws: Draws | None, steps: int, eta_b: float = 1.0) -> tuple[Tensor, Tensor]:
    """Their last x and x0; without `draws` the noise is as they draw it, here and in the functions below."""
    with checkout(folder):
        algorithm = importlib.import_module("functions.denoising").efficient_generalized_steps
        h = importlib.import_module("functions.svd_replacement").SuperResolution(3, case.size, SCALE, "cpu")
        state: dict[str, Any] = {"call": 0}

        def draw(like: Tensor) -> Tensor:
            assert draws is not None
            if state["call"] % 3 == 0:  # each step draws for unseen, less noisy and noisier coefficients
                state["noise"] = h.Vt(draws())
            state["call"] += 1
            found: Tensor = state["noise"][:, : like.shape[1]]
            return found

        with normals(draw if draws else None):
            start = h.Vt(draws()).view(case.shape) if draws else torch.randn(case.shape)
            y, sigma = case.task.y.flatten(1), case.task.sigma
            xs, x0s = algorithm(start, every(steps), case.model, case.betas, h, y, sigma, eta_b, 0.85, 0.85)
    return xs[-1], x0s[-1]


def compare_ddrm(folder: Path) -> None:
    """Whole trajectories; at sigma = 0 up to the last step, which their conditions leave out."""
    for sigma, eta_b in ((0.05, 1.0), (0.05, 0.7), (0.0, 1.0)):
        case, draws = Case(sigma), Draws()
        expected, x0 = ddrm(folder, case, Draws(), 20, eta_b)
        svd = case.task.svd
        ours = case.ours("ddrm", lambda svd=svd, draws=draws: svd.v_t(draws()), steps=20, eta_b=eta_b)
        if sigma:
            print(f"ddrm, sigma {sigma}, eta_b {eta_b}: {error(ours, expected):.1e}")
        else:
            y, operator = case.task.y, case.task.operator
            print(f"ddrm, sigma 0, their last x0 made consistent: {error(ours, operator.project(x0, y)):.1e}")
            theirs_, ours_ = (float((operator.forward(x) - y).abs().max()) for x in (expected, ours))
            print(f"ddrm, sigma 0, largest |A x - y|: theirs {theirs_:.1e}, ours {ours_:.1e}")


def in_coefficients(a: Any, size: int) -> None:
    """Mend their Lambda_noise: it takes the predicted noise for coefficients, where it is given an image."""
    wrong = a.Lambda_noise

    def turned(image: Tensor) -> Tensor:
        patches = image.view(-1, 3, size // SCALE, SCALE, size // SCALE, SCALE).transpose(3, 4)
        coefficients = (patches.flatten(4) @ a.V_small).view(patches.shape)
        return coefficients.transpose(3, 4).reshape(len(image), -1)

    a.Lambda_noise = lambda vec, *scalars: wrong(turned(vec), *scalars[:-1], turned(scalars[-1]))


def ddnm(
    folder: Path, case: Case, draws: Draws | None, steps: int, travel_repeat: int = 1, mended: bool = True
) -> Tensor:
    """Their result; with noise after mending a line of theirs, unless `mended` is False."""
    config = SimpleNamespace(
        diffusion=SimpleNamespace(num_diffusion_timesteps=1000),
        time_travel=SimpleNamespace(T_sampling=steps, travel_length=1, travel_repeat=travel_repeat),
    )
    draw = (lambda like: draws().view(like.shape)) if draws else None
    with checkout(folder, cv2=module("cv2")), normals(draw):  # cv2 is not used for this
        algorithms = importlib.import_module("functions.svd_ddnm")
        a = importlib.import_module("functions.svd_operators").SuperResolution(3, case.size, SCALE, "cpu")
        start, y, sigma = draws() if draws else torch.randn(case.shape), case.task.y.flatten(1), case.task.sigma
        if sigma:
            if mended:
                in_coefficients(a, case.size)
            xs, _ = algorithms.ddnm_plus_diffusion(start, case.model, case.betas, 0.85, a, y, sigma, config=config)
        else:
            xs, _ = algorithms.ddnm_diffusion(start, case.model, case.betas, 0.85, a, y, config=config)
    found: Tensor = xs[0]
    return found


def compare_ddnm(folder: Path) -> None:
    """Whole trajectories of both algorithms, also with jumps back."""
    for sigma, repeat in ((0.0, 1), (0.0, 2), (0.05, 1), (0.25, 1), (0.05, 2)):
        case = Case(sigma)
        expected = ddnm(folder, case, Draws(), 20, repeat)
        ours = case.ours("ddnm", Draws(), steps=20, travel_repeat=repeat)
        print(f"ddnm, sigma {sigma}, travel {repeat}: {error(ours, expected):.1e}")


@contextmanager
def nvlabs(folder: Path, case: Case, weight: float) -> Iterator[Callable[[str, str], Any]]:
    """Give what makes an algorithm of RED-diff's code, by module and class, with our operator and one weight."""
    alphas = torch.cat([torch.ones(1), linear()]).to(torch.get_default_dtype())

    class Model:
        diffusion = SimpleNamespace(alpha=lambda t: alphas[t + 1])

        def __call__(self, x: Tensor, y: Any, t: Tensor, scale: float = 1.0) -> tuple[Tensor, Tensor]:
            noise, a = case.model(x, t)[:, :3], alphas[t + 1].view(-1, 1, 1, 1)
            return noise, (x - noise * (1 - a).sqrt()) / a.sqrt()

    h = SimpleNamespace(H=case.operator.forward, H_pinv=case.operator.pinv)
    algo = SimpleNamespace(
        awd=True, cond_awd=False, mcg=False, grad_term_weight=weight, obs_weight=1.0, eta=1.0, lr=0.1, sdedit=False,
        denoise_term_weight="linear", sigma_x0=0.0, sigma_y=0.0, deg="sr4",
    )  # fmt: skip
    cfg = SimpleNamespace(algo=algo, exp=SimpleNamespace(save_evolution=False))
    stubs = {
        "algos": module("algos", __path__=[str(folder / "algos")]),
        "omegaconf": module("omegaconf", DictConfig=object),
        "utils": module("utils", __path__=[]),
        "utils__degredations": module("utils.degredations", build_degredation_model=lambda cfg: h),
        "models": module("models", __path__=[]),
        "models__classifier_guidance_model": module("models.classifier_guidance_model", ClassifierGuidanceModel=Model),
    }
    kept = sys.modules.get("omegaconf")
    try:
        with checkout(folder, **stubs):
            yield lambda file, name: getattr(importlib.import_module(f"algos.{file}"), name)(Model(), cfg)
    finally:
        if kept is not None:
            sys.modules["omegaconf"] = kept


def pigdm(folder: Path, case: Case, draws: Draws | None, steps: int) -> Tensor:
    """PiGDM of RED-diff's code."""
    with nvlabs(folder, case, 1.0) as make, normals((lambda like: draws()) if draws else None):
        xs, _ = make("pgdm", "PGDM").sample(torch.zeros(case.shape), None, every(steps), y_0=case.task.y)
    found: Tensor = xs[0]
    return found


def reddiff(folder: Path, case: Case, draws: Draws | None, steps: int, weight: float = 0.25) -> Tensor:
    """RED-diff of its code."""
    calls: list[int] = []

    def draw(like: Tensor) -> Tensor:
        assert draws is not None
        calls.append(0)  # the first of two has the factor 0
        return draws() if len(calls) % 2 == 0 else torch.zeros_like(like)

    with nvlabs(folder, case, weight) as make, normals(draw if draws else None):
        _, mu = make("reddiff", "REDDIFF").sample(torch.zeros(case.shape), None, every(steps), y_0=case.task.y)
    found: Tensor = mu.detach()
    return found


def compare_reddiff(folder: Path) -> None:
    """RED-diff and the code's PiGDM, whole trajectories of one row: their losses are means over the batch."""
    one, steps = (1, *SHAPE[1:]), 50
    case = Case(0.05, one)
    expected = pigdm(folder, case, Draws(one), steps)
    print(f"pigdm, as coded: {error(case.ours('pigdm', Draws(one), steps=steps, rule='code'), expected):.1e}")
    for weight in (0.25, 4.0):
        expected = reddiff(folder, case, Draws(one), steps, weight)
        ours = case.ours("reddiff", Draws(one), steps=steps, regularisation=weight)
        print(f"reddiff, lambda {weight}: {error(ours, expected):.1e}")


Fit = Callable[[Tensor, float], Tensor]
"""An image fitted to y at a rho."""


def diffpir_fit(folder: Path, case: Case) -> tuple[Fit, Fit]:
    """The step that fits y, theirs and ours; their loop is one script with its files in it."""
    import scipy.interpolate

    scipy.interpolate.interp2d = None  # gone from SciPy, imported and not used
    with checkout(folder):
        sr = importlib.import_module("utils.utils_sisr")
    kernel = torch.zeros(1, 1, case.size, case.size)  # block means: the taps lie at or after the pixel that is kept
    for i in range(SCALE):
        for j in range(SCALE):
            kernel[0, 0, -i, -j] = 1 / SCALE**2
    fb = torch.fft.fftn(kernel, dim=(-2, -1))
    fby = fb.conj() * torch.fft.fftn(sr.upsample(case.task.y, sf=SCALE), dim=(-2, -1))
    constant = fb, fb.conj(), fb.abs().square(), fby
    s = case.task.s.square()
    return (
        lambda x0, rho: sr.data_solution(x0, *constant, torch.full((1, 1, 1, 1), rho), SCALE),
        lambda x0, rho: x0 + case.task.pull(x0, s / (s + rho)),
    )


def assigned(source: str, **values: Any) -> str:
    """A script with other values of its constants."""
    for name, value in values.items():
        source, found = re.subn(rf"^(\s*{name}\s*=\s).*$", rf"\g<1>{value!r}", source, count=1, flags=re.MULTILINE)
        assert found, name
    return source


class Loaded(nn.Module):
    """A network whose weights are there already."""

    def __init__(self, call: Callable[..., Tensor]) -> None:
        super().__init__()
        self.forward = call

    def load_state_dict(self, *_: Any, **__: Any) -> Any:
        """Do nothing."""


def diffpir(folder: Path, case: Case, draws: Draws | None, steps: int) -> tuple[Tensor, Tensor]:
    """Their last x and x0: their script with one image of ours, its start and block means as the kernel."""
    import scipy.interpolate

    scipy.interpolate.interp2d = None  # gone from SciPy, imported and not used
    y, start = ((image / 2 + 0.5)[0].permute(1, 2, 0).numpy() for image in (case.task.y, case.task.svd.v(case.task.z)))
    kernels = np.empty((1, 3), dtype=object)
    kernels[0, SCALE - 2] = np.pad(np.full((SCALE, SCALE), 1 / SCALE**2), (0, SCALE - 1))  # taps at or after a pixel
    calls, images, predictions = [], [], []

    def draw(like: Tensor) -> Tensor:
        calls.append(0)  # the start, then in each step two whose factor is 0 and one
        return draws() if draws and len(calls) % 3 == 1 else torch.zeros_like(like)

    def keep(x: Tensor) -> Any:
        images.append(2 * x - 1)
        return np.zeros((case.size, case.size, 3), np.uint8)

    source = (folder / "main_ddpir_sisr.py").read_text().replace("range(2,13)", "range(1,2)")  # lambda
    source = assigned(
        source, noise_level_img=case.operator.sigma, iter_num=steps, calc_LPIPS=False, save_progressive=False,
        save_L=False,
    )  # fmt: skip
    stubs = {"cv2": module("cv2", resize=lambda *_, **__: start, INTER_CUBIC=0), "hdf5storage": module("hdf5storage")}
    as_float, from_file = Tensor.float, torch.load
    with checkout(folder, **stubs), normals(draw if draws else None):
        script: dict[str, Any] = {"__name__": "script"}
        exec(compile(source, "main_ddpir_sisr", "exec"), script)
        util, model_fn = script["util"], script["utils_model"].model_fn

        def predicted(*a: Any, **k: Any) -> Tensor:
            predictions.append(model_fn(*a, **k))
            return predictions[-1]

        made = importlib.import_module("guided_diffusion.script_util").create_gaussian_diffusion(learn_sigma=True)
        script["create_model_and_diffusion"] = lambda **_: (Loaded(case.model), made)
        script["utils_model"].model_fn = predicted
        script["hdf5storage"].loadmat = lambda _: {"kernels": kernels}
        script["utils_logger"].logger_info = util.mkdir = lambda *_, **__: None
        util.get_image_paths = lambda _: ["image.png"]
        util.imread_uint = lambda *_, **__: np.zeros((case.size, case.size, 3), np.uint8)
        util.imresize_np = lambda *_: y
        util.tensor2uint = keep
        normal = np.random.normal
        np.random.normal = lambda *_: 0.0  # type: ignore[assignment]
        Tensor.float = lambda self: self.to(torch.get_default_dtype())  # type: ignore[method-assign]
        torch.load = lambda *_, **__: {}
        try:
            script["main"]()
        finally:
            np.random.normal, Tensor.float, torch.load = normal, as_float, from_file  # type: ignore[method-assign]
    return images[-1], predictions[-1]


def compare_diffpir(folder: Path) -> None:
    """The step that fits y, and whole trajectories of one row."""
    theirs, ours = diffpir_fit(folder, Case(0.05))
    x0 = Draws()()
    for rho in (0.01, 1.0, 100.0):
        print(f"diffpir, data_solution at rho {rho}: {error(ours(x0, rho), theirs(x0, rho)):.1e}")
    one = (1, *SHAPE[1:])
    case = Case(0.05, one)
    for steps in (20, 100):
        x, last = diffpir(folder, case, Draws(one), steps)
        mine = case.ours("diffpir", Draws(one), steps=steps, as_coded=True)
        print(f"diffpir, {steps} steps: {error(mine, x):.1e}; their last x0 (not saved): {error(last, x):.1e} away")


def daps_prior(case: Case, steps: int, ode_steps: int) -> DiffusionPrior:
    """The prior on a schedule that has their levels, which are those of DAPS in float32."""
    single = [float(torch.tensor(v, dtype=torch.float32)) for v in polynomial(100, 0.1, steps + 1)[:-1]]
    levels = {v for first in single for v in polynomial(first, 0.01, ode_steps + 1)} | set(single)
    return DiffusionPrior(case.network, 1 / (1 + torch.tensor(sorted(levels), dtype=torch.float64) ** 2))


def daps(
    folder: Path, case: Case, draws: Draws | None, steps: int, ode_steps: int = 5, langevin_steps: int = 100
) -> Tensor:
    """Theirs with our operator's gradient; their Euler solver (torchdiffeq) is three lines here."""
    prior = daps_prior(case, steps, ode_steps)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.place = nn.Parameter(torch.zeros(1))

        def score(self, x: Tensor, sigma: Tensor) -> Tensor:
            t = prior.nearest(float(sigma))
            return -prior(prior.signal(t) * x, t).noise / prior.level(t)

    def odeint(f: Callable[[Tensor, Tensor], Tensor], x: Tensor, times: Tensor, **_: Any) -> Tensor:
        states = [x]
        for a, b in pairwise(times):
            states.append(states[-1] + (b - a) * f(a, states[-1]))
        return torch.stack(states)

    class Measured:
        def gradient(self, x: Tensor, y: Tensor, return_loss: bool = False) -> tuple[Tensor, Tensor]:
            rest = case.operator.forward(x) - y
            return 2 * case.operator.adjoint(rest), rest.square().sum()

    stubs = {
        "torchdiffeq": module("torchdiffeq", odeint=odeint, odeint_adjoint=odeint),
        "forward_operator": module("forward_operator", LatentWrapper=object),
    }
    with checkout(folder, **stubs), normals((lambda like: draws()) if draws else None):
        sampler = importlib.import_module("sampler").DAPS(
            {"name": "edm", "num_steps": steps, "sigma_max": 100, "sigma_min": 0.1, "timestep": "poly-7"},
            {"name": "edm", "num_steps": ode_steps, "sigma_min": 0.01, "timestep": "poly-7"},
            {"num_steps": langevin_steps, "lr": 1e-4, "tau": 0.01, "lr_min_ratio": 0.01},
        )
        start = (draws() if draws else torch.randn(case.shape)) * prior.level(prior.steps - 1)
        found: Tensor = sampler.sample(Model(), start, Measured(), case.task.y)
    return found


def compare_daps(folder: Path) -> None:
    """A whole trajectory; their levels make our schedule."""
    case, steps, ode_steps = Case(0.05), 12, 5
    expected = daps(folder, case, Draws(), steps, ode_steps, 20)
    svd, draws = case.task.svd, Draws()
    order = iter([False, *([*[True] * 20, False] * steps)])  # coefficients in Langevin, images otherwise
    ours = case.ours(
        "daps", lambda: svd.v_t(draws()) if next(order) else draws(), daps_prior(case, steps, ode_steps),
        steps=steps, langevin_steps=20,
    )  # fmt: skip
    print(f"daps: {error(ours, expected):.1e}")


Proximal = Callable[[Tensor, Tensor, float], Tensor]
"""The likelihood step from an image, with noise of its shape, at a rho."""


def pnpdm_step(folder: Path, case: Case, drawn: bool = True) -> tuple[Proximal, Proximal]:
    """The likelihood step, theirs and ours; where noise is not `drawn` theirs draws its own."""
    with checkout(folder):
        tasks = module("pnpdm.tasks", __path__=[str(folder / "pnpdm" / "tasks")])
        source = (folder / "pnpdm" / "tasks" / "__init__.py").read_text()
        source = source[: source.index("# Noise classes")]  # the rest imports tasks with packages of their own
        exec(compile(source, "tasks", "exec"), tasks.__dict__)
        sys.modules.update({"pnpdm": module("pnpdm", __path__=[str(folder / "pnpdm")]), "pnpdm.tasks": tasks})
        operator = importlib.import_module("pnpdm.tasks.super_resolution_svd").SuperResolution(
            3, case.size, SCALE, "cpu"
        )

    def theirs(x: Tensor, noise: Tensor, rho: float) -> Tensor:
        with normals((lambda like: operator.Vt(noise).view(like.shape)) if drawn else None):
            found: Tensor = operator.proximal_generator(x, case.task.y.flatten(1), case.task.sigma, rho)
        return found

    def ours(x: Tensor, noise: Tensor, rho: float) -> Tensor:
        svd, gain = case.task.svd, case.task.gain(rho**2)
        c = svd.v_t(x)
        noise = svd.v_t(noise) if drawn else torch.randn(case.shape)
        return svd.v(c + gain * (case.task.z - c) + (rho**2 * (1 - gain)).sqrt() * noise)

    return theirs, ours


def pnpdm(folder: Path, case: Case, draws: None, steps: int) -> Tensor:
    """An iteration of theirs, `vp_sde`: the likelihood step at rho 10 and their prior step; it draws its own noise."""
    likelihood, _ = pnpdm_step(folder, case, drawn=False)
    with checkout(folder, pnpdm__samplers=module("pnpdm.samplers", __path__=[str(folder / "pnpdm" / "samplers")])):
        preconditioned = importlib.import_module("pnpdm.models.edm.edm").VPPrecond(case.model, case.size)
        denoiser = importlib.import_module("pnpdm.samplers.pnp_edm.denoiser_edm").Denoiser_EDM(
            preconditioned, "cpu", num_steps=2 * steps,  # half of them lie below rho
            solver="euler", discretization="vp", schedule="vp", scaling="vp", mode="sde",
        )  # fmt: skip
    z = likelihood(torch.zeros(case.shape), torch.zeros(case.shape), 10.0)
    found: Tensor = denoiser(z, 10.0)
    return found


def compare_pnpdm(folder: Path) -> None:
    """The likelihood step; their prior step is an Euler-Maruyama step of another discretisation."""
    theirs, ours = pnpdm_step(folder, Case(0.05))
    for rho in (0.3, 10.0):
        x, noise = Draws()(), torch.randn(SHAPE, generator=torch.Generator().manual_seed(9))
        print(f"pnpdm, likelihood step at rho {rho}: {error(ours(x, noise, rho), theirs(x, noise, rho)):.1e}")


COMPARISONS: dict[str, Callable[[Path], None]] = {
    "functions/svd_replacement.py": compare_ddrm,
    "functions/svd_ddnm.py": compare_ddnm,
    "algos/reddiff.py": compare_reddiff,
    "utils/utils_sisr.py": compare_diffpir,
    "cores/mcmc.py": compare_daps,
    "pnpdm/tasks/super_resolution_svd.py": compare_pnpdm,
}
"""A file that tells a checkout, and its comparison."""


def main() -> None:
    """Print the comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", type=Path, nargs="+")
    arguments = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    for folder in arguments.checkouts:
        found = [compare for file, compare in COMPARISONS.items() if (folder / file).is_file()]
        if not found:
            parser.error(f"{folder} is none of the checkouts that are known")
        for compare in found:
            compare(folder.resolve())


if __name__ == "__main__":
    main()

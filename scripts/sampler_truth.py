"""Every zero-shot sampler against a posterior that is known: gain and variance with an exact Gaussian prior.

    python -m scripts.sampler_truth FOLDER [--steps 20 100 1000]

Images are white with the variance C in the network's units, so that every coefficient of A's SVD is a scalar problem
y = x + tau n. Writes `truth.csv`, `truth.md` and `truth.png` into FOLDER; docs/samplers.md shows them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor

from bench.contract import methods
from bench.operators import Operator
from bench.operators.average import Average
from methods.diffusion.exact import ExactDenoiser, Mixture
from methods.diffusion.prior import DiffusionPrior
from methods.diffusion.sampler import DiffusionSampler, Task
from methods.diffusion.schedule import linear
from methods.diffusion.unet import UnetConfig

SIZE = 32
ROWS: dict[str, dict[str, Any]] = {
    "DDRM": {"name": "ddrm"},
    "DDNM+": {"name": "ddnm"},
    "PiGDM, full rule": {"name": "pigdm"},
    "PiGDM, as coded": {"name": "pigdm", "rule": "code"},
    "DiffPIR, consistent units": {"name": "diffpir", "clip": False},
    "DiffPIR, as coded": {"name": "diffpir", "clip": False, "as_coded": True},
    "RED-diff": {"name": "reddiff"},
    "DAPS, exact conditional step": {"name": "daps", "conditional": "exact", "assumed_sigma": None},
    "DAPS, as configured": {"name": "daps"},
    "PnP-DM, rho 0.15": {"name": "pnpdm"},
    "DPS, zeta 1": {"name": "dps", "clip": False, "guidance": 1.0},
}
"""Rows of the table; steps are those of the outer loop."""


class Found(NamedTuple):
    """Gain and variance in range(A^T), and the variance in null(A) over C."""

    gain: float
    variance: float
    null: float


def white(variance: float, dimension: int) -> Mixture:
    """Independent values of one variance around 0."""
    one = torch.ones(1, dtype=torch.float64)
    mean = torch.zeros(1, dimension, dtype=torch.float64)
    return Mixture(one, mean, mean[..., None][..., :0], mean[:, :0], variance * one)


def geometric(steps: int, lowest: float = 1e-3, highest: float = 20.0) -> Tensor:
    """alpha_bar of levels that are evenly spaced in their logarithm, [steps]."""
    return 1 / (1 + torch.logspace(torch.tensor(lowest).log10(), torch.tensor(highest).log10(), steps).double() ** 2)


class Truth:
    """A white prior of variance C, and y whose coefficients A^+ y are all 1 and have the noise tau.

    Args:
        c: variance of the prior, in the network's units.
        tau: standard deviation of the noise over the singular value, for average pooling by 2.
        rows: images; each is 2304 scalar problems that are not seen and 768 that are.
        alpha_bar: schedule.
        operator: another one than average pooling, whose sigma counts then.

    """

    def __init__(
        self, c: float, tau: float, rows: int = 8, alpha_bar: Tensor | None = None, operator: Operator | None = None
    ) -> None:
        operator = operator or Average(SIZE, 2, sigma=tau / 4, range=None, dtype=torch.float64)  # s = 1 / 2
        kept = linear() if alpha_bar is None else alpha_bar
        self.c = c
        self.shape = (rows, 3, SIZE, SIZE)
        self.prior = DiffusionPrior(ExactDenoiser(white(c, 3 * SIZE * SIZE), kept), kept, "clean")
        svd = operator.svd()
        x = svd.v(torch.where(svd.s > 0, 1.0, 0.0).double().expand(self.shape))
        self.task = Task(operator, operator.forward((x + 1) / 2))

    @torch.no_grad()
    def coefficients(self, method: DiffusionSampler, seed: int = 0) -> Tensor:
        """Coefficients of samples [rows, 3, H, W]."""
        generator = torch.Generator().manual_seed(seed)
        x = method.trajectory(self.task, lambda: torch.randn(self.shape, generator=generator, dtype=torch.float64))
        return self.task.svd.v_t(x)


def make_sampler(name: str, prior: DiffusionPrior, steps: int, **settings: Any) -> DiffusionSampler:
    """A sampler on a prior that needs no file."""
    method = methods.get(name)(unet=UnetConfig(size=SIZE), weights="", steps=steps, **settings)  # type: ignore[call-arg]
    assert isinstance(method, DiffusionSampler)
    method.prior = prior
    return method


def measure(
    name: str, c: float, tau: float, steps: int, rows: int = 8, alpha_bar: Tensor | None = None, **settings: Any
) -> Found:
    """Run a sampler on a scalar problem."""
    truth = Truth(c, tau, rows, alpha_bar)
    values = truth.coefficients(make_sampler(name, truth.prior, steps, **settings))
    seen, unseen = values[..., truth.task.s > 0], values[..., truth.task.s == 0]
    return Found(float(seen.mean()), float(seen.var()), float(unseen.var()) / c)


def table(steps: list[int], c: float, tau: float) -> pd.DataFrame:
    """A line for each sampler and number of steps; ratios are those to the posterior's."""
    variance = c * tau**2 / (c + tau**2)
    lines = []
    for title, settings in ROWS.items():
        for n in steps:
            rows = 8 if n <= 100 else 16 if settings["name"] == "diffpir" else 2  # those of many evaluations take long
            found = measure(**settings, c=c, tau=tau, steps=n, rows=rows)
            print(title, n, found, flush=True)
            line = {"sampler": title, "C": c, "tau": tau, "steps": n, "gain": found.gain, "variance": found.variance}
            lines.append(line | {"variance ratio": found.variance / variance, "null ratio": found.null})
    return pd.DataFrame(lines)


def plot(frame: pd.DataFrame, path: Path) -> None:
    """Gain and the two variance ratios of each sampler, a mark for each number of steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.5), layout="constrained")
    titles = list(dict.fromkeys(frame["sampler"]))[::-1]
    c, tau = frame["C"].iloc[0], frame["tau"].iloc[0]
    columns = (
        ("gain", "gain in range(A^T)", c / (c + tau**2)),
        ("variance ratio", "variance ratio in range(A^T)", 1.0),
        ("null ratio", "variance ratio in null(A)", 1.0),
    )
    for axes, (column, label, right) in zip(figure.subplots(1, 3, sharey=True), columns, strict=True):
        for steps, group in frame.groupby("steps"):
            axes.scatter(group[column], [titles.index(s) for s in group["sampler"]], label=f"{steps} steps", s=24)
        axes.axvline(right, color="black", linewidth=0.8)
        axes.set_xlabel(label)
        axes.set_yticks(range(len(titles)), titles)
        axes.grid(axis="y", linewidth=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Write the table and the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, nargs="+", default=[20, 100, 1000])
    parser.add_argument("--variance", type=float, default=1.0, help="C")
    parser.add_argument("--tau", type=float, default=0.4)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    frame = table(arguments.steps, arguments.variance, arguments.tau)
    frame.to_csv(arguments.folder / "truth.csv", index=False, float_format="%.4f")
    (arguments.folder / "truth.md").write_text(frame.round(3).to_markdown(index=False) + "\n")
    plot(frame, arguments.folder / "truth.png")


if __name__ == "__main__":
    main()

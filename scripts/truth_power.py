"""Which statistics reject which sampler, on images whose posterior is known: the power table of docs/truth.md.

    python -m scripts.truth_power --images 200 --n 5 32

prints, per statistic and sampler, the value and its distance from the right value in half-widths of the 95% interval
(or over its bound). Samplers are made from the exact posterior: its samples, those with half and twice the spread
around the posterior mean, with brighter pixels (`BIAS`), at a temperature of 0.8, rounded to 8 bits, clipped
to [0, 1], of the prior, and the posterior mean.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from bench.contract import Noise
from bench.data.gaussians import Gaussians
from bench.metrics import Evaluation
from bench.metrics.statistic import Conditions, Estimate, load_statistics, statistics
from bench.operators import make_operator
from bench.posterior import Posterior
from bench.run.draw import observe

BIAS = 0.02
"""Of the biased sampler, in intensities: five 8-bit levels."""
SAMPLERS = (
    "oracle",
    "half spread",
    "twice spread",
    "biased",
    "prior",
    "posterior mean",
    "tau 0.8",
    "rounded",
    "clipped",
)


def samplers(posterior: Posterior, mean: Tensor, y: Tensor, noise: Noise) -> Iterator[tuple[str, Tensor]]:
    """Names and samples [1, n, 3, H, W] given one observation [1, 3, h, w] and its posterior mean [3, H, W]."""
    x = posterior.sample(y, noise).float()
    yield "oracle", x
    yield "half spread", mean + 0.5 * (x - mean)
    yield "twice spread", mean + 2 * (x - mean)
    yield "biased", x + BIAS
    yield "prior", posterior.mixture.sample(noise).float()
    yield "posterior mean", mean[None, None]
    yield "tau 0.8", mean + 0.8 * (x - mean)
    yield "rounded", (x * 255).round() / 255
    yield "clipped", x.clamp(0, 1)


def measure(images: int, n: int, scale: int = 4, sigma: float = 0.05, size: int = 32) -> dict[str, dict[str, Estimate]]:
    """Estimates by sampler and statistic on the first images of gaussians."""
    dataset = Gaussians(size=size)
    operator = make_operator({"name": "bicubic", "sigma": sigma}, scale, size, range=dataset.range)
    exact, posterior = operator.to("cpu", torch.float64), Posterior(dataset.mixture, operator)
    loaded = load_statistics(posterior=True)
    figures: dict[str, dict[str, list[np.ndarray]]] = {s: {name: [] for name in loaded} for s in SAMPLERS}
    for index in range(images):
        hr, y = observe(dataset, index, exact, 0)
        noise = Noise(0, [dataset.ids[index]], range(n))
        mean = posterior.given(y).mean.float()
        for name, x in samplers(posterior, mean, y[None], noise):
            e = Evaluation(hr[None], y[None], x, operator, x.shape[1] == 1, posterior=posterior, n=n)
            for statistic, compute in loaded.items():
                figures[name][statistic].append(compute(e).double().numpy())
    return {
        name: {
            s: loaded[s].estimate(np.concatenate(rows), Conditions(n, sigma, name == "posterior mean"))
            for s, rows in found.items()
        }
        for name, found in figures.items()
    }


def table(found: dict[str, dict[str, Estimate]]) -> str:
    """Markdown: a line per statistic, a column per sampler; bold where the right value is ruled out."""
    lines = ["| | right | " + " | ".join(SAMPLERS) + " |", "|---" * (len(SAMPLERS) + 2) + "|"]
    for name in found["oracle"]:
        facts = statistics.facts(name)
        right = found["oracle"][name].right
        cells = [cell(found[s][name], facts.digits, facts.bound) for s in SAMPLERS]
        lines.append(f"| `{name}` | {'' if np.isnan(right) else format(right, facts.digits)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(e: Estimate, digits: str, bound: bool) -> str:
    """The value and its distance from the right value."""
    if np.isnan(e.value):
        return "n/a"
    distance = format(e.distance, "+.1f").replace("inf", "∞")
    text = f"{format(e.value, digits)} ({distance})"
    return f"**{text}**" if e.distance > 1 or (e.distance < -1 and not bound) else text


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--n", type=int, nargs="+", default=[5, 32])
    parser.add_argument("--sigma", type=float, default=0.05)
    arguments = parser.parse_args()
    for n in arguments.n:
        print(f"\n{arguments.images} images, n={n}, sigma {arguments.sigma:g}\n")
        print(table(measure(arguments.images, n, sigma=arguments.sigma)))


if __name__ == "__main__":
    main()

"""Which statistics reject which sampler, on images whose posterior is known: the tables of docs/truth.md.

    python -m scripts.truth_power --images 200 --n 5 32
    python -m scripts.truth_power --images 200 --n 5 --moved
    python -m scripts.truth_power --images 200 --n 32 --pairs

prints, per statistic and sampler, the value and its distance from the right value in half-widths of the 95% interval
(or over its bound). Samplers are made from the exact posterior: its samples, those with half and twice the spread
around the posterior mean, with brighter pixels (`BIAS`), at a temperature of 0.8, rounded to 8 bits, clipped
to [0, 1], of the prior, and the posterior mean.

With ``--moved``: by how much rounding, clipping and projecting exact samples moves each statistic, alone and where the
truth is rounded or clipped as well, as it is in photographs.

With ``--pairs``: whether scores of exact sets are biased against each other, or their intervals too short: sixteen sets
for each image in eight independent pairs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from bench.contract import Noise
from bench.data.gaussians import Gaussians
from bench.metrics import Evaluation
from bench.metrics.statistic import Conditions, Estimate, Statistic, load_statistics, statistics
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


Made = Iterator[tuple[str, Tensor, Tensor]]
"""Names, samples [1, n, 3, H, W] and the truth [1, 3, H, W] that they are held against."""


def samplers(posterior: Posterior, hr: Tensor, y: Tensor, noise: Noise) -> Made:
    """Of one image [1, 3, H, W] and its observation [1, 3, h, w]: samples that are right, and wrong in known ways."""
    x, mean = posterior.sample(y, noise).float(), posterior.given(y[0]).mean.float()
    yield "oracle", x, hr
    yield "half spread", mean + 0.5 * (x - mean), hr
    yield "twice spread", mean + 2 * (x - mean), hr
    yield "biased", x + BIAS, hr
    yield "prior", posterior.mixture.sample(noise).float(), hr
    yield "posterior mean", mean[None, None], hr
    yield "tau 0.8", mean + 0.8 * (x - mean), hr
    yield "rounded", rounded(x), hr
    yield "clipped", x.clamp(0, 1), hr


def rounded(x: Tensor) -> Tensor:
    """To 8-bit levels, without clipping."""
    return (x * 255).round() / 255


def processed(posterior: Posterior, hr: Tensor, y: Tensor, noise: Noise) -> Made:
    """As `samplers`: exact samples as a run or a method may change them, and the truth as it is or changed alike."""
    x = posterior.sample(y, noise).float()
    yield "oracle", x, hr
    yield "rounded", rounded(x), hr
    yield "clipped", x.clamp(0, 1), hr
    yield "rounded, truth too", rounded(x), rounded(hr)
    yield "clipped, truth too", x.clamp(0, 1), hr.clamp(0, 1)
    operator = posterior.operator
    yield "projected", operator.project(x.double(), y[:, None].double()).float(), hr


Make = Callable[[Posterior, Tensor, Tensor, Noise], Made]


def measure(
    images: int, n: int, sigma: float = 0.05, make: Make = samplers, leave_out: tuple[str, ...] = ()
) -> dict[str, dict[str, Estimate]]:
    """Estimates by sampler and statistic on the first images of gaussians."""
    loaded = {name: s for name, s in load_statistics(posterior=True).items() if name not in leave_out}
    found = figures_of(loaded, images, n, sigma, make)
    return {
        name: {
            s: loaded[s].estimate(np.concatenate(rows), Conditions(n, sigma, name == "posterior mean"))
            for s, rows in of.items()
        }
        for name, of in found.items()
    }


def figures_of(
    loaded: Mapping[str, Statistic], images: int, n: int, sigma: float, make: Make
) -> dict[str, dict[str, list[np.ndarray]]]:
    """Figures of images by sampler and statistic on the first images of gaussians, 32 pixels, x4."""
    dataset = Gaussians(size=32)
    operator = make_operator({"name": "bicubic", "sigma": sigma}, 4, 32, range=dataset.range)
    exact, posterior = operator.to("cpu", torch.float64), Posterior(dataset.mixture, operator)
    figures: dict[str, dict[str, list[np.ndarray]]] = {}
    for index in range(images):
        hr, y = observe(dataset, index, exact, 0)
        noise = Noise(0, [dataset.ids[index]], range(n))
        for name, x, truth in make(posterior, hr[None], y[None], noise):
            e = Evaluation(truth, y[None], x, operator, x.shape[1] == 1, posterior=posterior, n=n)
            of_sampler = figures.setdefault(name, {statistic: [] for statistic in loaded})
            for statistic, compute in loaded.items():
                of_sampler[statistic].append(compute(e).double().numpy())
    return figures


def pairs(images: int, n: int, sigma: float, count: int = 8, resamplings: int = 2000) -> str:
    """Exact sets scored against each other: standard errors of the means, intervals that miss 0, their correlation."""
    named = [f"{pair}{half}" for pair in range(count) for half in "ab"]
    loaded = {name: statistics.get(name)() for name in ("energy", "crps")}

    def sets(posterior: Posterior, hr: Tensor, y: Tensor, noise: Noise) -> Made:
        for number, name in enumerate(named):
            yield name, posterior.sample(y, Noise(1 + number, noise.ids, range(n))).float(), hr

    found = figures_of(loaded, images, n, sigma, sets)
    scores = {s: [np.concatenate(found[name][s])[:, 0] for name in named] for s in loaded}
    differences = {s: np.stack(of[::2]) - np.stack(of[1::2]) for s, of in scores.items()}
    rng, lines = np.random.default_rng(0), []
    for s, d in differences.items():
        z = d.mean(1) / (d.std(1, ddof=1) / np.sqrt(images))
        missed = 0
        for k in range(resamplings):
            turned = np.stack([d[k % count] * rng.choice([-1, 1], images), np.zeros(images)], 1)
            missed += abs(loaded[s].estimate(turned, Conditions(n, sigma)).distance) > 1
        share = f"intervals miss 0 in {missed / resamplings:.1%}"
        lines.append(f"{s}: means within {np.abs(z).max():.2f} standard errors of 0, {share}")
    lines.append(f"correlation of both: {np.corrcoef(*(d.ravel() for d in differences.values()))[0, 1]:.2f}")
    return "\n".join(lines)


def moved(images: int, n: int, sigma: float) -> dict[str, dict[str, float]]:
    """What `processed` samples move: by process and statistic, the value minus that of exact samples."""
    found = measure(images, n, sigma=sigma, make=processed, leave_out=("c2st",))
    exact = found.pop("oracle")
    return {name: {s: e.value - exact[s].value for s, e in of.items()} for name, of in found.items()}


def moved_table(found: dict[str, dict[str, float]]) -> str:
    """Markdown: a line per statistic, a column per process."""
    lines = ["| | " + " | ".join(found) + " |", "|---" * (len(found) + 1) + "|"]
    for name in next(iter(found.values())):
        lines.append(f"| `{name}` | " + " | ".join(f"{of[name]:+.4f}" for of in found.values()) + " |")
    return "\n".join(lines)


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
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--moved", action="store_true")
    what.add_argument("--pairs", action="store_true")
    arguments = parser.parse_args()
    for n in arguments.n:
        print(f"\n{arguments.images} images, n={n}, sigma {arguments.sigma:g}\n")
        if arguments.moved:
            print(moved_table(moved(arguments.images, n, arguments.sigma)))
        elif arguments.pairs:
            print(pairs(arguments.images, n, arguments.sigma))
        else:
            print(table(measure(arguments.images, n, sigma=arguments.sigma)))


if __name__ == "__main__":
    main()

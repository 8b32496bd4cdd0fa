"""Print what weights are chosen by: perceptual distance and energy score on rendered validation faces.

    python -m scripts.choose scale=8 methods=[cvdvae] methods.cvdvae.low_weights.x8=FILE [--images 100] [--samples 5]

takes the settings of ``run``; methods, scales and temperatures may be lists. Test images have no part in it: the
faces are those of the validation split. Lower is better; APD / MSE has the right value 1 at tau 1. `--pictures FILE`
writes a PNG of the first faces at twice their size: per scale y, the truth, and a sample for each row of the table.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import hydra
import torch
from tabulate import tabulate
from torch import Tensor, nn
from torchvision.utils import make_grid
from tqdm import tqdm

from bench.config import read_config, resolve_device
from bench.contract import Noise
from bench.data import make_dataset
from bench.degradation import Degradation, quantise, to_uint8
from bench.metrics import Evaluation, load_metrics
from bench.runner import make_method, observe
from bench.store import write_png

METRICS = ("stlpips_alex", "psnr", "brisque", "lr_psnr")
BATCH = 10


def energy_score(samples: Tensor, truth: Tensor) -> Tensor:
    """Energy score of each image's samples, unbiased: smallest in expectation for samples of the posterior.

    The mean of |x_i - x| minus half the mean of |x_i - x_j| over i != j, with the Euclidean distance over all values
    divided by the square root of their number (Gneiting & Raftery 2007, section 4.3).

    Args:
        samples: [B, P, ...], P at least 2.
        truth: [B, ...].

    Returns:
        [B], in the unit of the values.

    """
    x, t = samples.flatten(2).double(), truth.flatten(1).double()
    count = x.shape[1]
    if count < 2:
        raise ValueError("the energy score needs two samples")
    root = x.shape[2] ** 0.5
    error = (x - t[:, None]).norm(dim=2).mean(1)
    # differences one by one: torch.cdist takes products, which lose the small distances of like samples
    spread = sum((x[:, i] - x[:, j]).norm(dim=1) for i in range(count) for j in range(i))
    return (error - spread / (count * (count - 1))) / root


@torch.no_grad()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--pictures", type=Path)
    arguments, words = parser.parse_known_args()
    with hydra.initialize_config_module("configs", version_base="1.3"):
        config = read_config(hydra.compose("run", words))
    device = torch.device(resolve_device(config.device))
    dataset = make_dataset({"name": "synthfaces", "size": 64, "split": "val"})
    ids = dataset.ids[: arguments.images]
    metrics = load_metrics(METRICS, device)
    lines = []
    rows: list[Tensor] = []
    for scale in config.scales:
        degradation = Degradation(scale, dataset.size, device)
        exact = Degradation(scale, dataset.size, dtype=torch.float64)
        hr, y = (
            torch.stack(part).to(device)
            for part in zip(*[observe(dataset, i, exact) for i in range(len(ids))], strict=True)
        )
        rows += [nn.functional.interpolate(y, dataset.size), hr]
        for settings in config.methods:
            method = make_method(settings)
            method.prepare(degradation, device)
            for tau in config.taus if method.facts.uses_tau else [None]:
                found: dict[str, list[Tensor]] = {}
                shown = []
                for first in tqdm(range(0, len(ids), BATCH), desc=f"{settings.label} x{scale}", unit="batch"):
                    part = slice(first, first + BATCH)
                    noise = Noise(config.seed, ids[part], range(arguments.samples), device)
                    x = quantise(method.sample(y[part], arguments.samples, tau, noise))
                    e = Evaluation(hr[part], y[part], x, degradation)
                    for name in METRICS:
                        found.setdefault(name, []).append(metrics[name](e).mean(1))
                    found.setdefault("energy", []).append(255 * energy_score(x, hr[part]))
                    found.setdefault("mse", []).append((x - hr[part, None]).square().mean((1, 2, 3, 4)))
                    found.setdefault("apd", []).append(2 * x.var(1).mean((1, 2, 3)))
                    shown.append(x[:, 0])
                mean = {name: float(torch.cat(values).double().mean()) for name, values in found.items()}
                rows.append(torch.cat(shown))
                lines.append([
                    settings.label, f"x{scale}", tau, f"{mean['stlpips_alex']:.4f}", f"{mean['energy']:.3f}",
                    f"{mean['psnr']:.2f}", f"{mean['brisque']:.1f}", f"{mean['apd'] / mean['mse']:.2f}",
                    f"{mean['lr_psnr']:.1f}",
                ])  # fmt: skip
    heads = [
        "method",
        "scale",
        "tau",
        "ST-LPIPS",
        "energy score (levels)",
        "PSNR (dB)",
        "BRISQUE",
        "APD / MSE",
        "LR-PSNR (dB)",
    ]
    print(tabulate(lines, headers=heads, tablefmt="pipe", disable_numparse=True))
    if arguments.pictures:
        faces = min(10, len(ids))
        grid = make_grid(torch.cat([r[:faces] for r in rows]).cpu(), nrow=faces, padding=1)
        write_png(
            arguments.pictures,
            to_uint8(nn.functional.interpolate(grid[None], scale_factor=2)[0]).permute(1, 2, 0).numpy(),
        )


if __name__ == "__main__":
    main()

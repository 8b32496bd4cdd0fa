"""Print what weights are chosen by: perceptual distance and energy score on validation faces.

    python -m scripts.choose scale=8 methods=[cvdvae] methods.cvdvae.low_weights.x8=FILE [--images 100] [--samples 5]

takes the settings of ``run`` but ``dataset``; methods, scales and temperatures may be lists. Test images have no part
in it: the faces are rendered ones of the validation split; with `--photographs`, the 8 train photographs that
``dataset=shipped`` holds out, augmented. Lower is better; APD / MSE has the right value 1 at tau 1.
`--pictures FILE` writes a PNG of the first faces at twice their size: per scale y, the truth, and a sample for each row
of the table.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from tabulate import tabulate
from torch import Tensor, nn
from torchvision.utils import make_grid
from tqdm import tqdm

from bench.config import compose, read_config
from bench.data import make_dataset
from bench.files import write_png
from bench.metrics import Evaluation, load_metrics
from bench.metrics.calibration import energy_score, gram
from bench.operators import to_uint8
from bench.run.draw import Sampler, observe
from bench.run.selection import dataset_operator, prepared_method

METRICS = ("stlpips_alex", "psnr", "brisque", "lr_psnr")
BATCH = 10
RENDERED = ["dataset=synthfaces"]
PHOTOGRAPHS = ["dataset=shipped", "dataset.parts.synthfaces.weight=0"]
VALIDATION = ["dataset.split=val", "dataset.size=64"]


@torch.no_grad()
def main(given: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--photographs", action="store_true")
    parser.add_argument("--pictures", type=Path)
    arguments, words = parser.parse_known_args(given)
    faces = PHOTOGRAPHS if arguments.photographs else RENDERED
    config = read_config(compose("run", [*words, *faces, *VALIDATION]))
    device = torch.device(config.device)
    dataset = make_dataset(config.dataset)
    ids = dataset.ids[: arguments.images]
    metrics = load_metrics(METRICS, device)
    lines = []
    rows: list[Tensor] = []
    for scale in config.scales:
        operator = dataset_operator(config, dataset, scale, device)
        exact = operator.to("cpu", torch.float64)
        observed = [observe(dataset, i, exact, config.seed) for i in range(len(ids))]
        hr, y = (torch.stack(part).to(device) for part in zip(*observed, strict=True))
        rows += [nn.functional.interpolate(y, dataset.size), hr]
        for settings in config.methods:
            method = prepared_method(config, settings, dataset, scale)
            sampler = Sampler(method, settings.label, config.seed, arguments.samples)
            for tau in config.taus if method.facts.uses_tau else [None]:
                found: dict[str, list[Tensor]] = {}
                shown = []
                for first in tqdm(range(0, len(ids), BATCH), desc=f"{settings.label} x{scale}", unit="batch"):
                    part = slice(first, first + BATCH)
                    x = sampler(y[part], ids[part], tau)
                    e = Evaluation(hr[part], y[part], x, operator)
                    for name in METRICS:
                        found.setdefault(name, []).append(metrics[name](e).mean(1))
                    found.setdefault("energy", []).append(255 * energy_score(gram(x, hr[part])))
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
        columns = min(10, len(ids))
        grid = make_grid(torch.cat([r[:columns] for r in rows]).cpu(), nrow=columns, padding=1)
        write_png(
            arguments.pictures,
            to_uint8(nn.functional.interpolate(grid[None], scale_factor=2)[0]).permute(1, 2, 0).numpy(),
        )


if __name__ == "__main__":
    main()

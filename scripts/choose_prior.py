"""Compare priors before they have encoders: samples that share the true latents up to a resolution.

    python -m scripts.choose_prior SHAPE WEIGHTS [--given 8 16] [--images 100] [--samples 3] [--tau 0.8] [--output draw]

SHAPE is a name in ``configs/network/vdvae`` or a yaml file. The groups up to 8 (16) positions a side come from the
prior's own encoder, as those for x8 (x4) would from a perfect low-resolution encoder; all others from the prior.
Nothing is projected. The faces are rendered ones of the validation split; with `--photographs`, the 8 train
photographs that ``dataset=shipped`` holds out, augmented.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from tabulate import tabulate
from torch import Tensor, nn
from torchvision.utils import make_grid

from bench.config import compose, read_config
from bench.contract import Noise
from bench.data import make_dataset
from bench.files import write_png
from bench.metrics.calibration import energy_score, gram
from bench.metrics.perceptual import load_net
from bench.operators import quantise, to_uint8
from bench.run.draw import to_image
from methods.cvdvae.distributions import Gaussian
from methods.cvdvae.vdvae import TopDownBlock, Vdvae
from methods.cvdvae.weights import load_weights
from scripts.choose import PHOTOGRAPHS, RENDERED
from scripts.grow_vdvae import read_shape


@torch.no_grad()
def complete(
    model: Vdvae, x: Tensor, n: int, given: int, tau: float, noise: Noise, output: str
) -> tuple[Tensor, dict[int, float]]:
    """Draw images that share an image's latents up to a resolution.

    Args:
        model: the prior.
        x: [B, 3, H, H] in [0, 1].
        n: samples of each.
        given: largest resolution whose groups are drawn from q_phi(z | x).
        tau: temperature of the other groups.
        noise: draws [B, n, ...].
        output: "draw", "mean" or "mode" of the output's mixture.

    Returns:
        [B, n, 3, H, H] in [0, 1], and the rate in bits per dimension by resolution, of the given groups.

    """
    features = {r: f.repeat_interleave(n, 0) for r, f in model.features(x).items()}
    rates: dict[int, float] = {}

    def choose(l: int, block: TopDownBlock, state: Tensor, prior: Gaussian) -> Tensor:
        r = block.resolution
        normal = noise.normal(block.zdim, r, r).flatten(0, 1)
        if r > given:
            return prior.draw(normal, tau)
        q = block.posterior(block.enc, state, features[r])
        rate = q.kl(prior).sum((1, 2, 3)).mean() / x[0].numel() / math.log(2)
        rates[r] = rates.get(r, 0.0) + float(rate)
        return q.draw(normal)

    mixture = model.mixture(model.decoder(choose).float())
    size, mixtures = model.config.size, model.config.mixtures
    if output == "draw":
        uniform = noise.uniform(mixtures, size, size), noise.uniform(3, size, size)
        drawn = mixture.draw(*(u.flatten(0, 1) for u in uniform))
    else:
        drawn = mixture.mean() if output == "mean" else mixture.mode()
    return ((drawn + 1) / 2).unflatten(0, (len(x), n)), rates


@torch.no_grad()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape")
    parser.add_argument("weights")
    parser.add_argument("--given", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--tau", type=float, default=0.8)
    parser.add_argument("--output", choices=("draw", "mean", "mode"), default="draw")
    parser.add_argument("--photographs", action="store_true")
    parser.add_argument("--pictures", type=Path)
    a = parser.parse_args()
    model = read_shape(a.shape).eval()
    load_weights(model, a.weights)
    words = [*(PHOTOGRAPHS if a.photographs else RENDERED), "dataset.split=val", f"dataset.size={model.config.size}"]
    dataset = make_dataset(read_config(compose("run", words)).dataset)
    ids = dataset.ids[: a.images]
    hr = torch.stack([to_image(dataset.load(i)).float() for i in range(len(ids))])
    net = load_net("stlpips_alex", torch.device("cpu"))
    lines, rows = [], [hr]
    for given in a.given:
        found: dict[str, list[Tensor]] = {"st": [], "energy": [], "psnr": [], "mse": [], "apd": []}
        totals: dict[int, float] = {}
        shown = []
        for first in range(0, len(ids), 10):
            part = slice(first, first + 10)
            x = hr[part]
            noise = Noise(0, ids[part], range(a.samples))
            samples, rates = complete(model, x, a.samples, given, a.tau, noise, a.output)
            samples = quantise(samples)
            truth = [f.repeat_interleave(a.samples, 0) for f in net.embed(x)]
            found["st"].append(net.distance(net.embed(samples.flatten(0, 1)), truth))
            found["energy"].append(255 * energy_score(gram(samples, x)))
            mse = (samples - x[:, None]).square().mean((2, 3, 4))
            found["psnr"].append(-10 * mse.log10().flatten())
            found["mse"].append(mse.mean(1))
            found["apd"].append(2 * samples.var(1).mean((1, 2, 3)))
            totals = {r: totals.get(r, 0.0) + len(x) / len(ids) * rate for r, rate in rates.items()}
            shown.append(samples[:, 0])
        rows.append(torch.cat(shown))
        st, energy, psnr, mse, apd = (float(torch.cat(values).mean()) for values in found.values())
        bits = ", ".join([f"{sum(totals.values()):.3f}", *(f"{r}: {rate:.4f}" for r, rate in totals.items())])
        lines.append([given, a.tau, f"{st:.4f}", f"{energy:.3f}", f"{psnr:.2f}", f"{apd / mse:.2f}", bits])
    heads = [
        "given up to",
        "tau",
        "ST-LPIPS",
        "energy score (levels)",
        "PSNR (dB)",
        "APD / MSE",
        "bits per dimension, and by resolution",
    ]
    print(tabulate(lines, headers=heads, tablefmt="pipe", disable_numparse=True))
    if a.pictures:
        faces = min(10, len(ids))
        grid = make_grid(torch.cat([r[:faces] for r in rows]), nrow=faces, padding=1)
        write_png(
            a.pictures, to_uint8(nn.functional.interpolate(grid[None], scale_factor=2)[0]).permute(1, 2, 0).numpy()
        )


if __name__ == "__main__":
    main()

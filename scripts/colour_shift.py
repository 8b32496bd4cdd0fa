"""Print the effect of the projection on SR3's colour shift, with and without it, on rendered test faces.

    python -m scripts.colour_shift [--images 12] [--samples 2]

The shift is the mean over images, samples and colours of the absolute difference between the mean intensity of a sample
and that of the observation, in 8-bit levels.
"""

from __future__ import annotations

import argparse

import torch
from tabulate import tabulate

from bench.config import compose, read_config
from bench.contract import Noise
from bench.data import make_dataset
from bench.load import make_method
from bench.metrics import Evaluation, load_metrics
from bench.operators import quantise
from bench.operators.bicubic import Bicubic
from bench.run.draw import observe

METRICS = ("psnr", "lr_psnr", "stlpips_alex")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--samples", type=int, default=2)
    arguments = parser.parse_args()
    dataset = make_dataset({"name": "synthfaces", "size": 64, "split": "test"})
    metrics = load_metrics(METRICS, "cpu")
    lines = []
    for scale in (4, 8):
        operator = Bicubic(64, scale)
        exact = operator.to("cpu", torch.float64)
        loaded = [observe(dataset, i, exact, 0) for i in range(arguments.images)]
        hr, y = (torch.stack(part) for part in zip(*loaded, strict=True))
        for project in (False, True):
            words = ["methods=[sr3]", f"methods.sr3.project={str(project).lower()}"]
            method = make_method(read_config(compose("run", words)).methods[0])
            method.prepare(operator)
            noise = Noise(0, dataset.ids[: len(y)], range(arguments.samples))
            samples = quantise(method.sample(y, arguments.samples, None, noise))
            shift = 255 * (samples.mean((-1, -2)) - y.mean((-1, -2))[:, None]).abs().mean()
            e = Evaluation(hr, y, samples, operator)
            values = [f"{float(metrics[m](e).mean()):.3f}" for m in METRICS]
            lines.append([f"x{scale}", "yes" if project else "no", f"{float(shift):.2f}", *values])
    heads = ["scale", "projected", "colour shift (8-bit levels)", *METRICS]
    print(tabulate(lines, headers=heads, tablefmt="pipe", disable_numparse=True))


if __name__ == "__main__":
    main()

"""How far the variants of bicubic shrinking lie apart: the table of docs/protocol.md.

python -m scripts.operator_variants [IMAGES] [SIZE]
"""

from __future__ import annotations

import sys

import numpy as np
import torch

from bench.data import make_dataset
from bench.operators.bicubic import Bicubic
from bench.run.draw import to_image

VARIANTS = {"rounding=each_axis": {"rounding": "each_axis"}, "kernel=cem": {"kernel": "cem"}}


def main(count: int = 20, size: int = 256) -> None:
    """Print PSNR and differing values of each variant's y against the default's, over test images of synthfaces."""
    dataset = make_dataset({"name": "synthfaces", "size": size, "split": "test"})
    images = [to_image(dataset.load(i))[None] for i in range(count)]
    for scale in (4, 8):
        plain = [Bicubic(size, scale, dtype=torch.float64).observe(x) for x in images]
        for name, settings in VARIANTS.items():
            operator = Bicubic(size, scale, dtype=torch.float64, **settings)  # type: ignore[arg-type]
            levels = [(255 * (operator.observe(x) - y)).round() for x, y in zip(images, plain, strict=True)]
            psnr = np.mean([-10 * np.log10(float(d.square().mean()) / 255**2) for d in levels])
            share = np.mean([float((d != 0).double().mean()) for d in levels])
            most = max(float(d.abs().max()) for d in levels)
            print(f"x{scale} {name}: {psnr:.1f} dB, {100 * share:.1f}% differ, by {most:.0f} levels at most")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

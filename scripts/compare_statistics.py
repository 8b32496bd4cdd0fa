"""Compare image statistics of synthfaces with those of a folder of photographs.

    python -m scripts.compare_statistics FOLDER_OF_256_PIXEL_IMAGES

Prints, at 64 and 256 pixels, the slope of the radially averaged power spectrum, mean BRISQUE and the mean and standard
deviation of the intensities. Photographs are shrunk to 64 pixels with MATLAB's bicubic kernel.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from bench.data import make_dataset
from bench.metrics.brisque import brisque
from bench.operators import quantise
from bench.operators.bicubic import Bicubic


def spectrum_slope(images: torch.Tensor) -> float:
    """Slope of log power over log frequency of [N, 3, H, H] in [0, 1].

    The power of the Hann-windowed luma is averaged over images and over rings of one cycle per image; the line is
    fitted from 3 cycles per image to 0.9 of the Nyquist frequency, every octave with the same weight.
    """
    luma = (images.double() * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1)
    side = luma.shape[-1]
    window = torch.hann_window(side, periodic=False, dtype=torch.float64)
    centred = (luma - luma.mean((1, 2), keepdim=True)) * window * window[:, None]
    power = torch.fft.fft2(centred).abs().square().mean(0)
    frequency = torch.fft.fftfreq(side) * side
    ring = (frequency.square()[:, None] + frequency.square()).sqrt().round().long()
    radial = torch.zeros(int(ring.max()) + 1, dtype=torch.float64).index_add_(0, ring.flatten(), power.flatten())
    radial /= torch.bincount(ring.flatten())
    cycles = np.arange(3, int(0.45 * side) + 1)
    return float(np.polyfit(np.log(cycles), np.log(radial[cycles].numpy()), 1, w=1 / np.sqrt(cycles))[0])


def load(config: dict[str, object], count: int) -> torch.Tensor:
    """The first images of a dataset, float32 [N, 3, H, H] in [0, 1]."""
    dataset = make_dataset(config)
    arrays = [dataset.load(i) for i in range(min(count, len(dataset)))]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="photographs of at least 256x256 pixels")
    parser.add_argument("--count", type=int, default=160, help="images of each kind")
    arguments = parser.parse_args()
    photographs = load({"name": "folder", "path": str(arguments.folder), "size": 256}, arguments.count)
    print(f"{'size':>4} {'images':>11} {'slope':>7} {'BRISQUE':>8} {'mean':>6} {'std':>6}")
    for size in (64, 256):
        rendered = load({"name": "synthfaces", "split": "train", "size": size}, arguments.count)
        shrunk = photographs if size == 256 else quantise(Bicubic(256, 256 // size).forward(photographs))
        for name, images in (("photographs", shrunk), ("synthfaces", rendered)):
            quality = torch.cat([brisque(x) for x in images.split(16)]).nanmean()
            print(
                f"{size:>4} {name:>11} {spectrum_slope(images):>7.2f} {quality:>8.1f} "
                f"{images.mean():>6.3f} {images.std():>6.3f}"
            )


if __name__ == "__main__":
    main()

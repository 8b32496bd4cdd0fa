"""Fit the Gaussian mixture of ``dataset=gaussians`` to rendered faces and write its file.

    python -m scripts.fit_gaussians [--images 8000] [--components 6] [--rank 36] [--out FILE]

Faces are sorted into components by k-means on their 8x8 averages; every component is a probabilistic principal
component analysis (Tipping & Bishop 1999): the leading directions with their variances less that of the rest, which is
spread evenly over all directions. The result does not depend on anything but the arguments.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from scipy.cluster.vq import kmeans2

from bench.data.gaussians import FILE
from bench.data.synthfaces import Synthfaces

CHUNK = 64


def faces(count: int, size: int = 64) -> np.ndarray:
    """Rendered training faces [count, 3 * size * size], float32 in [0, 1]."""
    dataset = Synthfaces("train", size)
    chunks = [dataset.load_many(range(i, min(i + CHUNK, count))) for i in range(0, count, CHUNK)]
    return np.concatenate(chunks).transpose(0, 3, 1, 2).reshape(count, -1).astype(np.float32) / 255


def fit(x: np.ndarray, components: int, rank: int, size: int = 64) -> dict[str, torch.Tensor]:
    """Fit the mixture to images [N, D]; tensors of the file."""
    images = torch.from_numpy(x).view(-1, 3, size, size)
    low = torch.nn.functional.avg_pool2d(images, 8).flatten(1).double().numpy()
    _, labels = kmeans2(low, components, minit="++", seed=np.random.default_rng(0), iter=50)
    weights, means, factors, stds = [], [], [], []
    for k in range(components):
        members = x[labels == k].astype(np.float64)
        mean = members.mean(0)
        centred = members - mean
        # the Gram matrix of the images is smaller than the covariance of the pixels
        values, vectors = np.linalg.eigh(centred @ centred.T / len(members))
        values, vectors = values[::-1][:rank], vectors[:, ::-1][:, :rank]
        directions = (centred.T @ vectors / np.sqrt(len(members) * values)).T
        rest = (np.square(centred).sum() / len(members) - values.sum()) / (x.shape[1] - rank)
        # the sign of a direction is arbitrary: its largest value is positive
        directions *= np.sign(directions[np.arange(rank), np.abs(directions).argmax(1)])[:, None]
        weights.append(len(members) / len(x))
        means.append(mean)
        factors.append(directions * np.sqrt(values - rest)[:, None])
        stds.append(np.sqrt(rest))
    shape = (3, size, size)
    return {
        "weights": torch.tensor(weights),
        "means": torch.from_numpy(np.stack(means)).half().unflatten(1, shape),
        "factors": torch.from_numpy(np.stack(factors)).half().unflatten(2, shape),
        "stds": torch.tensor(np.stack(stds)),
    }


def main() -> None:
    """Fit and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8000)
    parser.add_argument("--components", type=int, default=6)
    parser.add_argument("--rank", type=int, default=36)
    parser.add_argument("--out", type=Path, default=FILE)
    arguments = parser.parse_args()
    tensors = fit(faces(arguments.images), arguments.components, arguments.rank)
    save_file({k: t.contiguous() for k, t in tensors.items()}, arguments.out)
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.1f} MB, s = {tensors['stds'].numpy().round(4)}")


if __name__ == "__main__":
    main()

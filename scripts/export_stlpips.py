"""Make, or check, the data file of shift-tolerant LPIPS from the package it comes from, and the figures of its tests.

    pip install stlpips_pytorch==0.0.2 torchsummary ipython    # in an environment of its own
    python -m scripts.export_stlpips [--check] [--figures]

Without options it writes bench/metrics/stlpips_alex.safetensors. ``--check`` compares that file with the package's
byte for byte; ``--figures`` prints the package's own distances for `pairs`, which the tests hold ours against.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import io
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.metrics.stlpips import FILE

NAMES = {
    "net.slice1.0": "conv1",
    "net.slice2.5": "conv2",
    "net.slice3.9": "conv3",
    "net.slice4.11": "conv4",
    "net.slice5.13": "conv5",
    **{f"lin{k}.model.1": f"lin{k + 1}" for k in range(5)},
}
TARGET = Path(__file__).parents[1] / "bench" / "metrics" / FILE


def source_file() -> Path:
    """The weights in the installed package."""
    spec = importlib.util.find_spec("stlpips_pytorch")
    if spec is None or spec.origin is None:
        raise SystemExit("stlpips_pytorch is not installed: pip install stlpips_pytorch==0.0.2.")
    return Path(spec.origin).parent / "weights" / "vST0.0" / "alex_shift_tolerant.pth"


def export(path: Path) -> bytes:
    """The data file: the package's tensors under our names, without the fixed blur filters and normalisation."""
    from safetensors.torch import save

    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    origin = f"stlpips_pytorch 0.0.2, weights/vST0.0/{path.name}, sha256 {digest}, BSD-2-Clause"
    tensors = {}
    for key, tensor in torch.load(path, map_location="cpu", weights_only=True).items():
        layer, _, kind = key.rpartition(".")
        if layer in NAMES:
            name = NAMES[layer]
            tensors[name if name.startswith("lin") else f"{name}.{kind}"] = tensor.contiguous()
    return save(tensors, metadata={"origin": origin})  # one entry: their order would be left to chance


def pairs() -> dict[str, tuple[Tensor, Tensor]]:
    """Pairs of images float32 [1, 3, H, W] in [0, 1]: photographs with noise, blurred or shifted, and random images."""
    import skimage.data

    random = np.random.default_rng(14)
    photographs = {
        "astronaut": (skimage.data.astronaut(), 30, 190),
        "coffee": (skimage.data.coffee(), 100, 200),
    }
    made = {}
    for name, (photograph, top, left) in photographs.items():
        for side in (33, 64, 128, 200):
            x = photograph[top : top + side, left : left + side].transpose(2, 0, 1) / 255
            noisy = (x + 0.1 * random.standard_normal(x.shape)).clip(0, 1)
            blurred = sum(np.roll(x, (i, j), (1, 2)) for i in (-1, 0, 1) for j in (-1, 0, 1)) / 9
            made[f"{name}{side} noisy"] = (x, noisy)
            made[f"{name}{side} blurred"] = (x, blurred)
            made[f"{name}{side} shifted"] = (x, np.roll(x, 1, 2))
    for height, width in ((32, 32), (47, 64), (96, 96)):
        made[f"random {height}x{width}"] = (random.random((3, height, width)), random.random((3, height, width)))
    return {k: tuple(torch.from_numpy(np.ascontiguousarray(x)).float()[None] for x in v) for k, v in made.items()}


def figures() -> dict[str, float]:
    """The package's distances."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        from stlpips_pytorch import stlpips

        net = stlpips.LPIPS(net="alex", variant="shift_tolerant", pnet_rand=True, verbose=False)
    with torch.no_grad():
        return {name: float(net(2 * a - 1, 2 * b - 1)) for name, (a, b) in pairs().items()}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare the data file with the package's weights")
    parser.add_argument("--figures", action="store_true", help="print the package's distances")
    options = parser.parse_args()
    if options.figures:
        for name, value in figures().items():
            print(f'    "{name}": {value:.9g},')
    data = export(source_file())
    if options.check:
        same = TARGET.is_file() and TARGET.read_bytes() == data
        print(f"{TARGET.name}: {'equal to the package' if same else 'DIFFERENT from the package'}")
        raise SystemExit(not same)
    if not options.figures:
        TARGET.write_bytes(data)


if __name__ == "__main__":
    main()

"""The rate of two workers beside that of two processes that know nothing of each other, for DPS at 64 pixels.

    python -m scripts.launch_rate [--launch local|ray] [--pairs 3]

measures in pairs: two independent processes with half of the images each, one per core, then one command with two
workers. Each is run with few and with more images: the difference is free of what starting takes. Seconds are those of
the clock, and of the processor (for all processes together; not for Ray, whose workers are nobody's children).
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

SETTINGS = [
    "methods=[dps]", "methods.dps.compute.rows=5", "scale=8", "device=cpu", "launch.cpus=1", "save_samples=auto",
    "perceptual=stlpips_alex", "timing.budget=1e-9",
    "metrics=[psnr,ssim,perceptual,brisque,lr_psnr,apd_mse,apd_perceptual,diversity_perceptual]",
]  # fmt: skip


def seconds(commands: Sequence[Sequence[str]], cores: Sequence[set[int]]) -> tuple[float, float]:
    """Run commands beside each other: seconds of the clock, and of the processor."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "bench", "run", *SETTINGS, *words], stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, preexec_fn=lambda mine=mine: os.sched_setaffinity(0, mine),
        )
        for words, mine in zip(commands, cores, strict=True)
    ]  # fmt: skip
    codes = [process.wait() for process in processes]
    if any(codes):
        raise RuntimeError(f"bench ended with {codes}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - begun, used


def independent(images: int, steps: int, folder: Path, cores: Sequence[int]) -> tuple[float, float]:
    """Two processes with half of the images each."""
    half = images // 2
    words = [[f"images={a}:{a + half}", f"methods.dps.steps={steps}", f"out={folder}/{a}"] for a in (0, half)]
    return seconds(words, [{c} for c in cores])


def together(images: int, steps: int, folder: Path, cores: Sequence[int], launch: str) -> tuple[float, float]:
    """One command with two workers."""
    words = [f"launch={launch}", "launch.workers=2", f"images=0:{images}", f"methods.dps.steps={steps}"]
    return seconds([[*words, f"out={folder}/whole"]], [set(cores)])


def main() -> None:
    """Measure pairs and print the ratio of rates."""
    parser = argparse.ArgumentParser(description="Rate of two workers beside two independent processes.")
    parser.add_argument("--launch", default="local", choices=["local", "ray"])
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--few", type=int, default=2, help="images of the short runs")
    parser.add_argument("--more", type=int, default=22, help="images of the long runs")
    parser.add_argument("--steps", type=int, default=20, help="of DPS")
    a = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[:2]
    ratios: list[list[float]] = [[], []]
    for pair in range(a.pairs):
        with tempfile.TemporaryDirectory() as folder:
            taken = []
            for number, images in enumerate((a.few, a.more)):
                at = Path(folder) / str(number)
                taken.append((independent(images, a.steps, at, cores), together(images, a.steps, at, cores, a.launch)))
        (alone_few, few), (alone_more, more) = taken
        for k, name in enumerate(("clock", "processor")):
            alone, workers = alone_more[k] - alone_few[k], more[k] - few[k]
            ratios[k].append(alone / workers)
            images = a.more - a.few
            print(
                f"pair {pair}, {name}: {images} images, independent {alone:.1f} s, workers {workers:.1f} s, "
                f"ratio of rates {alone / workers:.3f}",
                flush=True,
            )
    for name, found in zip(("clock", "processor"), ratios, strict=True):
        print(f"median ratio of rates, {name}: {statistics.median(found):.3f}")


if __name__ == "__main__":
    main()

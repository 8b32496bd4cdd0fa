"""Where the time of a network goes in float32 and in bf16, operator by operator.

    python -m scripts.profile_precision METHOD [--random FOLDER] [hydra overrides]

draws one sample of one rendered face twice in each precision and profiles the second: seconds of the processor of every
operator of PyTorch, both ratios, and what bf16 changes in the image. `--random` as in scripts.speed_options. Seconds of
the processor bear a busy machine better than those of the clock; all figures are of the threads that torch has
(OMP_NUM_THREADS).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tabulate import tabulate
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from bench.config import compose, read_config
from bench.machine import keep_freed_memory
from scripts.random_weights import write_weights
from scripts.speed_options import OFF, Task

SHOWN = 0.01
"""Operators below this share of the time are summed up."""


def seconds(task: Task, precision: str) -> tuple[Tensor, dict[str, float]]:
    """A sample [1, n, 3, H, W] and the seconds of each operator."""
    settings = {**OFF, "channels_last": True, "precision": precision}
    method = task.prepared(settings)
    task.sample(method)
    with profile(activities=[ProfilerActivity.CPU]) as found:
        x = task.sample(method)
    return x, {event.key: event.self_cpu_time_total / 1e6 for event in found.key_averages()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method")
    parser.add_argument("--random", type=Path, metavar="FOLDER")
    a, words = parser.parse_known_args()
    words = [f"methods=[{a.method}]", "n=1", "device=cpu", *words]
    if a.random:
        words += ["dataset.size=256", *(w for w in write_weights(a.random) if w.startswith(f"methods.{a.method}."))]
    config = read_config(compose("run", words))
    keep_freed_memory()
    task = Task(config, config.methods[0])
    exact, full = seconds(task, "32")
    rounded, half = seconds(task, "bf16")
    total = sum(full.values())
    names = sorted(full.keys() | half.keys(), key=lambda n: -max(full.get(n, 0), half.get(n, 0)))
    rows = [(n, full.get(n, 0.0), half.get(n, 0.0)) for n in names]
    large = [r for r in rows if max(r[1:]) >= SHOWN * total]
    rest = [r for r in rows if r not in large]
    table = [*large, ("others", sum(r[1] for r in rest), sum(r[2] for r in rest)), ("all", total, sum(half.values()))]
    heads = ["operator", "float32 (s)", "bf16 (s)", "bf16 / float32"]
    print(
        tabulate([(*r, r[2] / r[1] if r[1] else None) for r in table], headers=heads, tablefmt="pipe", floatfmt=".3g")
    )
    change = (rounded - exact).double()
    print(f"bf16 changes the image by {change.square().mean().sqrt():.1e} rms, {change.abs().max():.1e} at most")


if __name__ == "__main__":
    main()

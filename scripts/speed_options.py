"""Time of every option of speed of a method, and what it changes in the images.

    python -m scripts.speed_options METHOD [--samples 5] [--repeats 2] [--random FOLDER] [hydra overrides]

draws samples of one rendered face with all options off, with each option alone and with all of them. METHOD is a
configuration such as dps or cvdvae_ffhq256; `--random` writes random weights for FFHQ-256 size into a folder and uses
them. Overrides are those of ``python -m bench run``, as in

    python -m scripts.speed_options dps scale=8 methods.dps.steps=20
    python -m scripts.speed_options dps_ffhq256 --random /tmp/weights methods.dps_ffhq256.steps=20 device=cuda

Changes are of images in [0, 1]; a column of memory is of the device, on a GPU.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor

from bench.config import MethodConfig, RunConfig, compose, read_config
from bench.contract import Method, Noise
from bench.data import make_dataset
from bench.load import make_method
from bench.machine import keep_freed_memory, release_memory
from bench.network import Compute
from bench.operators import make_operator
from bench.run.draw import observe
from scripts.random_weights import write_weights

OFF = Compute(rows=1).model_dump()


def cases(samples: int) -> dict[str, dict[str, Any]]:
    """Name to settings of `compute`: all options off, each alone, and all of them."""
    off = OFF
    alone: dict[str, dict[str, Any]] = {
        "rows": {"rows": samples},
        "channels_last": {"channels_last": True},
        "bf16": {"precision": "bf16"},
        "compile": {"compile": "default"},
        "compile, CUDA graphs": {"compile": "reduce-overhead"},
    }
    everything = {k: v for s in alone.values() for k, v in s.items()}
    return {"none": off} | {name: off | s for name, s in alone.items()} | {"all": off | everything}


class Task:
    """Samples of one rendered face."""

    def __init__(self, config: RunConfig, method: MethodConfig) -> None:
        self.method = method
        self.device = torch.device(config.device)
        self.tau, self.n, self.seed = config.taus[0], config.n, config.seed
        dataset = make_dataset(config.dataset)
        scale = config.scales[0]
        self.operator = make_operator(config.operator, scale, dataset.size)
        _, y = observe(dataset, 0, self.operator.to("cpu", torch.float64), config.seed)
        self.y = y[None].to(self.device)

    def prepared(self, settings: Mapping[str, Any] | None) -> Method:
        """The method with these settings of `compute`, None for one without a network."""
        compute = {} if settings is None else {"compute": dict(settings)}
        method = make_method(replace(self.method, parameters={**self.method.parameters, **compute}))
        return method.prepare(self.operator, self.device)

    def sample(self, method: Method) -> Tensor:
        """The samples [1, n, 3, H, W]."""
        tau = self.tau if method.facts.uses_tau else None
        return method.sample(self.y, self.n, tau, Noise(self.seed, ["0"], range(self.n), self.device))

    def draw(self, settings: Mapping[str, Any] | None, repeats: int) -> tuple[Tensor, float, float]:
        """Return the samples, the fewest seconds for one of them, and the device's peak memory in GB (0 on a CPU)."""
        method = self.prepared(settings)
        gpu = self.device.type == "cuda"
        seconds = []
        for _ in range(repeats + 1):  # the first one compiles and asks for memory
            if gpu:
                torch.cuda.reset_peak_memory_stats(self.device)
                torch.cuda.synchronize(self.device)
            begun = time.perf_counter()
            x = self.sample(method)
            if gpu:
                torch.cuda.synchronize(self.device)
            seconds.append((time.perf_counter() - begun) / self.n)
        return x.cpu(), min(seconds[1:]), torch.cuda.max_memory_allocated(self.device) / 1e9 if gpu else 0.0


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method")
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--random", type=Path, metavar="FOLDER")
    arguments, words = parser.parse_known_args()
    words = [f"methods=[{arguments.method}]", f"n={arguments.samples}", *words]
    if arguments.random:
        prefix = f"methods.{arguments.method}."
        words += ["dataset.size=256", *(w for w in write_weights(arguments.random) if w.startswith(prefix))]
    config = read_config(compose("run", words))
    keep_freed_memory()
    task = Task(config, config.methods[0])
    expected: Tensor | None = None
    rows = []
    for name, settings in cases(arguments.samples).items():
        x, seconds, memory = task.draw(settings, arguments.repeats)
        torch._dynamo.reset()
        release_memory()
        expected = x if expected is None else expected
        change = (x - expected).double()
        rows.append((name, seconds, memory or None, change.abs().max().item(), change.square().mean().sqrt().item()))
        print(f"{name}: {seconds:.4g} s a sample", flush=True)
    heads = ["options", "s a sample", "memory (GB)", "largest change", "rms change"]
    print(tabulate(rows, headers=heads, tablefmt="pipe", floatfmt=("", ".4g", ".2f", ".0e", ".0e")))


if __name__ == "__main__":
    main()

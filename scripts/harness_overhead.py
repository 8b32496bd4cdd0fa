"""What the harness itself takes of a run: everything but sampling and metrics.

    python -m scripts.harness_overhead

profiles two runs at 64 pixels, DPS and CVDVAE (16 images together), and prints the shares of sampling, of the metrics
and of each part of the harness, in seconds of the processor (which other work on the machine hardly moves) and of the
clock. The first batch, in which methods and metrics are loaded, is drawn before. ``--out FILE`` also keeps the figures
as JSON, ``--stats FOLDER`` the whole profiles for ``python -m pstats``. ``--images 3 32`` takes fewer images, and words
behind ``--dps`` change DPS: what the harness takes of an image does not depend on its steps.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from bench.config import compose, read_config
from bench.machine import device_name
from bench.run import rows
from bench.run.cell import Cell
from bench.run.draw import Sampler
from bench.run.images import Images
from bench.run.runner import open_run
from bench.run.samples import SampleFiles
from bench.run.selection import cell_keys
from bench.run.store import RunDir

RUNS = {
    "DPS x8": ["methods=[dps]", "methods.dps.compute.rows=5", "batch=1"],
    "CVDVAE x8, batch=16": ["methods=[cvdvae]", "methods.cvdvae.compute.rows=16", "batch=16"],
}
PARTS = {
    "sampling": [(Sampler, "raw")],
    "metrics": [(rows, "evaluate")],
    "images, observing": [(Images, "load_all")],
    "samples kept": [(SampleFiles, "write"), (RunDir, "set_image")],
    "rows kept": [(Cell, "add"), (Cell, "compact")],
}
"""Functions of each part; none calls another one of them."""
WORK = ("sampling", "metrics")
METRICS = ("psnr", "ssim", "perceptual", "brisque", "lr_psnr", "apd_mse", "apd_perceptual", "diversity_perceptual")
"""Those of a run by default, but for the times."""


class Clock:
    """Seconds of the processor and of the clock, by part."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])

    @contextmanager
    def running(self, part: str) -> Iterator[None]:
        """Count what happens meanwhile."""
        cpu, wall = time.process_time(), time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part][0] += time.process_time() - cpu
            self.seconds[part][1] += time.perf_counter() - wall

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, counted."""

        def counted(*arguments: Any, **named: Any) -> Any:
            with self.running(part):
                return function(*arguments, **named)

        return counted


@contextmanager
def counted_parts(clock: Clock) -> Iterator[None]:
    """Count the functions of `PARTS` for a while."""
    before = [(owner, name, getattr(owner, name)) for places in PARTS.values() for owner, name in places]
    for part, places in PARTS.items():
        for owner, name in places:
            setattr(owner, name, clock.timed(part, getattr(owner, name)))
    try:
        yield
    finally:
        for owner, name, function in before:
            setattr(owner, name, function)


def profile(words: list[str], stats: Path | None) -> Clock:
    """Run once for a first batch and once more for the rest, which is counted."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        quick = ["scale=8", "device=cpu", f"out={folder}/run", "perceptual=stlpips_alex",
                 f"metrics=[{','.join(METRICS)}]"]  # fmt: skip
        config = read_config(compose("run", [*quick, *words]))
        keys = cell_keys(config)
        with open_run(config, keys) as session:
            batches = session.missing(session.directory.cell(keys[0]))
            session.keep(session.computing.measure(keys[0], batches[0], batches[0]))
        profiler = cProfile.Profile() if stats else None
        with open_run(config, keys) as session:
            session.loaded.sampler(keys[0].label, keys[0].scale)
            session.computing.metrics  # noqa: B018 -- loads them
            with counted_parts(clock), clock.running("all"):
                if profiler:
                    profiler.enable()
                session.measure(keys)
                if profiler:
                    profiler.disable()
        if profiler and stats:
            profiler.dump_stats(stats)
    return clock


def main() -> None:
    """Profile all runs and print their shares."""
    parser = argparse.ArgumentParser(description="What the harness itself takes of a run.")
    parser.add_argument("--out", type=Path, help="JSON file to keep the figures in")
    parser.add_argument("--stats", type=Path, help="folder for cProfile's statistics; profiling slows the run down")
    parser.add_argument("--images", type=int, nargs=2, default=[4, 64], metavar=("DPS", "CVDVAE"), help="of each run")
    parser.add_argument("--dps", nargs="*", default=[], help="settings of DPS, as methods.dps.steps=20")
    arguments = parser.parse_args()
    kept: dict[str, Any] = {
        "device": device_name("cpu"),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    for (title, words), images, more in zip(RUNS.items(), arguments.images, (arguments.dps, []), strict=True):
        lines = []
        stats = None
        if arguments.stats:
            arguments.stats.mkdir(parents=True, exist_ok=True)
            stats = arguments.stats / f"{words[0][9:-1]}.pstats"
        seconds = dict(profile([*words, *more, f"limit={images}"], stats).seconds)
        cpu, wall = seconds.pop("all")
        seconds["rest"] = [t - sum(s[k] for s in seconds.values()) for k, t in enumerate((cpu, wall))]
        harness = [sum(s[k] for part, s in seconds.items() if part not in WORK) for k in range(2)]
        kept[title] = {"seconds": {p: {"cpu": s[0], "wall": s[1]} for p, s in {**seconds, "all": [cpu, wall]}.items()},
                       "harness": {"cpu": harness[0] / cpu, "wall": harness[1] / wall}}  # fmt: skip
        for part, (c, w) in seconds.items():
            lines.append([title, part, f"{c:.2f}", f"{100 * c / cpu:.1f}%", f"{w:.2f}", f"{100 * w / wall:.1f}%"])
        lines.append([title, "harness", f"{harness[0]:.2f}", f"{100 * harness[0] / cpu:.1f}%", f"{harness[1]:.2f}",
                      f"{100 * harness[1] / wall:.1f}%"])  # fmt: skip
        headers = ["run", "part", "CPU s", "share", "clock s", "share"]
        print(tabulate(lines, headers=headers, disable_numparse=True), flush=True)
        if arguments.out:
            arguments.out.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()

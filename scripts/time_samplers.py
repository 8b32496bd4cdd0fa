"""Time and memory of a step of the published samplers beside ours, at the size of FFHQ-256.

    OMP_NUM_THREADS=1 python -m scripts.time_samplers CHECKOUT... [--small] [--repeats 2]

CHECKOUT as for scripts/compare_samplers.py, which says that both compute the same. Each loop has a process of its own,
one row, float32, one thread, freed memory kept, and our network with random weights. Prints, published / ours:
seconds of a step; milliseconds of a step without the network, for which a function stands that returns its input; the
largest memory of the process. Seconds are those of the processor, which other processes change little. A step lasts
from one call of the network to that of the next step, so that nothing that happens once counts. DAPS' step is a level:
five Euler and 100 Langevin steps, PnP-DM's an evaluation in the reverse diffusion of one iteration.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.machine import keep_freed_memory
from methods.diffusion.prior import Network
from methods.diffusion.unet import UnetConfig
from scripts import compare_samplers as published
from scripts.compare_dps import SIZES
from scripts.compare_samplers import Case

STEPS, LOOP_STEPS = 3, 40
"""Steps with the network, and without it."""
CALLS = 20
"""Calls of a function."""


class Cost(NamedTuple):
    """Of one loop or function.

    Attributes:
        step: seconds of a step; None for a function.
        alone: seconds of a step without the network.
        memory: largest resident memory of the process, bytes; None for a function.

    """

    step: float | None
    alone: float
    memory: int | None


class Loop(NamedTuple):
    """A published loop and ours.

    Attributes:
        file: tells the checkout.
        sigma: noise of y.
        theirs: (checkout, case, None for noise as they draw it, steps).
        ours: the method's name and settings.
        evaluations: of the network in a step.

    """

    file: str
    sigma: float
    theirs: Callable[..., Any]
    ours: dict[str, Any]
    evaluations: int = 1


LOOPS = {
    "DDRM": Loop("functions/svd_replacement.py", 0.05, published.ddrm, {"name": "ddrm"}),
    "DDNM": Loop("functions/svd_ddnm.py", 0.0, published.ddnm, {"name": "ddnm"}),
    "DDNM+": Loop("functions/svd_ddnm.py", 0.05, partial(published.ddnm, mended=False), {"name": "ddnm"}),
    "PiGDM, as coded": Loop("algos/reddiff.py", 0.05, published.pigdm, {"name": "pigdm", "rule": "code"}),
    "PiGDM, full rule (published: as coded)": Loop("algos/reddiff.py", 0.05, published.pigdm, {"name": "pigdm"}),
    "RED-diff": Loop("algos/reddiff.py", 0.05, published.reddiff, {"name": "reddiff"}),
    "DiffPIR, as coded": Loop("utils/utils_sisr.py", 0.05, published.diffpir, {"name": "diffpir", "as_coded": True}),
    "PnP-DM, an evaluation": Loop(
        "pnpdm/tasks/super_resolution_svd.py", 0.05, published.pnpdm, {"name": "pnpdm", "variance": "sde"}
    ),
    "DAPS": Loop("cores/mcmc.py", 0.05, published.daps, {"name": "daps"}, 5),
}
FUNCTIONS: dict[str, tuple[str, Callable[[Path, Case], tuple[Any, Any]], int]] = {
    "DiffPIR, fit to y": ("utils/utils_sisr.py", published.diffpir_fit, 1),
    "PnP-DM, likelihood step": (
        "pnpdm/tasks/super_resolution_svd.py", lambda f, c: published.pnpdm_step(f, c, drawn=False), 2,
    ),
}  # fmt: skip
"""A file that tells the checkout, what makes theirs and ours, the images that both take."""


class Clocked:
    """A network that notes when it is called."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.calls: list[float] = []

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """As the network."""
        self.calls.append(time.process_time())
        return self.network(x, t)

    def step(self, evaluations: int) -> float:
        """Median of the seconds of the processor between steps; the first one does not count."""
        return statistics.median(b - a for a, b in list(pairwise(self.calls[::evaluations]))[1:])


def stand_in(x: Tensor, t: Tensor) -> Tensor:
    """Return x for noise and variance."""
    return torch.cat([x, x], 1)


def peak_memory() -> int:
    """Largest resident memory of this process so far, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def loop_cost(name: str, folder: Path, ours: bool, config: UnetConfig, alone_only: bool = False) -> Cost:
    """Run a loop without and with the network."""
    loop = LOOPS[name]
    shape = (1, 3, config.size, config.size)

    def step(network: Network, steps: int) -> float:
        clock = Clocked(network)
        case = Case(loop.sigma, shape, clock)
        if ours:
            prior = published.daps_prior(case, steps, loop.evaluations) if loop.evaluations > 1 else None
            count: dict[str, Any] = (
                {"steps": 1, "inner": 2 * steps} if loop.ours["name"] == "pnpdm" else {"steps": steps}
            )
            x = case.ours(normal=lambda: torch.randn(shape), prior=prior, **count, **loop.ours)
        else:
            found = loop.theirs(folder, case, None, steps)
            x = found if isinstance(found, Tensor) else found[0]
        assert x.dtype == torch.float32
        return clock.step(loop.evaluations)

    alone = step(stand_in, LOOP_STEPS if loop.evaluations == 1 else LOOP_STEPS // 5)
    if alone_only:
        return Cost(None, alone, None)
    return Cost(step(published.make_network(config), STEPS), alone, peak_memory())


def function_cost(name: str, folder: Path, ours: bool, config: UnetConfig, alone_only: bool = False) -> Cost:
    """Call a function."""
    _, make, images = FUNCTIONS[name]
    shape = (1, 3, config.size, config.size)
    call = make(folder, Case(0.05, shape, stand_in))[ours]
    drawn, seconds = [torch.randn(shape) for _ in range(images)], []
    with torch.no_grad():
        for _ in range(CALLS):
            start = time.process_time()
            call(*drawn, 1.0)
            seconds.append(time.process_time() - start)
    return Cost(None, statistics.median(seconds), None)


def prepare() -> None:
    """What every process does first; what the codes print is not kept."""
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 -- for the rest of the process
    torch.set_num_threads(1)
    torch.manual_seed(0)
    keep_freed_memory()


def in_process(measure: Callable[..., Cost], *arguments: Any) -> Cost:
    """Measure in a process of its own."""
    context = multiprocessing.get_context("fork")  # this one has imported and computed nothing
    with ProcessPoolExecutor(1, mp_context=context, initializer=prepare) as pool:
        return pool.submit(measure, *arguments).result()


def best(costs: list[Cost]) -> Cost:
    """The least of each."""
    return Cost(*(None if None in values else min(values) for values in zip(*costs, strict=True)))  # type: ignore[arg-type]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", type=Path, nargs="+")
    parser.add_argument("--small", action="store_true", help="a small network of 32 pixels, to try the script")
    parser.add_argument("--alone", action="store_true", help="without the network only")
    parser.add_argument("--repeats", type=int, default=1, help="processes of each, in turn; the least counts")
    parser.add_argument("--only", default="", help="loops and functions whose name begins with this")
    arguments = parser.parse_args()
    config = SIZES["small" if arguments.small else "full"]
    todo: list[tuple[str, str, Callable[..., Cost]]] = [
        *((name, loop.file, loop_cost) for name, loop in LOOPS.items()),
        *((name, file, function_cost) for name, (file, *_) in FUNCTIONS.items()),
    ]
    print("| published / ours | s per step | ms without the network | memory, GiB |\n|---|---|---|---|", flush=True)
    for folder in arguments.checkouts:
        for name, file, measure in todo:
            if not (folder / file).is_file() or not name.startswith(arguments.only):
                continue
            costs: dict[bool, list[Cost]] = {False: [], True: []}
            for _ in range(arguments.repeats):
                for ours in costs:
                    costs[ours].append(in_process(measure, name, folder.resolve(), ours, config, arguments.alone))
            theirs, mine = (best(costs[ours]) for ours in (False, True))
            cells = [f"{1000 * theirs.alone:.1f} / {1000 * mine.alone:.1f}"]
            if theirs.step and mine.step and theirs.memory and mine.memory:
                cells = [f"{theirs.step:.2f} / {mine.step:.2f}", *cells]
                cells += [f"{theirs.memory / 2**30:.2f} / {mine.memory / 2**30:.2f}"]
            else:
                cells = ["", *cells, ""]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

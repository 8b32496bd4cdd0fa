"""Train all shipped networks with one command: CVDVAE's prior and encoders, HCFlow, SR3 and the diffusion priors.

    python -m scripts.train_shipped FOLDER                      # the same command goes on after any kill
    python -m scripts.train_shipped FOLDER --pause              # returns when nothing computes any more
    python -m scripts.train_shipped FOLDER --continue
    python -m scripts.train_shipped FOLDER --minutes 9          # a piece; exit code 75 while there is more to do

Every stage is a run of ``python -m bench train`` in FOLDER/STAGE; what it learnt is in FOLDER/weights/STAGE.safetensors
in half precision, at any time. A pause ends the training's process at its next step rather than stopping it, so that
its memory is free and the pause is not counted as cost.

`--settings FILE` (yaml) adds settings to stages: {all: [pool=24000], prior64: [batch=8]}. `--faster 20` multiplies the
steps of all stages, `--steps 3` replaces them, `--only low64_x8` names stages, `--processes 2` trains on as many cores
or GPUs.

On a machine that has torch but no network, a folder of wheels brings what is missing:

    python -m scripts.train_shipped --make-wheels WHEELS --python 3.12         # here
    python -m scripts.train_shipped FOLDER --wheels WHEELS --minutes 9 --back OUT

The train photographs of ``dataset=shipped`` are downloaded on first use; without a network bring a checkout of theirs
and say where it is: {all: [dataset.parts.portraits256.source=CHECKOUT]}.

`--back` copies the half-precision weights of the newest stages there: at most 8 files.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

AGAIN = 75
"""Exit code of a piece that ended before the work did (EX_TEMPFAIL)."""
PATIENCE = 120.0
"""Seconds that a training has to write its checkpoint before it is killed; it then goes on from the last one."""
WHEELS = {
    "hydra": "hydra-core", "omegaconf": "omegaconf", "antlr4": "antlr4-python3-runtime",
    "lightning_fabric": "lightning-fabric", "lightning_utilities": "lightning-utilities", "diffusers": "diffusers",
    "importlib_metadata": "importlib-metadata", "zipp": "zipp", "tabulate": "tabulate", "tqdm": "tqdm",
    "filelock": "filelock", "pydantic": "pydantic", "pydantic_core": "pydantic-core",
    "annotated_types": "annotated-types", "typing_inspection": "typing-inspection",
}  # fmt: skip
"""What a machine with PyTorch may lack: modules that training imports, and their packages."""
COMPILED = ("pydantic_core",)
"""Those of them that are not pure Python: their wheels are for one version of Python."""


@dataclass(frozen=True)
class Stage:
    """One training run.

    Attributes:
        name: of its folder and its weights.
        words: settings of ``bench train``; {weights} is the folder of the weights before it.
        steps: number of steps.

    """

    name: str
    words: tuple[str, ...]
    steps: int


_PRIOR = "method.network.prior_weights={weights}/prior64.safetensors"
_FLOW = "method.network.weights={weights}/flow64-likelihood_x%d.safetensors"
_GAUSSIANS = ("method=diffusion_gaussians32", "dataset=gaussians")
STAGES = (
    Stage("prior64", ("method=vdvae",), 31000),
    Stage("low64_x4", ("method=cvdvae", "scale=4", "ema=0.995", _PRIOR), 13000),
    Stage("low64_x8", ("method=cvdvae", "scale=8", "ema=0.995", _PRIOR), 50000),
    Stage("flow64-likelihood_x4", ("method=hcflow", "scale=4"), 6100),
    Stage("flow64_x4", ("method=hcflow_plus", "scale=4", _FLOW % 4), 620),
    Stage("flow64-likelihood_x8", ("method=hcflow", "scale=8"), 5500),
    Stage("flow64_x8", ("method=hcflow_plus", "scale=8", _FLOW % 8), 550),
    Stage("unet64_x4", ("method=sr3", "scale=4"), 8300),
    Stage("unet64_x8", ("method=sr3", "scale=8"), 8200),
    Stage("diffusion64", ("method=diffusion", "ema=0.998"), 5900),
    Stage("gaussians32", (*_GAUSSIANS, "dataset.size=32", "pool=1000000"), 12000),
)
"""Five hours for the prior, half of one for gaussians32 and one for every other network (both stages of a flow
together) with `--processes 2` on two idle cores, by the costs in results/README.md. Processes share a batch."""
COMMON = ("dataset=shipped", "pool=48000", "save_every=60")


def with_settings(stage: Stage, settings: Mapping[str, Sequence[str]], faster: float, steps: int | None) -> Stage:
    """Add a file's settings to a stage and change its steps."""
    words = (*COMMON, *stage.words, *settings.get("all", ()), *settings.get(stage.name, ()))
    last = {word.partition("=")[0]: word for word in words}  # a setting takes the place of an earlier one
    return Stage(stage.name, tuple(last.values()), steps or max(1, round(stage.steps * faster)))


def export(folder: Path, weights: Path) -> None:
    """Write a run's averaged weights in half precision, if there are any."""
    import torch
    from safetensors.torch import save

    checkpoint = folder / "checkpoint.pt"
    if not checkpoint.is_file():
        return
    average = torch.load(checkpoint, map_location="cpu", weights_only=True)["ema"]
    weights.parent.mkdir(parents=True, exist_ok=True)
    temporary = weights.with_suffix(".tmp")
    temporary.write_bytes(save({name: p.half().contiguous() for name, p in average.items()}))
    temporary.replace(weights)


def steps_done(folder: Path) -> int:
    """Steps of a run that has ended; 0 for one that has not."""
    summary = folder / "summary.json"
    return int(json.loads(summary.read_text())["steps"]) if summary.is_file() else 0


def train(words: Sequence[str], processes: int, out: Path, weights: Path) -> None:
    """Be the process of one training run: write its log, train, export what was learnt, exit with the run's code."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    from bench import cli

    os.setsid()  # an interruption of the terminal reaches the driver alone, which passes it on
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    out.mkdir(parents=True, exist_ok=True)
    with (out / "log.txt").open("a") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)  # of the processes that torchrun starts
        sys.stdout = sys.stderr = log
        print("python -m bench", " ".join(words), flush=True)
        try:
            if processes == 1:
                code = cli.main(words)
            else:
                run.main(["--standalone", f"--nproc-per-node={processes}", "-m", "bench", *words])
                code = 0
        except (KeyboardInterrupt, SignalException, ChildFailedError):
            code = 130
        export(out, weights)
    sys.exit(code)


class Driver:
    """Run the stages one after the other, each until it is done, a pause is asked for or the time is up."""

    def __init__(self, folder: Path, processes: int = 1, seconds: float | None = None) -> None:
        self.folder, self.processes = folder, processes
        self.weights = folder / "weights"
        self.deadline = None if seconds is None else time.monotonic() + seconds
        self.pause, self.paused, self.child = folder / "pause", folder / "paused", folder / "training.pid"
        self.interrupted = False
        # forked, a training begins without importing PyTorch again; nothing is computed in this process
        self.context = multiprocessing.get_context("fork")

    def run(self, stages: Sequence[Stage]) -> int:
        """Train; return 0 when all is done, AGAIN when the time was up, or a training's own exit code."""
        for kind in (signal.SIGINT, signal.SIGTERM):
            signal.signal(kind, self._interrupt)
        for stage in stages:
            while steps_done(self.folder / stage.name) < stage.steps:
                self._wait_out_pause()
                if self._stop():
                    return AGAIN
                code = self._train(stage)
                if code and not self._stop() and not self.pause.exists():
                    return code
        return 0

    def _stop(self) -> bool:
        return self.interrupted or (self.deadline is not None and time.monotonic() >= self.deadline)

    def _interrupt(self, *_: object) -> None:
        self.interrupted = True

    def _wait_out_pause(self) -> None:
        while self.pause.exists() and not self._stop():
            self.paused.touch()
            time.sleep(0.1)
        self.paused.unlink(missing_ok=True)

    def _train(self, stage: Stage) -> int:
        """Start a stage's training and wait for its end, which a pause or the deadline brings about."""
        out = self.folder / stage.name
        words = ["train", *(w.replace("{weights}", str(self.weights)) for w in stage.words)]
        words += [f"steps={stage.steps}", f"out={out}"]
        arguments = (words, self.processes, out, self.weights / f"{stage.name}.safetensors")
        process = self.context.Process(target=train, args=arguments)
        # an interruption waits until the new process has taken away this one's handler
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        process.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        self.child.write_text(str(process.pid))
        while process.is_alive() and not self._stop() and not self.pause.exists():
            process.join(0.1)
        if process.is_alive():
            assert process.pid is not None
            os.kill(process.pid, signal.SIGINT)
        process.join(PATIENCE)
        if process.is_alive():
            process.kill()  # it will go on from its last checkpoint
            process.join()
        self.child.unlink(missing_ok=True)
        assert process.exitcode is not None
        return process.exitcode


def make_wheels(folder: Path, python: str | None = None) -> None:
    """Fetch the wheels of what training needs besides torch, in the versions that are installed here.

    Args:
        folder: where they go.
        python: version of the Python that takes them, as "3.12", on Linux and x86-64; this one's by default.

    """
    pinned = {module: f"{package}=={version(package)}" for module, package in WHEELS.items()}
    compiled = [pinned.pop(module) for module in COMPILED] if python else []
    pip = [sys.executable, "-m", "pip"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(folder), *pinned.values()], check=True)
    if compiled:
        target = ["--python-version", str(python), "--implementation", "cp", "--platform", "manylinux2014_x86_64"]
        options = ["--no-deps", "--only-binary=:all:", *target, "-d", str(folder)]
        subprocess.run([*pip, "download", *options, *compiled], check=True)


def install_wheels(folder: Path, site: Path) -> None:
    """Unpack the wheels of those modules that this machine lacks into a folder of their own."""
    missing = [package for module, package in WHEELS.items() if importlib.util.find_spec(module) is None]
    if missing:
        options = ["--no-index", "--no-deps", "--find-links", str(folder), "--target", str(site), "--upgrade", "-q"]
        subprocess.run([sys.executable, "-m", "pip", "install", *options, *missing], check=True)
    sys.path.append(str(site))
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [os.environ.get("PYTHONPATH", ""), str(site)]
    )  # for torchrun's processes


def bring_back(folder: Path, back: Path, files: int = 8) -> None:
    """Copy the newest weights."""
    newest = sorted((folder / "weights").glob("*.safetensors"), key=lambda p: p.stat().st_mtime)[-files:]
    back.mkdir(parents=True, exist_ok=True)
    for path in newest:
        shutil.copy2(path, back / path.name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, pause or continue; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("results/training/shipped"))
    parser.add_argument("--pause", action="store_true")
    parser.add_argument("--continue", dest="go_on", action="store_true")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--settings", type=Path)
    parser.add_argument("--faster", type=float, default=1.0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--only", nargs="+", choices=[s.name for s in STAGES], default=[s.name for s in STAGES])
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--make-wheels", type=Path)
    parser.add_argument("--python", help="version of the Python that takes the wheels")
    parser.add_argument("--wheels", type=Path)
    parser.add_argument("--back", type=Path)
    a = parser.parse_args(arguments)
    if a.make_wheels:
        make_wheels(a.make_wheels, a.python)
        return 0
    folder: Path = a.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if a.go_on:
        (folder / "pause").unlink(missing_ok=True)
        return 0
    if a.pause:
        (folder / "pause").touch()
        while running(folder) and not (folder / "paused").exists():
            time.sleep(0.1)
        return 0
    if a.wheels:
        install_wheels(a.wheels, folder / "site")
    import yaml

    import bench.training.trainer  # noqa: F401 -- before the forks

    settings = yaml.safe_load(a.settings.read_text()) if a.settings else {}
    stages = [with_settings(s, settings, a.faster, a.steps) for s in STAGES if s.name in a.only]
    (folder / "pid").write_text(str(os.getpid()))
    try:
        return Driver(folder, a.processes, a.minutes and 60 * a.minutes).run(stages)
    finally:
        (folder / "pid").unlink(missing_ok=True)
        if a.back:
            bring_back(folder, a.back)


def running(folder: Path) -> bool:
    """Whether a driver works in this folder."""
    try:
        os.kill(int((folder / "pid").read_text()), 0)
    except (OSError, ValueError):
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())

"""Every fault, and what must be true afterwards: tables as those of an undisturbed run, or one clear sentence.

Each function does one fault a number of times and returns an :class:`Outcome`. Random choices are keyed by the fault's
name and number, so that one of them can be looked at again.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from tests.faults.process import Ended, Started

IMAGES = 3
# rows together are given: a choice by measuring them may differ from one directory to the next, and so does rounding
RUN = (
    "run", "methods=[bicubic,hcflow]", "methods.hcflow.compute.rows=2", "scale=8", f"limit={IMAGES}", "n=2", "batch=1",
    "device=cpu", "metrics=[psnr,lr_psnr,apd_mse]",
)  # fmt: skip
LONG = (*RUN, "limit=60")
"""With enough batches to kill a worker between two of them."""
REPRODUCE = (
    "reproduce", "table1", "dataset=synthfaces", "limit=2", "n=2", "methods=[bicubic,cvdvae]",
    "methods.cvdvae.compute.rows=2", "device=cpu", "metrics=[psnr,lr_psnr]",
)  # fmt: skip
TRAIN = (
    "train", "method=hcflow", "scale=8", "steps=6", "batch=2", "pool=8", "val=2", "val_every=3", "save_every=1",
    "log_every=1", "device=cpu", "warmup=1", "method.network.flow.x8.steps=2",
    "method.network.flow.x8.conditional=1", "method.network.flow.x8.features=8",
    "method.network.flow.x8.hidden=8", "method.network.flow.x8.growth=4",
)  # fmt: skip


LIBRARY = {127: "ended by the C library (127)", -signal.SIGABRT: "aborted by a C++ library (SIGABRT)"}
"""Ends that a process without memory cannot say a sentence about: a library has ended it, and no code of ours runs."""
NO_MEMORY = re.compile(r"cannot allocate memory|bad_alloc|out of memory|failed to allocate", re.IGNORECASE)
"""What such a library says."""


@dataclass
class Outcome:
    """What a fault did.

    Attributes:
        fault: its name.
        times: how often it was done.
        ends: how the command that it hit ended, counted.
        wrong: what must not be: other tables, a traceback, something lost.

    """

    fault: str
    times: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def note(self, ended: Ended, allowed: tuple[int, ...] = (0, 1)) -> None:
        """Judge one end: 0, a killed process, an exit code with one sentence, or a library that ended the process."""
        self.times += 1
        if ended.code == -signal.SIGKILL:
            self.ends["killed"] += 1
        elif ended.code in allowed and ended.code in LIBRARY and NO_MEMORY.search(ended.text):
            self.ends[LIBRARY[ended.code]] += 1
        elif ended.code == 0:
            self.ends["done"] += 1
        else:
            self.ends[f"exit {ended.code}"] += 1
            if ended.sentence is None:
                self.wrong.append(f"exit {ended.code} without one sentence: {ended.text[-400:]}")
            elif ended.code not in allowed:
                self.wrong.append(f"exit {ended.code}: {ended.sentence}")


class Campaign:
    """Faults in a folder of their own.

    Args:
        folder: scratch; emptied piece by piece.
        seed: of all random choices.

    """

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.folder, self.seed = folder, seed
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["BENCH_CACHE"] = str(folder / "cache")
        self._whole: dict[tuple[str, ...], Path] = {}
        self._seconds: dict[tuple[str, ...], float] = {}

    def rng(self, fault: str, number: int) -> random.Random:
        """The choices of one fault."""
        return random.Random(f"{self.seed} {fault} {number}")

    def whole(self, words: tuple[str, ...]) -> Path:
        """The directory of an undisturbed run."""
        if words not in self._whole:
            out = self.folder / f"whole-{words[0]}-{len(self._whole)}"
            shutil.rmtree(out, ignore_errors=True)
            ended = self.start(words, out).wait()
            assert ended.code == 0, ended.text[-1000:]
            self._whole[words], self._seconds[words] = out, ended.seconds
        return self._whole[words]

    def seconds(self, words: tuple[str, ...]) -> float:
        """How long an undisturbed run takes."""
        self.whole(words)
        return self._seconds[words]

    def start(self, words: tuple[str, ...], out: Path, before: Callable[[], None] | None = None) -> Started:
        """Start a command into a directory."""
        return Started([*words, f"out={out}"], self.folder / "log.txt", before)

    def finish(self, outcome: Outcome, words: tuple[str, ...], out: Path, starts: int = 5) -> None:
        """Start again until it is done, doing what a sentence says (delete FILE), and compare."""
        for _ in range(starts):
            ended = self.start(words, out).wait()
            if ended.code == 0:
                break
            if ended.sentence is None:
                outcome.wrong.append(f"started again: {ended.text[-400:]}")
                return
            self.obey(ended.sentence, out)
        else:
            outcome.wrong.append(f"never done: {ended.sentence}")
            return
        difference = differ(self.whole(words), out)
        if difference:
            outcome.wrong.append(difference)

    def obey(self, sentence: str, out: Path) -> None:
        """Delete the files that a sentence names, and the directory where it says so."""
        for name in re.findall(rf"{re.escape(str(self.folder))}[^\s:;,)]*", sentence):
            path = Path(name.rstrip("."))
            if path.is_dir() and path != out:
                shutil.rmtree(path)
            elif path.is_file():
                path.unlink()
            elif path == out and "delete" in sentence:
                shutil.rmtree(path)

    # the faults

    def kills(self, words: tuple[str, ...], times: int, number: int = signal.SIGKILL) -> Outcome:
        """A signal at a random point of a command, up to three times; then it is finished, and another begun."""
        name = f"{words[0]}: {signal.Signals(number).name}"
        outcome, seconds = Outcome(name), self.seconds(words)
        allowed = {signal.SIGKILL: (), signal.SIGTERM: (143,), signal.SIGINT: (130,)}[signal.Signals(number)]
        while outcome.times < times:
            out, kept = self.fresh("kills"), Kept()
            for _ in range(min(self.rng(name, -outcome.times - 1).randint(1, 3), times - outcome.times)):
                rng = self.rng(name, outcome.times)
                ended = self.start(words, out).end_after(rng.uniform(0.05, 1.1 * seconds), number)
                outcome.note(ended, (0, 1, *allowed))
                outcome.wrong += kept.lost(out)
            self.finish(outcome, words, out)
            outcome.wrong += kept.lost(out)
        return outcome

    def full_disks(self, times: int) -> Outcome:
        """A disk of a random size, too small or just large enough; then room."""
        outcome = Outcome("run: full disk")
        need = sum(p.stat().st_size for p in self.whole(RUN).rglob("*") if p.is_file())
        for i in range(times):
            out = self.fresh("disk")
            with disk(out, int(self.rng(outcome.fault, i).uniform(0.02, 1.3) * need) + 65536) as grow:
                outcome.note(self.start(RUN, out / "run").wait())
                grow()
                self.finish(outcome, RUN, out / "run")
        return outcome

    def damaged_files(self, words: tuple[str, ...], times: int) -> Outcome:
        """One file of a directory cut, emptied or with a byte flipped; then the same command."""
        outcome = Outcome(f"{words[0]}: damaged file")
        whole = self.whole(words)
        files = sorted(p.relative_to(whole) for p in whole.rglob("*") if p.is_file() and p.stat().st_size)
        kinds = sorted({self.kind(p) for p in files})
        for i in range(times):
            rng = self.rng(outcome.fault, i)
            out = self.fresh("damaged")
            shutil.copytree(whole, out, dirs_exist_ok=True)
            chosen = rng.choice([p for p in files if self.kind(p) == kinds[i % len(kinds)]])  # every kind in turn
            damage(out / chosen, rng)
            ended = self.start(words, out).wait()
            outcome.note(ended)
            if ended.code == 0:
                difference = differ(whole, out)
                outcome.wrong += [f"{chosen}: {difference}"] if difference else []
            else:
                self.finish(outcome, words, out)
        return outcome

    @staticmethod
    def kind(path: Path) -> str:
        """A file's kind in a directory: its name without numbers, and its folder's."""
        return re.sub(r"\d+", "N", f"{path.parent.name}/{path.name}")

    def clock_jumps(self, times: int) -> Outcome:
        """time.time leaps to and fro by up to a day between any two calls."""
        outcome = Outcome("run: clock jumps")
        for i in range(times):
            rng = self.rng(outcome.fault, i)

            def lie(rng: random.Random = rng) -> None:
                real = time.time
                time.time = lambda: real() + rng.uniform(-86400, 86400)

            out = self.fresh("clock")
            outcome.note(self.start(RUN, out, lie).wait(), (0,))
            self.finish(outcome, RUN, out)
        return outcome

    def two_starts(self, times: int) -> Outcome:
        """The same command twice at once."""
        outcome = Outcome("run: two starts at once")
        for i in range(times):
            out = self.fresh("two")
            first = Started([*RUN, f"out={out}"], self.folder / "first.txt")
            time.sleep(self.rng(outcome.fault, i).uniform(0, 0.5))
            second = Started([*RUN, f"out={out}"], self.folder / "second.txt")
            for started in (first, second):
                outcome.note(started.wait())
            self.finish(outcome, RUN, out)
        return outcome

    def late_folder(self, times: int) -> Outcome:
        """A folder, as of a network, whose every answer to a rename, a listing or a sync is late; killed in between."""
        outcome = Outcome("run: late folder, SIGKILL")
        most = 3 * self.seconds(RUN)
        for i in range(times):
            rng = self.rng(outcome.fault, i)

            def delay(rng: random.Random = rng) -> None:
                for name in ("replace", "rename", "listdir", "scandir", "fsync", "unlink", "link"):
                    setattr(os, name, late(getattr(os, name), rng))

            out = self.fresh("late")
            outcome.note(self.start(RUN, out, delay).end_after(rng.uniform(0, most), signal.SIGKILL))
            self.finish(outcome, RUN, out)
        return outcome

    def fresh(self, name: str) -> Path:
        """An empty folder."""
        path = self.folder / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        return path


class Kept:
    """What was stored once must stay as it is: sample pictures whose rows were stored are never drawn again."""

    def __init__(self) -> None:
        self.seen: dict[Path, int] = {}

    def lost(self, out: Path) -> list[str]:
        """What is gone or was written again since the last look."""
        again = [str(p) for p, written in self.seen.items() if not p.exists() or p.stat().st_mtime_ns != written]
        self.seen = {}
        for rows in out.rglob("*samples.parquet"):
            cell = rows.parent.parent if rows.parent.name == "parts" else rows.parent
            if cell.parent.name == "cells":
                try:
                    images = set(pd.read_parquet(rows)["index"])
                except FileNotFoundError:  # a run that goes on has put it together with others
                    continue
                for path in (cell / "samples").glob("*.png"):
                    if int(path.stem.partition("_")[0]) in images:
                        self.seen[path] = path.stat().st_mtime_ns
        return [f"drawn again: {again[:3]}"] if again else []


def late(call: Callable[..., object], rng: random.Random) -> Callable[..., object]:
    """A call that answers late."""

    def answer(*arguments: object, **options: object) -> object:
        time.sleep(rng.uniform(0, 0.05))
        return call(*arguments, **options)

    return answer


def damage(path: Path, rng: random.Random) -> None:
    """Cut, empty or flip one bit of a file."""
    content = bytearray(path.read_bytes())
    how = rng.choice(["cut", "empty", "flip"])
    if how == "cut":
        content = content[: rng.randrange(len(content))]
    elif how == "empty":
        content = bytearray()
    else:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


@contextmanager
def disk(folder: Path, size: int) -> Iterator[Callable[[], object]]:
    """A file system of `size` bytes at a folder; gives what makes it large; PermissionError where one cannot mount."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "bench-fault", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PermissionError(done.stderr.strip())
    try:
        yield lambda: subprocess.run(["mount", "-o", "remount,size=1g", str(folder)], check=True)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def differ(whole: Path, out: Path) -> str | None:
    """How a directory's results differ from those of the undisturbed one, None where they do not."""
    names = (
        ["table.csv"]
        if (whole / "table.csv").exists()
        else [str(p.relative_to(whole)) for p in whole.rglob("table*.csv")]
    )
    if (whole / "checkpoint.pt").exists():
        return differ_in_weights(whole, out)
    for name in names:
        if not (out / name).exists():
            return f"{name} is missing"
        a, b = (pd.read_csv(d / name) for d in (whole, out))
        timed = [c for c in a.columns if c.startswith(("seconds", "throughput"))]
        if not a.drop(columns=timed).equals(b.drop(columns=timed, errors="ignore")):
            return f"{name} differs:\n{a.compare(b) if a.shape == b.shape else (a.shape, b.shape)}"
    return None


def differ_in_weights(whole: Path, out: Path) -> str | None:
    """As :func:`differ`, for a training."""
    import torch

    a, b = (torch.load(d / "checkpoint.pt", map_location="cpu", weights_only=True)["ema"] for d in (whole, out))
    changed = [k for k in a if not torch.equal(a[k], b[k])]
    return f"weights differ: {changed[:3]}" if changed else None


def scratch() -> Path:
    """A folder for a campaign."""
    return Path(tempfile.mkdtemp(prefix="bench-faults-"))

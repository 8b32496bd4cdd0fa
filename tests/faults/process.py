"""Commands of the suite in processes of their own that may be killed, starved and lied to.

A process is forked from one that has imported everything, so that a start costs a tenth of a second instead of five;
what it does is what ``python -m bench`` does.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 300.0
"""Seconds after which a command hangs."""


@dataclass
class Ended:
    """How a command ended.

    Attributes:
        code: exit code; the signal's number below zero where one ended it.
        text: what it wrote.
        seconds: how long it ran.

    """

    code: int
    text: str
    seconds: float

    @property
    def sentence(self) -> str | None:
        """Its one sentence, None where it wrote none, or a traceback."""
        said = [line for line in self.text.splitlines() if line.startswith("bench: ")]
        return said[-1] if said and "Traceback" not in self.text else None


class Started:
    """A command that runs.

    Args:
        words: of ``python -m bench``.
        log: file for what it writes.
        before: done in the process first: limits, lies about time.

    """

    def __init__(self, words: Sequence[str], log: Path, before: Callable[[], None] | None = None) -> None:
        self.log = log
        self.begun = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        ready, tell = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(ready)
            self._be(words, before, tell)
        os.close(tell)
        os.read(ready, 1)  # a signal before this would hit Python, not the command
        os.close(ready)

    def _be(self, words: Sequence[str], before: Callable[[], None] | None, tell: int) -> None:
        code = 99
        try:
            os.setsid()
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            file = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, 1)
            os.dup2(file, 2)
            sys.stdin = open(os.devnull)  # noqa: SIM115 -- for as long as the process lives
            sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
            if before:
                before()
            from bench.cli import main

            os.close(tell)
            code = main(words)
        except BaseException:  # noqa: BLE001 -- the parent judges what was written
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def signal(self, number: int) -> None:
        """Send a signal to it and what it started."""
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait(self, seconds: float = PATIENCE) -> Ended:
        """Wait for its end; TimeoutError, and it is killed, where it hangs."""
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() - self.begun > seconds:
                self.signal(signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise TimeoutError(f"hangs: {self.log.read_text()[-500:]}")
            time.sleep(0.005)
        return Ended(
            os.waitstatus_to_exitcode(status), self.log.read_text(errors="replace"), time.monotonic() - self.begun
        )

    def end_after(self, seconds: float, number: int) -> Ended:
        """Send a signal after some seconds, unless it has ended before."""
        return self.do_after(seconds, lambda: self.signal(number))

    def do_after(self, seconds: float, act: Callable[[], object], once: Callable[[], bool] | None = None) -> Ended:
        """Do something after some seconds, from when `once` holds on, unless it has ended before; wait for its end."""
        since = None if once else self.begun
        while since is None or time.monotonic() - since < seconds:
            if since is None and once and once():
                since = time.monotonic()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                spent = time.monotonic() - self.begun
                return Ended(os.waitstatus_to_exitcode(status), self.log.read_text(errors="replace"), spent)
            time.sleep(0.002)
        act()
        return self.wait()


def marked(mark: str) -> dict[int, str]:
    """Processes with a text in the environment that they were started with, and what they are called."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with suppress(OSError):  # it has ended
                if mark.encode() in (folder / "environ").read_bytes():
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    return found


def kill_all(pids: Iterable[int]) -> None:
    """SIGKILL to some processes, those that have ended already left out."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def import_everything() -> None:
    """Import what commands import, without computing anything: threads do not survive a fork.

    The script of report.html's plots is made once as well, which costs as much as half of a run.
    """
    import torch

    torch.set_num_threads(1)
    import bench.paper.reproduce
    import bench.report.calibration
    import bench.report.html.page
    import bench.report.plots
    import bench.run.runner
    import bench.training.trainer
    import methods.cvdvae.training
    import methods.hcflow.method  # noqa: F401

    bench.report.html.page.plotting()

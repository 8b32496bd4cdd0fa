"""Deaths in a run with workers: of the driver alone, of the driver and all that it has started, and of one worker."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults.campaign import LONG, RUN, Campaign, Kept, Outcome, differ
from tests.faults.process import Started, kill_all, marked

LAUNCH = {name: (*RUN, f"launch={name}", "launch.workers=2", "launch.cpus=1") for name in ("local", "ray")}
WORKER = ("ray::_Actor", "bench.launch.folder")
"""How processes of workers are called."""
GOES = 60.0
"""Seconds after which nothing that a driver has started may be left, when that driver has died."""


class Launched:
    """A run with two workers on this machine.

    Args:
        campaign: whose.
        launch: "local" or "ray".

    """

    def __init__(self, campaign: Campaign, launch: str) -> None:
        self.campaign, self.name, self.words = campaign, launch, LAUNCH[launch]
        # only what is started by a command carries it, not this process
        self.mark = os.environ["BENCH_FAULTS"] = f"{campaign.folder}-{os.getpid()}"
        os.environ["RAY_TMPDIR"] = str(campaign.folder / "ray")  # what dead clusters leave goes with the campaign's

    def start(self, out: Path, before: Callable[[], None] | None = None, more: tuple[str, ...] = ()) -> Started:
        """Start it into a directory."""

        def prepare() -> None:
            two_cores()
            if before:
                before()

        return self.campaign.start((*self.words, *more), out, prepare)

    def seconds(self, outcome: Outcome) -> float:
        """How long it takes undisturbed; its tables must be those of one process."""
        whole, out = self.campaign.whole(RUN), self.campaign.fresh("launched")
        ended = self.start(out).wait()
        assert ended.code == 0, ended.text[-1000:]
        difference = differ(whole, out)
        outcome.wrong += [f"undisturbed: {difference}"] if difference else []
        return ended.seconds

    def left(self) -> list[str]:
        """What a dead driver has left after a while, which is ended here."""
        deadline = time.monotonic() + GOES
        while (found := marked(self.mark)) and time.monotonic() < deadline:
            time.sleep(0.1)
        kill_all(found)
        return [f"left behind: {sorted(found.values())[:3]}"] if found else []

    def kills(self, times: int, number: int = signal.SIGKILL) -> Outcome:
        """A signal at a random point, up to three times; then one process finishes it, and another is begun.

        SIGKILL hits the driver alone in one half, and in the other all that it has started too. The next start comes
        before what the dead driver has left is gone.
        """
        outcome = Outcome(f"run, two workers ({self.name}): {signal.Signals(number).name}")
        allowed = {signal.SIGKILL: (), signal.SIGTERM: (143,), signal.SIGINT: (130,)}[signal.Signals(number)]
        seconds = self.seconds(outcome)
        orphans: dict[int, float] = {}
        while outcome.times < times:
            out, kept = self.campaign.fresh("launched"), Kept()
            for _ in range(
                min(self.campaign.rng(outcome.fault, -outcome.times - 1).randint(1, 3), times - outcome.times)
            ):
                rng = self.campaign.rng(outcome.fault, outcome.times)
                started, everything = self.start(out), rng.random() < 0.5

                def end(started: Started = started, everything: bool = everything) -> None:
                    if number != signal.SIGKILL:
                        started.signal(number)
                        return
                    os.kill(started.pid, signal.SIGKILL)
                    if everything:
                        kill_all(marked(self.mark))

                ended = started.do_after(rng.uniform(0.05, 1.1 * seconds), end)
                outcome.note(ended, (0, 1, *allowed))
                outcome.wrong += kept.lost(out)
                now, found = time.monotonic(), marked(self.mark)
                orphans = {pid: orphans.get(pid, now) for pid in found}
                stayed = [found[pid] for pid, since in orphans.items() if now - since > GOES]
                outcome.wrong += [f"still there after {GOES:.0f} s: {stayed[:3]}"] if stayed else []
            self.campaign.finish(outcome, RUN, out)  # another launcher goes on as well
            outcome.wrong += kept.lost(out)
        outcome.wrong += self.left()
        return outcome

    def worker_kills(self, times: int) -> Outcome:
        """SIGKILL to one worker while the run goes on, which costs a batch at most and is done all the same."""
        outcome = Outcome(f"run, two workers ({self.name}): SIGKILL of a worker")
        whole = self.campaign.whole(LONG)
        for i in range(times):
            rng = self.campaign.rng(outcome.fault, i)
            out, kept = self.campaign.fresh("launched"), Kept()

            def workers() -> list[int]:
                return sorted(p for p, name in marked(self.mark).items() if any(w in name for w in WORKER))

            def kill(rng: random.Random = rng, kept: Kept = kept, out: Path = out) -> None:
                kept.lost(out)
                kill_all(rng.sample(workers(), 1) if workers() else [])

            ended = self.start(out, more=("limit=60",)).do_after(rng.uniform(0, 20), kill, once=lambda: bool(workers()))
            outcome.note(ended, (0,))
            outcome.ends["worker died"] += "another takes its work" in ended.text
            outcome.wrong += kept.lost(out)
            difference = differ(whole, out) if ended.code == 0 else None
            outcome.wrong += [difference] if difference else []
            outcome.wrong += self.left()
        return outcome


def two_cores() -> None:
    """Let two workers share one core where this process has no second one."""
    if len(os.sched_getaffinity(0)) < 2:
        os.sched_getaffinity = lambda _: {0, 1}


def limit_first_worker(limit: Callable[[], object]) -> None:
    """Have something done in the process of the first worker that is started, before it begins."""
    real, first = subprocess.Popen, [True]

    def popen(arguments: list[str], **options: object) -> object:
        if "bench.launch.folder" in arguments and first:
            first.clear()
            options["preexec_fn"] = limit
        return real(arguments, **options)  # type: ignore[call-overload]

    subprocess.Popen = popen  # type: ignore[assignment,misc]


def limited_worker(campaign: Campaign, outcome: Outcome, out: Path, limit: Callable[[], object]) -> None:
    """A run with two workers, the first of which has little memory: done, or a sentence of the driver's."""
    launched, kept = Launched(campaign, "local"), Kept()
    ended = launched.start(out, lambda: limit_first_worker(limit)).wait()
    outcome.note(ended)
    outcome.ends["worker died"] += "another takes its work" in ended.text
    kept.lost(out)
    campaign.finish(outcome, RUN, out)
    outcome.wrong += kept.lost(out) + launched.left()

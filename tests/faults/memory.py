"""Too little memory: an address space (``ulimit -v``), which calls report, and a cgroup, whose kernel kills."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from bench.report.html.page import plotting
from tests.faults.campaign import LIBRARY, RUN, Campaign, Kept, Outcome
from tests.faults.launched import limited_worker
from tests.faults.process import kill_all

CGROUP = Path("/sys/fs/cgroup")


def limited_run(campaign: Campaign, outcome: Outcome, limit: Callable[[], None], library: Iterable[int] = ()) -> None:
    """A run whose process calls `limit` first, and the start without it; a library may end the former so."""
    out, kept = campaign.fresh("memory"), Kept()
    outcome.note(campaign.start(RUN, out, limit).wait(), (0, 1, *library))
    kept.lost(out)
    campaign.finish(outcome, RUN, out)
    outcome.wrong += kept.lost(out)


def address_space(campaign: Campaign, times: int) -> Outcome:
    """An address space a random amount above what the process has when it starts."""
    outcome = Outcome("run: memory limit (ulimit -v)")
    for i in range(times):
        more = int(campaign.rng(outcome.fault, i).uniform(0.0, 0.5) * 2**30)

        def limit(more: int = more) -> None:
            plotting.cache_clear()  # its process has the limit too
            have = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
            resource.setrlimit(resource.RLIMIT_AS, (have + more, resource.RLIM_INFINITY))

        limited_run(campaign, outcome, limit, LIBRARY)
    return outcome


def address_space_of_worker(campaign: Campaign, times: int) -> Outcome:
    """An address space of up to four gigabytes for one of two workers."""
    outcome = Outcome("run, two workers (local): memory limit (ulimit -v) of one")
    for i in range(times):
        size = int(campaign.rng(outcome.fault, i).uniform(0.1, 4.0) * 2**30)

        def limit(size: int = size) -> None:
            resource.setrlimit(resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))

        limited_worker(campaign, outcome, campaign.fresh("memory"), limit)
    return outcome


def cgroup(campaign: Campaign, times: int) -> Outcome:
    """A cgroup with a random part of the memory that the run takes; the kernel kills what exceeds it."""
    outcome = Outcome("run: memory limit (cgroup)")
    campaign.whole(RUN)
    with Group() as group:
        ended = campaign.start(RUN, campaign.fresh("memory"), group.join).wait()
        assert ended.code == 0, ended.text[-1000:]
        needed = group.peak
    for i in range(times):
        with Group(int(campaign.rng(outcome.fault, i).uniform(0.05, 1.0) * needed)) as group:
            limited_run(campaign, outcome, group.join)
    return outcome


def cgroup_of_worker(campaign: Campaign, times: int) -> Outcome:
    """As `cgroup` for one of two workers, of which the driver tells."""
    outcome = Outcome("run, two workers (local): memory limit (cgroup) of one")
    with Group() as group:
        limited_worker(campaign, Outcome(""), campaign.fresh("memory"), group.join)
        needed = group.peak
    for i in range(times):
        with Group(int(campaign.rng(outcome.fault, i).uniform(0.05, 1.0) * needed)) as group:
            limited_worker(campaign, outcome, campaign.fresh("memory"), group.join)
    return outcome


class Group:
    """A cgroup of memory, of version 1 or 2; PermissionError where one cannot be made.

    Args:
        limit: bytes; None for as many as there are.

    """

    def __init__(self, limit: int | None = None) -> None:
        self.old = (CGROUP / "memory" / "cgroup.procs").exists()
        self.folder = (CGROUP / "memory" if self.old else CGROUP) / f"bench-fault-{os.getpid()}"
        self.limit = limit

    def __enter__(self) -> Group:
        try:
            self.folder.mkdir(exist_ok=True)
            if self.limit is not None:
                (self.folder / ("memory.limit_in_bytes" if self.old else "memory.max")).write_text(str(self.limit))
                with suppress(OSError):  # else it would be slow, not killed
                    name = "memory.memsw.limit_in_bytes" if self.old else "memory.swap.max"
                    (self.folder / name).write_text(str(self.limit if self.old else 0))
            self.peak  # noqa: B018 -- no controller of memory here
        except OSError as reason:
            with suppress(OSError):
                self.folder.rmdir()
            raise PermissionError(f"no cgroup of memory: {reason}") from reason
        return self

    def __exit__(self, *error: object) -> None:
        kill_all(int(pid) for pid in (self.folder / "cgroup.procs").read_text().split())
        for _ in range(100):
            with suppress(OSError):  # its processes are just ending
                self.folder.rmdir()
                return
            time.sleep(0.05)

    def join(self) -> None:
        """Put this process into it."""
        (self.folder / "cgroup.procs").write_text("0")

    @property
    def peak(self) -> int:
        """Bytes that it has had at most."""
        return int((self.folder / ("memory.max_usage_in_bytes" if self.old else "memory.peak")).read_text())

"""The whole campaign: ``python -m tests.faults [--share 1.0] [--only kills disks ...]``; 1.0 is what the page has."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tabulate import tabulate

from tests.faults import memory
from tests.faults.cache import damaged_cache
from tests.faults.campaign import REPRODUCE, RUN, TRAIN, Campaign, Outcome, scratch
from tests.faults.launched import Launched
from tests.faults.process import import_everything


def main() -> int:
    """Print the table; exit with 1 where something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of the times")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--only", nargs="+", default=[])
    a = parser.parse_args()
    import_everything()
    campaign = Campaign(a.folder or scratch(), a.seed)

    def times(count: int) -> int:
        return max(1, round(a.share * count))

    local, ray = (lambda: Launched(campaign, "local")), (lambda: Launched(campaign, "ray"))
    faults: dict[str, Callable[[], Outcome]] = {
        "kill-run": lambda: campaign.kills(RUN, times(70)),  # a hundred with the next two
        "kill-run-workers": lambda: local().kills(times(15)),
        "kill-run-ray": lambda: ray().kills(times(15)),
        "kill-worker": lambda: local().worker_kills(times(10)),
        "kill-worker-ray": lambda: ray().worker_kills(times(10)),
        "kill-train": lambda: campaign.kills(TRAIN, times(20)),
        "kill-reproduce": lambda: campaign.kills(REPRODUCE, times(20)),
        "damage-run": lambda: campaign.damaged_files(RUN, times(80)),
        "damage-train": lambda: campaign.damaged_files(TRAIN, times(20)),
        "damage-cache": lambda: damaged_cache(campaign, times(30)),
        "disk": lambda: campaign.full_disks(times(20)),
        "memory": lambda: memory.address_space(campaign, times(20)),
        "memory-worker": lambda: memory.address_space_of_worker(campaign, times(10)),
        "cgroup": lambda: memory.cgroup(campaign, times(20)),
        "cgroup-worker": lambda: memory.cgroup_of_worker(campaign, times(10)),
        "term-run": lambda: campaign.kills(RUN, times(20), signal.SIGTERM),
        "term-run-workers": lambda: local().kills(times(5), signal.SIGTERM),
        "term-run-ray": lambda: ray().kills(times(5), signal.SIGTERM),
        "term-train": lambda: campaign.kills(TRAIN, times(10), signal.SIGTERM),
        "term-reproduce": lambda: campaign.kills(REPRODUCE, times(10), signal.SIGTERM),
        "interrupt-run": lambda: campaign.kills(RUN, times(20), signal.SIGINT),
        "interrupt-run-workers": lambda: local().kills(times(5), signal.SIGINT),
        "interrupt-run-ray": lambda: ray().kills(times(5), signal.SIGINT),
        "interrupt-train": lambda: campaign.kills(TRAIN, times(10), signal.SIGINT),
        "interrupt-reproduce": lambda: campaign.kills(REPRODUCE, times(10), signal.SIGINT),
        "two": lambda: campaign.two_starts(times(10)),
        "late": lambda: campaign.late_folder(times(10)),
        "clock": lambda: campaign.clock_jumps(times(5)),
    }
    rows, wrong = [], []
    for name, fault in faults.items():
        if a.only and name not in a.only:
            continue
        begun = time.monotonic()
        try:
            outcome = fault()
        except PermissionError as reason:
            print(f"{name}: not possible here ({reason})", flush=True)
            continue
        except TimeoutError as reason:
            print("WRONG", name, reason, flush=True)
            wrong.append(str(reason))
            continue
        ends = ", ".join(f"{count} {end}" for end, count in sorted(outcome.ends.items()))
        rows.append([outcome.fault, outcome.times, ends, len(outcome.wrong), f"{time.monotonic() - begun:.0f}"])
        print(rows[-1], flush=True)
        for line in outcome.wrong:
            print("WRONG", line, flush=True)
            wrong.append(line)
    print(tabulate(rows, headers=["fault", "times", "how commands ended", "wrong", "s"], tablefmt="pipe"))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

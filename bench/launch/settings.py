"""The settings of launching: where workers run, how many, and what each of them has."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal

from bench.errors import BenchError
from bench.settings import Settings, setting


class LaunchConfig(Settings):
    """Where a command computes; the group ``launch``."""

    name: Literal["local", "ray", "slurm"] = setting("local", help="chosen by launch=local, launch=ray or launch=slurm")
    workers: int | None = setting(
        None, ge=1, help="processes; null for one here, and on Ray for one per GPU or per `cpus` cores"
    )
    cpus: int | None = setting(None, ge=1, help="cores and threads of each process; null for as many as PyTorch takes")
    gpus: int | None = setting(None, ge=0, help="GPUs of each worker; null for 1 where device is one, else 0")
    address: str | None = setting(
        None, help="of a Ray cluster, as auto or HOST:6379, null to start Ray here; on Slurm, local tries it here"
    )
    minutes: int = setting(1440, ge=1, help="time limit of each job on Slurm; a job that ends is followed by another")
    options: Mapping[str, Any] | None = setting(None, help="options of sbatch, as {partition: gpu, account: faces}")

    @property
    def elsewhere(self) -> bool:
        """Whether there are workers at all: not for one process here."""
        return self.name != "local" or (self.workers or 1) > 1


def check_launch(config: LaunchConfig) -> None:
    """Raise BenchError for settings of launching that do not go together, before anything is begun."""
    if config.name == "slurm":
        for key in ("workers", "cpus"):
            if getattr(config, key) is None:
                raise BenchError(f"launch=slurm needs launch.{key}=N: this machine's cores say nothing of its nodes.")
    if config.name == "slurm" and config.address not in (None, "local"):
        raise BenchError(f"launch.address={config.address} is none of launch=slurm: leave it out, or give local.")
    if config.name == "local" and config.address is not None:
        raise BenchError("launch.address is of a Ray cluster: add launch=ray, or leave it out.")
    if config.name != "slurm" and config.options:
        raise BenchError("launch.options are those of sbatch: add launch=slurm, or leave them out.")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_cores(config: LaunchConfig, there: int, cpus: int, where: str) -> None:
    """Raise BenchError where the workers need more cores than there are."""
    workers = config.workers or 1
    if workers * cpus > there:
        fewer = max(there // workers, 1)
        mend = f"launch.cpus={fewer}" if fewer < cpus else f"launch.workers={max(there // cpus, 1)}"
        raise BenchError(
            f"{workers} workers of {cpus} threads need {workers * cpus} cores, {where} has {there}: use {mend}."
        )


def check_gpus(workers: int, gpus: int, there: int) -> None:
    """Raise BenchError where the workers need more GPUs than this machine has."""
    if workers * gpus > there:
        raise BenchError(
            f"{workers} workers of {gpus} GPUs need {workers * gpus}, this machine has {there}: use a smaller "
            "launch.workers or launch.gpus=0."
        )

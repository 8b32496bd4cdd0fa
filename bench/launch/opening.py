"""Open the pool that the settings ask for."""

from __future__ import annotations

from pathlib import Path

from bench.launch.pool import Job, Pool
from bench.launch.settings import LaunchConfig, check_cores, cores


def open_pool(config: LaunchConfig, job: Job, folder: Path) -> Pool:
    """Open a pool of workers.

    Args:
        config: where, and how many.
        job: what they are made for.
        folder: for their tasks where they share a disk with the driver.

    Raises:
        BenchError: they cannot be had.

    """
    if config.name == "ray":
        from bench.launch.on_ray import RayPool

        return RayPool(job, config)
    from bench.launch.folder import ProcessPool, SlurmPool

    if config.name == "local":
        check_cores(config, cores(), job.threads, "this machine")
        return ProcessPool(folder, job, config.workers or 1)
    assert config.workers is not None
    return SlurmPool(folder, job, config.workers, config.minutes, dict(config.options or {}), config.address == "local")

"""The machine: what a run was measured on, and its memory, kept where it is freed and told when it ends."""

from __future__ import annotations

import ctypes
import gc
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = (
    "diverse-sr-bench", "torch", "torchvision", "numpy", "scipy", "pandas", "hydra-core",
    "piq", "lpips", "pyiqa", "diffusers",
)  # fmt: skip


def environment(device: str) -> dict[str, Any]:
    """Time, versions of the packages that matter, hardware, and the state of the source tree."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device,
        "device_name": device_name(device),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "cudnn_tf32": torch.backends.cudnn.allow_tf32,
        "packages": {name: v for name in PACKAGES if (v := _version(name))},
        "git": git_state(),
    }


def device_name(device: str) -> str:
    """Model name of the GPU or the processor."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def git_state() -> dict[str, Any] | None:
    """Commit of the source tree and whether it has changes; None where there is no repository."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=30
        ).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an exception means that a device or the host has no memory left."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)  # PyTorch's CPU allocator raises a plain RuntimeError
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "not enough memory" in text)


def release_memory() -> None:
    """Give cached blocks back to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def leave_modules_out_of_collections() -> None:
    """Let later collections of garbage pass over what is loaded now, once per process: before a run makes anything.

    A method's end collects garbage, so that its device has the memory at once; without this every collection goes
    through the 300,000 objects of PyTorch and other modules, 0.16 s each time. What the caller holds at that time is
    left out too: a cycle of it that is dropped later keeps its memory until the process ends.
    """
    if not gc.get_freeze_count():
        gc.collect()
        gc.freeze()


def keep_freed_memory() -> bool:
    """Let the C library keep large blocks that are freed, for the rest of the process.

    By default glibc asks the system for every large tensor and gives it back, and the system clears it page by page: at
    256 pixels that was a quarter of CVDVAE's time on a CPU (docs/speed.md). The process keeps its largest size then.

    Returns:
        whether it could be set (glibc only).

    """
    m_trim_threshold, m_mmap_max = -1, -4
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(m_mmap_max, 0) and mallopt(m_trim_threshold, -1))

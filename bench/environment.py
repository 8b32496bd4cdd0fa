"""What a run was measured on."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = (
    "diverse-sr-bench", "torch", "torchvision", "numpy", "scipy", "pandas", "hydra-core",
    "piq", "lpips", "stlpips_pytorch", "pyiqa", "diffusers",
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


def file_hashes(paths: Iterable[Path]) -> dict[str, str]:
    """File name to sha256."""
    hashes = {}
    for path in paths:
        with path.open("rb") as file:
            hashes[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

"""Memory: keep what is freed on the host, and recognise its end, to go on with half the work at a time."""

from __future__ import annotations

import ctypes
import gc

import torch


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

"""Out of memory: recognise it, and go on with half the work at a time."""

from __future__ import annotations

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

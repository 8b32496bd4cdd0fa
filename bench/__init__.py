"""Benchmark suite for diverse image super-resolution.

From Python, with the settings of the command line::

    from bench import load_method

    method = load_method("cvdvae", scale=8)
    x = method.sample(y, 5, 0.8)  # [B, 3, h, w] -> [B, 5, 3, 8 h, 8 w], both float32 in [0, 1]

Method authors need :mod:`bench.contract` only; everything else is what happens to a method once it is registered.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.load import load_method

__version__ = "0.1.0"
__all__ = ["load_method"]


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is used, not with the package."""
    if name == "load_method":
        from bench.load import load_method

        return load_method
    raise AttributeError(f"module 'bench' has no attribute '{name}'")

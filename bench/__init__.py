"""Benchmark suite for diverse image super-resolution.

Method authors need :mod:`bench.contract` only; everything else is what happens to a method once it is registered.
"""

__version__ = "0.1.0"

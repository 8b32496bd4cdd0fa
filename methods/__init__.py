"""One file or folder per method; each registers itself with :func:`bench.contract.register_method`."""

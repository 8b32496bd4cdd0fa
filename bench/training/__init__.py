"""Training of any :class:`bench.contract.Trainable`: one trainer for all methods."""

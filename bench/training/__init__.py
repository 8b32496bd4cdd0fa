"""Training of any :class:`bench.training.trainable.Trainable`: one trainer for all methods."""

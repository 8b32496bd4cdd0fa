"""The unconditional diffusion prior of the zero-shot samplers: network, schedule, checkpoints, training."""

from methods.diffusion import training  # noqa: F401 -- it registers

"""What the U-Nets of diffusion models have in common as settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from bench.network import Settings


class UnetShape(Settings):
    """Shape of a U-Net for diffusion.

    Attributes:
        size: side of the images.
        channels: channels at full resolution.
        multipliers: channels of each resolution relative to that, from the full one down.
        blocks: residual blocks per resolution.
        attention: resolutions with self-attention (the lowest has it in any case).
        patch: the network sees squares of patch x patch pixels as channels, at `size / patch` pixels; `channels`,
            `multipliers` and `attention` count from there. 1 for the published networks; 2 costs a small network 2.5
            times less at the same width.
        prediction: what the network's output stands for: "noise" (published) or "velocity" (Salimans & Ho 2022), from
            which the noise is computed. A small network cannot copy its input exactly enough to predict nearly pure
            noise: at step 990 of 1000 an error of 0.05 in the noise is one of 7 in the image.

    """

    size: int = 256
    channels: int
    multipliers: Sequence[int]
    blocks: int = 1
    attention: Sequence[int]
    patch: int = 1
    prediction: Literal["noise", "velocity"] = "noise"

    @property
    def resolution(self) -> int:
        """Side of the first features."""
        return self.size // self.patch

    def attends(self, level: int) -> bool:
        """Whether a level (0: full resolution) has self-attention."""
        return self.resolution // 2**level in self.attention

"""What SR3 sees of y: its bicubic enlargement, in one of two kinds."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bench.operators.bicubic import enlarge

Condition = Literal["exact", "pil"]


def upsample(y: Tensor, size: tuple[int, int], condition: Condition = "exact") -> Tensor:
    """Enlarge observations.

    Args:
        y: [B, 3, h, w] in [0, 1].
        size: H, W.
        condition: "exact": MATLAB's kernel and borders, neither clipped nor rounded; "pil": 8 bits in, 8 bits out, by
            Pillow, as the public implementation prepares its data (data/prepare_data.py). Their kernels are the same;
            Pillow leaves out what lies outside of the image where MATLAB mirrors it, and rounds after each axis.

    Returns:
        [B, 3, H, W] in [-1, 1] ("exact" overshoots at edges), on the device of y.

    """
    if condition == "exact":
        return 2 * enlarge(y, size) - 1
    levels = (255 * y).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    enlarged = [Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC) for image in levels]
    x = torch.from_numpy(np.stack([np.asarray(image) for image in enlarged])).permute(0, 3, 1, 2)
    return x.to(y.device, y.dtype) / 127.5 - 1

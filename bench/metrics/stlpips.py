"""The network of shift-tolerant LPIPS (AlexNet): BlurPool instead of strides, with its published weights.

Ghildyal & Liu, "Shift-tolerant Perceptual Similarity Metric", ECCV 2022: AlexNet whose first convolution has stride 1
and whose every reduction in size is a blur of [1 2 1] x [1 2 1] behind two mirrored pixels (Zhang 2019, "Making
Convolutional Networks Shift-Invariant Again"), trained from scratch.

``stlpips_alex.safetensors`` holds the float32 weights of the package ``stlpips_pytorch`` 0.0.2, unchanged but for their
names (``python -m scripts.export_stlpips --check``); see ``stlpips_alex.LICENSE.txt``. Half precision would move
distances between similar images by up to 1%.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import as_file, files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FILE = "stlpips_alex.safetensors"


def load_weights(device: torch.device | str) -> dict[str, Tensor]:
    """Tensors by name: ``conv1.weight``, ``conv1.bias`` to ``conv5``, and ``lin1`` to ``lin5`` [1, C, 1, 1]."""
    from safetensors.torch import load_file

    with as_file(files("bench.metrics") / FILE) as path:
        return load_file(path, device=str(device))


def blur_pool(x: Tensor) -> Tensor:
    """Blur with the binomial filter of 3 taps and keep every second pixel; side s becomes (s + 3) // 2.

    The borders are mirrored by two pixels, so that sides of fewer than 3 cannot be pooled.
    """
    import torch.nn.functional as F

    tap = x.new_tensor([1.0, 2.0, 1.0]) / 4
    channels = x.shape[1]
    window = (tap[:, None] * tap).expand(channels, 1, 3, 3)
    return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), window, stride=2, groups=channels)


def features(weights: Mapping[str, Tensor], x: Tensor) -> list[Tensor]:
    """Rectified features of the five convolutions.

    Args:
        weights: of `load_weights`.
        x: [M, 3, H, W], normalised as for LPIPS.

    Returns:
        [M, C, h, w] with 64 channels at about half the side, 192 at a quarter, and 384, 256 and 256 at an eighth.

    """
    import torch.nn.functional as F

    def convolve(x: Tensor, k: int, padding: int) -> Tensor:
        return F.conv2d(x, weights[f"conv{k}.weight"], weights[f"conv{k}.bias"], padding=padding)

    def shrink(x: Tensor) -> Tensor:
        return blur_pool(F.max_pool2d(x, 3, stride=1))

    first = blur_pool(convolve(x, 1, padding=2)).relu()
    second = convolve(shrink(first), 2, padding=2).relu()
    third = convolve(shrink(second), 3, padding=1).relu()
    fourth = convolve(third, 4, padding=1).relu()
    return [first, second, third, fourth, convolve(fourth, 5, padding=1).relu()]

"""Draw portraits: the layers from the background to the grain of the camera."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bench.data.synthfaces import face, surroundings, things
from bench.data.synthfaces.hair import Hair
from bench.data.synthfaces.scene import Scene
from bench.data.synthfaces.view import View


def render(indices: Sequence[int], size: int, device: torch.device | str = "cpu") -> Tensor:
    """Draw portraits.

    Args:
        indices: non-negative numbers of portraits.
        size: side in pixels.
        device: where to compute.

    Returns:
        uint8 [N, size, size, 3] on the device.

    """
    with torch.no_grad():
        s = View.make(Scene.draw(indices), size, torch.device(device))
        hair = Hair(s)
        image = surroundings.background(s)
        image = hair.back(image)
        bare = s.p["skin"].expand_as(image)
        image = surroundings.neck(s, image, bare)
        image = surroundings.clothes(s, image)
        image = hair.falls(image)
        image, eye = face.head(s, image)
        image = things.glasses(s, image, eye)
        image = things.earrings(s, image)
        image = hair.front(image)
        image = things.hat(s, image)
        return (_develop(s, image) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _develop(s: View, image: Tensor) -> Tensor:
    """What a camera adds: exposure, contrast, colour, vignette and grain."""
    p = s.p
    fall = 1 - p["vignette"] * (s.x.square() + s.y.square()) * 0.5
    warm = torch.stack([1 + p["warmth"], torch.ones_like(p["warmth"]), 1 - p["warmth"]], 1)
    image = image * (p["exposure"] * fall)[:, None] * warm
    grey = image.mean(1, keepdim=True)
    image = torch.lerp(grey, image, p["saturation"][:, None])
    image = (image - 0.45) * p["contrast"][:, None] + 0.45
    image = torch.where(image > 0.7, 0.7 + 0.3 * torch.tanh((image - 0.7) / 0.35), image)
    image = _blur(image)
    one, two = s.noise("fine", 0, s.x, s.y, 256)
    grain = torch.stack([one, 0.7 * one + 0.7 * two, two], 1)
    return (image + p["grain"][:, None] * grain).clamp(0, 1)


def _blur(image: Tensor, side: float = 0.07) -> Tensor:
    """The point spread of a lens: three taps along both axes."""
    for axis in (-1, -2):
        padded = torch.cat([image.narrow(axis, 0, 1), image, image.narrow(axis, image.shape[axis] - 1, 1)], axis)
        around = padded.narrow(axis, 0, image.shape[axis]) + padded.narrow(axis, 2, image.shape[axis])
        image = torch.lerp(image, around / 2, 2 * side)
    return image

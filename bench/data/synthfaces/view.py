"""Coordinates, coverage and blending: what every layer of the renderer works with.

Coordinates are in half sides of the image, x to the right and y down, so that the picture spans [-1, 1]. Shapes are
given as signed distances (positive inside); `cover` turns them into anti-aliased coverage. Tensors are [B, H, W] for
scalars and [B, 3, H, W] for colours (sRGB in [0, 1]).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.data.synthfaces import texture
from bench.data.synthfaces.scene import Scene

HEAD_Y = -0.03
"""Height of the skull's centre in the head's frame."""


@dataclass
class View:
    """The pixel grid of a batch in three frames.

    Attributes:
        p: parameters of the scenes, numbers [B, 1, 1] and colours [B, 3, 1, 1].
        pixel: side of a pixel.
        x: image coordinates, [1, H, W].
        y: likewise.
        u: the head's frame (rolled, shifted and zoomed with it), [B, H, W].
        v: likewise.
        r: radius in the head's frame, 1 on the outline of the face.
        z: depth of the head, 0 on its outline, about 1 in its middle.
        fu: the face's frame (turned with it by yaw and pitch), [B, H, W]; features are placed here.
        fv: likewise.
        light: [B, 3, 1, 1] direction towards the key light.

    """

    p: dict[str, Tensor]
    pixel: float
    x: Tensor
    y: Tensor
    u: Tensor
    v: Tensor
    r: Tensor
    z: Tensor
    fu: Tensor
    fv: Tensor
    light: Tensor

    @classmethod
    def make(cls, scene: Scene, size: int, device: torch.device) -> View:
        """Lay the grid."""
        p = scene.tensors(device)
        centres = (torch.arange(size, device=device) + 0.5) * (2 / size) - 1
        x, y = centres[None, None, :].expand(1, size, size), centres[None, :, None].expand(1, size, size)
        sin, cos = p["roll"].sin(), p["roll"].cos()
        px, py = (x - p["dx"]) / p["zoom"], (y - p["dy"]) / p["zoom"]
        u, v = px * cos + py * sin, py * cos - px * sin
        down = (v - HEAD_Y) / p["height"]
        # the far side of a turned head is shorter
        half = (
            p["width"]
            * (1 - 0.8 * p["jaw"] * smooth(0.05, 1.1, down))
            * (1 + 0.10 * bell(down, 0.72, 0.3) + 0.13 * bell(down, -0.72, 0.38))
            * (1 + 0.35 * p["yaw"] * torch.sign(u))
        )
        r = ((u / half).square() + down.square()).sqrt()
        z = (1 - r.square()).clamp(min=0.0).sqrt()
        fu, fv = u - 0.62 * p["yaw"] * z, v - 0.55 * p["pitch"] * z
        towards = torch.stack([p["light_x"], p["light_y"], torch.full_like(p["light_x"], 0.75)], 1)
        light = towards / towards.square().sum(1, keepdim=True).sqrt()
        return cls(p, 2 / size, x, y, u, v, r, z, fu, fv, light)

    def cover(self, distance: Tensor, soft: float = 0.0) -> Tensor:
        """Coverage in [0, 1] of a signed distance, blurred over at least a pixel and a half."""
        width = max(1.5 * self.pixel, soft)
        return smooth(-width / 2, width / 2, distance)

    def noise(self, name: str, k: int, x: Tensor, y: Tensor, texels: float, blur: float = 0.0) -> tuple[Tensor, Tensor]:
        """Two fields of a texture at coordinates of our own, offset for layer `k` of each image."""
        return texture.noise(name, x + self.p[f"ox{k}"], y + self.p[f"oy{k}"], texels, self.pixel, blur)

    def shade(self, height: Tensor, wrap: float = 0.25) -> tuple[Tensor, Tensor]:
        """Light a height field: diffuse [B, H, W] in [0, 1] and the half-way cosine for highlights."""
        nx, ny = slope(height, self.pixel)
        norm = torch.rsqrt(nx.square() + ny.square() + 1)
        lx, ly, lz = self.light.unbind(1)
        dot = (lz - nx * lx - ny * ly) * norm
        half = torch.rsqrt(lx.square() + ly.square() + (lz + 1).square())
        gleam = ((lz + 1) - nx * lx - ny * ly) * norm * half
        return ((dot + wrap) / (1 + wrap)).clamp(0, 1), gleam.clamp(0, 1)

    def lit(self, diffuse: Tensor) -> Tensor:
        """Brightness of a surface."""
        return self.p["ambient"] + self.p["key"] * diffuse


def smooth(low: float | Tensor, high: float | Tensor, x: Tensor) -> Tensor:
    """Smooth step from 0 at `low` to 1 at `high`."""
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def falloff(q: Tensor) -> Tensor:
    """exp(-q) for q >= 0 nearly, but 0 from q = 8 on: far cheaper, and free of denormal numbers."""
    return (1 - q / 8).clamp(min=0).square().square().square()


def bump(
    x: Tensor, y: Tensor, cx: Tensor | float, cy: Tensor | float, sx: Tensor | float, sy: Tensor | float
) -> Tensor:
    """A Gaussian-like hill of height 1."""
    return falloff(((x - cx) / sx).square() + ((y - cy) / sy).square())


def bell(x: Tensor, centre: Tensor | float, width: Tensor | float) -> Tensor:
    """A Gaussian-like hill of height 1 along one coordinate."""
    return falloff(((x - centre) / width).square())


def slope(height: Tensor, pixel: float) -> tuple[Tensor, Tensor]:
    """Central differences of a height field."""
    dx, dy = torch.zeros_like(height), torch.zeros_like(height)
    dx[..., 1:-1] = (height[..., 2:] - height[..., :-2]) / (2 * pixel)
    dy[..., 1:-1, :] = (height[..., 2:, :] - height[..., :-2, :]) / (2 * pixel)
    return dx, dy


def over(image: Tensor, colour: Tensor, alpha: Tensor) -> Tensor:
    """Lay a colour [B, 3, H, W] over an image with coverage [B, H, W]."""
    return torch.lerp(image, colour.expand_as(image), alpha[:, None])


def times(image: Tensor, factor: Tensor) -> Tensor:
    """Multiply an image by a brightness [B, H, W]."""
    return image * factor[:, None]

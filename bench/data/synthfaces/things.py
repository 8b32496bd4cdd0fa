"""Glasses, hats and earrings."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.data.synthfaces.face import Eye
from bench.data.synthfaces.scene import HAIR_STYLES, HATS
from bench.data.synthfaces.view import HEAD_Y, View, bell, bump, over, smooth, times


def glasses(s: View, image: Tensor, e: Eye) -> Tensor:
    """Frames, bridge, temples, tinted or clear lenses with a reflection and a shadow on the skin."""
    p = s.p
    worn = p["glasses"]
    dx, dy = e.dx - 0.006, s.fv - p["eye_y"] - 0.012
    power = 2 + 2.5 * (1 - p["frame_round"])
    ring = ((dx.abs() / p["frame_w"] + 1e-4).pow(power) + (dy.abs() / p["frame_h"] + 1e-4).pow(power)).pow(1 / power)
    inside = (1 - ring) * (p["frame_w"] + p["frame_h"]) / 2
    thick = p["frame_thick"].clamp(min=0.55 * s.pixel)
    frame = thick - inside.abs()
    gap = p["eye_x"] - p["frame_w"]
    bridge = torch.where(
        s.fu.abs() < gap + 0.02, thick * 1.1 - (dy + 0.045 - 0.25 * s.fu.square() / gap * 0.4).abs(), -0.1
    )
    outer = p["eye_x"] + p["frame_w"]
    temple = torch.where(s.fu.abs() > outer - 0.01, thick - (dy + 0.04).abs(), -0.1) * (s.r < 1.02)
    temple = torch.where(s.r < 1.02, temple, -0.1)
    drawn = torch.maximum(torch.maximum(frame, bridge), temple)
    shadow = smooth(-0.03, 0.004, torch.maximum(frame, bridge).roll(max(1, round(0.03 / s.pixel)), -2))
    image = times(image, 1 - 0.22 * shadow * worn)
    lens = s.cover(inside) * worn
    image = over(image, torch.full_like(image, 0.06) + 0.10 * p["bg_a"], lens * (0.04 + 0.9 * p["tint"]))
    streak = smooth(0.05, 0.0, (dx * e.side + 0.8 * dy - 0.05 * p["light_x"]).abs()) * smooth(0.06, -0.06, dy)
    image = image + (0.16 * streak * lens * (0.3 + p["shine"]))[:, None]
    highlight = bell(inside, 0.0, 0.7 * (thick * 0.5 + 1e-3)) * smooth(0.02, -0.06, dy)
    metal = times(p["frame_colour"].expand_as(image), 0.85 + 0.9 * highlight * p["shine"])
    return over(image, metal, s.cover(drawn) * worn)


def hat(s: View, image: Tensor) -> Tensor:
    """Cap, beanie or brimmed hat."""
    p = s.p
    cap, beanie, brim = (p["hat"] == HATS.index(n) for n in ("cap", "beanie", "brim"))
    x, y = s.u - 0.25 * p["yaw"], s.v - HEAD_Y
    w = p["width"] + torch.where(beanie, 0.065, 0.05) + 0.03 * p["volume"]
    h = p["height"] + torch.where(brim, 0.20, torch.where(cap, 0.06, 0.09))
    base = torch.where(beanie, -0.33, -0.42) + 0.16 * (x / w).square()
    flat = 1 + 0.16 * bell(y / h, -0.75, 0.38)
    round_ = ((x / (w * flat)).square() + (y / h).square()).sqrt()
    dome = torch.minimum((1 - round_) * w, base - y)
    fold, weave = s.noise("cloud", 2, x, y, 60)
    fine, _ = s.noise("fine", 3, x, y, 160)
    knit = torch.sin(x / w * 70 + 0.6 * torch.sin(y * 90)) * beanie
    crown = bell(y, base - 0.10, 0.014)
    height = 0.34 * (1.02 - round_.square()).clamp(min=0.02).sqrt() + 0.010 * fold + 0.003 * knit + 0.0015 * fine
    seams = cap * bell(x.abs(), 0.5 * w * (1 - round_), 0.008)
    cuff = beanie * s.cover(0.13 - (base - y))
    diffuse, _ = s.shade(height + 0.02 * cuff)
    band = brim * smooth(0.13, 0.12, base - y)
    colour = over(p["hat_colour"].expand_as(image), p["hat_colour"] * 0.35, band)
    lit = times(
        colour,
        s.lit(diffuse)
        * (1 + 0.05 * weave + 0.04 * fine + 0.06 * knit + 0.08 * cuff)
        * (1 - 0.25 * seams - 0.1 * crown * cap),
    )
    worn = p["hat"] > 0
    shadow = smooth(0.16, 0.0, y - base) * (y > base) * (s.r < 1.05) * worn
    image = times(image, 1 - 0.45 * shadow * torch.where(beanie, 0.45, 1.0))
    image = over(image, lit, s.cover(dome) * worn)
    # the brim: a crescent for a cap, a wide ellipse for a hat
    by = y - base - torch.where(cap, 0.015, -0.02)
    wide = torch.where(cap, w * 0.94, w * 1.55)
    deep = torch.where(cap, 0.10, 0.085)
    arc = (1 - ((x / wide).square() + (by / deep).square()).sqrt()) * deep
    arc = torch.where(cap, torch.minimum(arc, by + 0.02 + 0.05 * (x / wide).square()), arc)
    drawn = (cap | brim) & worn
    under = smooth(-0.6, 0.9, by / deep)
    visor = times(
        p["hat_colour"].expand_as(image), (0.95 - 0.45 * under) * (0.55 + 0.5 * p["ambient"]) * (1 + 0.04 * fine)
    )
    return over(image, visor, s.cover(arc) * drawn)


def earrings(s: View, image: Tensor) -> Tensor:
    """A pair of studs or drops where hair leaves the ears free."""
    p = s.p
    free = [float(name not in ("bob", "long", "wavy", "scarf")) for name in HAIR_STYLES]
    shown = p["earrings"] * torch.tensor(free, device=s.x.device)[p["hair"].long()]
    side = torch.where(s.u < 0, -1.0, 1.0)
    dx = s.u.abs() - p["width"] * 0.985 * (1 + 0.35 * p["yaw"] * side)
    top = 0.20
    radius = torch.where(p["earring_drop"] > 0.09, 0.060, 0.024)
    middle = top + torch.where(p["earring_drop"] > 0.09, radius, p["earring_drop"] * 0.5)
    distance = (dx.square() + (s.v - middle).square()).sqrt()
    hoop = 0.009 - (distance - radius).abs()
    pearl = radius - distance
    inside = torch.where(p["earring_drop"] > 0.09, hoop, pearl)
    light = (
        0.60
        + 0.5 * smooth(radius, -radius, s.v - middle)
        + 0.6 * bump(dx, s.v, -0.008, middle - 0.4 * radius, 0.008, 0.008)
    )
    return over(image, times(p["earring_colour"].expand_as(image), light), s.cover(inside) * shown)

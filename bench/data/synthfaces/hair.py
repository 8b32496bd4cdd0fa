"""Hair of every style: a shape behind the head, one in front of it, and strands that flow along both.

All styles share one formula; a row of `STYLES` says how far the hair reaches and how it lies, so that a batch of
different heads is one computation.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from bench.data.synthfaces.scene import HAIR_STYLES
from bench.data.synthfaces.view import HEAD_Y, View, bell, over, smooth, times

COLUMNS = ("out", "up", "fall", "side", "curl", "wave", "flow", "fuzz", "cover")
# out: how far the shape stands off the skull; up: extra height on top; fall: lower end of the sides (y); side: how far
# hair covers the cheeks; curl, wave: deviation of the strands; flow: 0 strands lie back from the face, 1 they fall
# around it; fuzz: raggedness of the outline; cover: opacity of the hair on the head
STYLES = {
    "bald": (0.00, 0.00, -0.9, -0.20, 0.0, 0.0, 0.0, 0.00, 0.00),
    "buzz": (0.02, 0.01, 0.02, -0.05, 0.3, 0.0, 0.0, 0.01, 0.80),
    "short": (0.05, 0.07, 0.05, -0.03, 0.2, 0.2, 0.1, 0.03, 0.97),
    "side_part": (0.07, 0.08, 0.06, -0.02, 0.1, 0.3, 0.4, 0.02, 0.98),
    "curly": (0.17, 0.12, 0.25, 0.00, 1.0, 0.5, 0.2, 0.07, 0.98),
    "bob": (0.15, 0.07, 0.55, 0.05, 0.0, 0.2, 1.0, 0.02, 0.99),
    "long": (0.14, 0.06, 1.60, 0.06, 0.0, 0.3, 1.0, 0.03, 0.99),
    "wavy": (0.20, 0.08, 1.10, 0.05, 0.1, 1.0, 1.0, 0.05, 0.98),
    "bun": (0.04, 0.05, 0.05, -0.01, 0.0, 0.1, 0.0, 0.01, 0.98),
    "scarf": (0.12, 0.06, 1.60, 0.09, 0.0, 0.0, 1.0, 0.00, 1.00),
}


class Hair:
    """Hair of a batch; `back` and `front` paint its two layers."""

    def __init__(self, s: View) -> None:
        self.s = s
        p = s.p
        table = torch.tensor([STYLES[n] for n in HAIR_STYLES], device=s.x.device)[p["hair"].flatten().long()]
        self.style = {name: table[:, i, None, None] for i, name in enumerate(COLUMNS)}
        t = self.style
        self.cloth = p["hair"] == HAIR_STYLES.index("scarf")
        self.bun = p["hair"] == HAIR_STYLES.index("bun")
        self.hat = p["hat"] > 0
        self.rough, self.clump = s.noise("cloud", 5, s.u, s.v, 60)
        self.bend, self.swirl = s.noise("blob", 6, s.u, s.v, 110)
        loose = t["out"] > 0.1
        self.grow = t["out"] * (0.7 + 0.6 * p["volume"]) + 0.0
        self.top = torch.where(self.hat, 0.0, t["up"] * (0.6 + 0.8 * p["volume"]))
        fall = torch.where(loose, t["fall"] * (0.75 + 0.35 * p["hair_length"]), t["fall"])
        self.fall = fall
        dy = s.v - HEAD_Y
        w = p["width"] + self.grow + 0.05 * t["wave"] * smooth(-0.2, 0.6, dy)
        h = p["height"] + self.top + 0.25 * self.grow
        upper = ((s.u / w).square() + (dy / h).square()).sqrt()
        # below the widest point the sides fall straight, drawn in a little at the end
        lower = s.u.abs() / (w * (1 - 0.10 * smooth(0.3, 1.0, dy) * (fall < 1.3)))
        self.radius = torch.where(dy < 0, upper, lower)
        end = fall + 0.05 * self.rough * loose - 0.10 * (s.u.abs() / w).square() * (fall < 1.0)
        outline = torch.minimum((1 - self.radius) * w, (end - s.v))
        self.outline = outline + t["fuzz"] * (0.6 * self.rough + 0.4 * self.clump) * 0.5
        self._strands(w)

    def _strands(self, w: Tensor) -> None:
        """Tone [B, H, W] about 1, and the height that shading sees."""
        s, t, p = self.s, self.style, self.s.p
        dy = s.v - HEAD_Y
        angle = torch.atan2(s.u - p["part"] * 0.5, 0.75 - dy) * 0.75
        seam = torch.tanh((s.u - p["part"] * 0.4) / 0.05)
        lying = torch.lerp(angle, self.radius * 0.5 * seam, t["flow"])
        along = torch.lerp(self.radius * 0.5, torch.atan2(dy, s.u.abs()) * 0.4, t["flow"])
        wavy = 0.030 * t["wave"] * torch.sin(15 * s.v + 2.5 * self.bend) + 0.014 * self.bend
        across = lying + wavy + 0.06 * t["curl"] * self.swirl
        curl, ring = s.noise("cloud", 6, s.u, s.v, 130)
        along = along + 0.08 * t["curl"] * self.bend
        # finer strands than a pixel are left to the texture's own band limit
        fine, wide = s.noise("fine", 4, across * 2.2 * p["strand"], along * 0.16, 100)
        lock, part = s.noise("cloud", 7, across * 2.6, along * 0.35, 42)
        self.tone = (
            1
            + 0.15 * fine
            + 0.13 * lock
            + 0.05 * wide
            + 0.22 * t["curl"] * torch.tanh(0.8 * curl + 0.5 * self.swirl + 0.3 * ring)
        )
        self.height = (
            0.34 * (1.02 - self.radius.square()).clamp(min=0.02).sqrt()
            + 0.0045 * lock + 0.0015 * fine + 0.006 * t["curl"] * (curl + self.swirl) + 0.003 * part
        )  # fmt: skip

    @cached_property
    def colour(self) -> Tensor:
        """Lit hair [B, 3, H, W]; cloth for a headscarf."""
        s, p = self.s, self.s.p
        diffuse, gleam = s.shade(self.height, wrap=0.4)
        band = bell(self.radius, 0.72 - 0.05 * self.rough, 0.16) * smooth(0.4, -0.2, s.v)
        shine = (
            p["hair_shine"]
            * (0.16 * gleam.pow(6) + 0.20 * band)
            * (0.35 + 0.65 * self.tone.clamp(0, 1.8))
            * (1 - 0.5 * self.style["curl"])
        )
        base = p["hair_colour"].expand(-1, -1, *s.x.shape[1:])
        tips = smooth(0.0, 1.0, s.v) * 0.25 * p["hair_shine"] * (self.fall > 0.5)
        base = over(base, (base * 1.5 + 0.06).clamp(0, 1), tips)
        hair = times(
            base, (0.30 + 0.85 * s.lit(diffuse)) * self.tone.clamp(0.4, 1.5).pow(1.25 - 0.5 * p["hair_colour"].mean(1))
        ) + shine[:, None] * (0.35 + base)
        folds, _ = s.noise("blob", 3, self.radius * 1.6, torch.atan2(s.v, s.u.abs()) * 0.30, 55)
        drape, _ = s.shade(0.30 * (1.05 - self.radius.square()).clamp(min=0.02).sqrt() + 0.022 * folds)
        cloth = times(p["hat_colour"].expand_as(hair), s.lit(drape) * (1 + 0.03 * self.rough))
        return torch.where(self.cloth[:, None], cloth, hair)

    def back(self, image: Tensor) -> Tensor:
        """What is behind the head and, for long hair, over the shoulders."""
        s = self.s
        colour = times(self.colour, 0.68 + 0.28 * smooth(0.75, 1.0, self.radius))
        knot = 0.17 - ((s.u - 0.3 * self.s.p["part"]).square() + (s.v + 0.95).square()).sqrt() + 0.01 * self.rough
        outline = torch.where(self.bun & ~self.hat, torch.maximum(self.outline, knot), self.outline)
        return over(image, colour, s.cover(outline, soft=0.012) * (self.style["out"] > 0))

    def falls(self, image: Tensor) -> Tensor:
        """Locks of long hair in front of the clothes."""
        s = self.s
        inner = self.s.p["width"] * (0.62 + 0.20 * smooth(0.5, 1.0, s.v)) + 0.04 * self.rough
        lock = torch.minimum(self.outline, s.u.abs() - inner)
        drawn = (self.fall > 0.7) & ~self.cloth
        image = times(image, 1 - 0.35 * smooth(-0.05, 0.0, lock) * (lock < 0) * drawn * (s.v > 0.55))
        scarf = torch.minimum(self.outline, s.v - 0.62 - 0.25 * (0.5 - s.u.abs()).clamp(min=0))
        image = over(image, self.colour, s.cover(lock, soft=0.02) * drawn * smooth(0.15, 0.55, s.v))
        return over(image, self.colour, s.cover(scarf) * self.cloth)

    def front(self, image: Tensor) -> Tensor:
        """The hair that grows on the head and frames the face."""
        s, t, p = self.s, self.style, self.s.p
        x, y = s.fu, s.fv
        a = x.abs()
        # forehead: higher in the middle of a receding hairline, rounded towards the temples
        line = -p["hairline"] + 0.62 * (a - 0.08).clamp(min=0).square() * 2.0 + 0.05 * self.rough
        line = line - 0.07 * (1 - p["fem"]) * p["age"] * bell(a, 0.24, 0.07)
        # a fringe reaches down to the brows
        fringe = p["fringe"] * (t["flow"] > 0.3) * ~self.cloth
        line = torch.lerp(line, -0.19 + 0.06 * self.clump + 0.25 * a.square(), fringe * smooth(0.34, 0.22, a))
        forehead = line - y
        temple = a - p["width"] * (0.99 - t["side"] * 1.6) + 0.45 * (0.10 - y).clamp(min=0).square() + 0.02 * self.bend
        curtain = torch.minimum(temple, self.fall - s.v)
        on_head = torch.maximum(forehead, torch.where(t["side"] > -0.1, curtain, torch.full_like(curtain, -1.0)))
        # short sides fade into the skin
        fade = torch.where(t["fall"] < 0.1, smooth(0.12, -0.22, s.v), 1.0)
        outline = torch.minimum(on_head + t["fuzz"] * 0.35 * self.clump, self.outline + 0.004)
        # cloth wraps the face in an oval
        oval = torch.minimum(
            ((x / (p["width"] * 0.86)).square() + ((y + 0.03) / (0.62)).square()).sqrt() - 1, self.outline / 0.4
        )
        outline = torch.where(self.cloth, 0.45 * oval, outline)
        shadow = smooth(-0.09, 0.0, outline) * (outline < 0) * (t["cover"] > 0) * (s.r < 1)
        image = times(image, 1 - 0.30 * shadow)
        soft = torch.where(self.cloth, 0.0, 0.02)
        edge = smooth(-0.75 * s.pixel - soft, 0.75 * s.pixel + soft, outline + 0.25 * soft * (self.tone - 1) * 4)
        ragged = (0.95 + 0.35 * (self.tone - 1)).clamp(0.5, 1)
        opacity = edge * t["cover"] * fade * torch.where(self.cloth, 1.0, ragged)
        return over(image, self.colour, opacity)

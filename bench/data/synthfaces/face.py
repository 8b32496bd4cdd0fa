"""The face: its relief, skin, eyes, brows, nose, mouth, ears and beard."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.data.synthfaces.scene import BEARDS
from bench.data.synthfaces.view import View, bell, bump, over, smooth, times


@dataclass
class Eye:
    """Geometry of both eyes on the pixel grid.

    Attributes:
        dx: distance from the centre of the nearer eye, positive away from the nose.
        dy: height below the eyes' line.
        opening: signed distance to the almond between the lids.
        upper: height of the upper lid, in the frame of dy.
        side: -1 on the left half of the picture, 1 on the right one.

    """

    dx: Tensor
    dy: Tensor
    opening: Tensor
    upper: Tensor
    side: Tensor


def eyes(s: View) -> Eye:
    """Place the eyes."""
    p = s.p
    side = torch.where(s.fu < 0, -1.0, 1.0)
    dx = s.fu.abs() - p["eye_x"]
    dy = s.fv - p["eye_y"] + p["eye_tilt"] * dx
    t = (dx / p["eye_w"]).clamp(-1, 1)
    arch = (1 - t.square()) * (1 + 0.25 * t * -1)
    squint = 1 - 0.25 * p["smile"]
    upper = -p["eye_open"] * squint * 1.12 * arch
    lower = p["eye_open"] * squint * 0.62 * arch
    opening = torch.minimum(dy - upper, lower - dy)
    return Eye(dx, dy, torch.where(dx.abs() < p["eye_w"], opening, -0.05), upper, side)


def relief(s: View, e: Eye) -> Tensor:
    """Height of the face over the picture plane, [B, H, W]."""
    p = s.p
    x, y = s.fu, s.fv
    a = x.abs()
    nose_y, mouth_y, nw = p["nose_y"], p["mouth_y"], p["nose_w"]
    h = 0.46 * (1 - s.r.square()).clamp(min=0.015).sqrt()
    h = h + 0.030 * bump(a, y, 0.20, p["eye_y"] - 0.125, 0.16, 0.055)  # brow ridge
    h = h - 0.034 * bump(a, y, p["eye_x"] - 0.02, p["eye_y"] - 0.01, 0.13, 0.085)  # sockets
    ball = ((e.dx / 0.10).square() + (e.dy / 0.075).square()).clamp(max=1)
    h = h + 0.030 * (1 - ball).sqrt()
    along = smooth(p["eye_y"] - 0.10, nose_y, y)
    ridge = (0.026 + 0.040 * along) * bell(x, 0.0, 0.050 + 0.025 * along)
    ends = smooth(p["eye_y"] - 0.17, p["eye_y"] + 0.04, y) * smooth(nose_y + 0.095, nose_y - 0.01, y)
    h = h + p["nose_h"] * ridge * ends
    h = h + 0.038 * p["nose_h"] * bump(x, y, 0.0, nose_y + 0.004, 0.058, 0.052)  # tip
    h = h + 0.026 * bump(a, y, nw - 0.010, nose_y + 0.016, 0.036, 0.038)  # wings
    h = h + (0.020 + 0.025 * p["smile"]) * bump(a, y, 0.265, 0.20 - 0.03 * p["smile"], 0.13, 0.11)  # cheeks
    h = h - 0.012 * bump(a, y, 0.33, 0.36, 0.10, 0.13)
    h = h + 0.030 * bump(x, y, 0.0, mouth_y, 0.20, 0.10)
    h = h - 0.010 * bump(x, y, 0.0, (nose_y + mouth_y) / 2 + 0.02, 0.022, 0.045)  # philtrum
    h = h - 0.022 * bump(x, y, 0.0, mouth_y + 0.105, 0.12, 0.030)
    h = h + 0.034 * bump(x, y, 0.0, 0.62, 0.13, 0.09)  # chin
    h = h - 0.010 * (1 - p["fem"]) * bump(x, y, 0.0, 0.64, 0.016, 0.05)
    # creases: beside the mouth, under and beside the eyes, across the forehead
    w = p["wrinkles"]
    fold_x = nw + 0.045 + 0.30 * (y - nose_y) + 0.02 * p["smile"]
    fold = bell(a, fold_x, 0.016) * bell(y, nose_y + 0.09, 0.084)
    h = h - (0.004 + 0.012 * p["smile"] + 0.012 * w) * fold
    bag = e.dy - 0.085 + 0.4 * e.dx.square() / p["eye_w"]
    h = h - (0.002 + 0.009 * w) * bell(bag, 0.0, 0.012) * bell(e.dx, -0.01, 0.0525)
    wave, grain = s.noise("cloud", 0, x, y, 60)
    lines = torch.sin(y * 78 + 2.0 * wave + 6 * a.square()).clamp(min=0)
    h = h - 0.0050 * w * lines * bump(a, y, 0.0, -0.36, 0.25, 0.10)
    crow = torch.sin((e.dy * 1.0 + 0.25 * (e.dx - 0.1)) * 150 + wave).clamp(min=0)
    h = h - 0.0035 * w * crow * bump(e.dx, e.dy, p["eye_w"] + 0.055, 0.015, 0.045, 0.06)
    pores, _ = s.noise("fine", 1, x, y, 190)
    return h + (0.0006 + 0.0014 * w) * grain + 0.0006 * pores


def skin(s: View, e: Eye) -> tuple[Tensor, Tensor]:
    """The unlit colour of skin [B, 3, H, W] and its brightness under the scene's light [B, H, W]."""
    p = s.p
    x, y = s.fu, s.fv
    a = x.abs()
    blotch, red = s.noise("cloud", 2, x, y, 55)
    fine, spots = s.noise("fine", 3, x, y, 150)
    base = p["skin"].expand(-1, -1, *s.x.shape[1:])
    base = times(base, 1 + 0.035 * p["mottle"] * blotch + 0.018 * fine)
    flush = 0.30 * p["blush"] * bump(a, y, 0.27, 0.19, 0.13, 0.10) + 0.18 * bump(x, y, 0.0, p["nose_y"], 0.08, 0.07)
    flush = (
        flush + 0.10 * p["mottle"] * torch.tanh(red) + 0.12 * bump(a, y, p["eye_x"], p["eye_y"], 0.12, 0.07)
    ).clamp(0, 1)
    rosy = torch.tensor([1.0, 0.70, 0.66], device=x.device)[:, None, None]
    base = over(base, base * rosy, flush * (1 - 0.6 * p["tone"]))
    freckle = smooth(1.1, 1.9, spots) * p["freckles"] * (bump(a, y, 0.20, 0.15, 0.24, 0.17)).clamp(0, 1)
    base = over(base, base * torch.tensor([0.72, 0.56, 0.45], device=x.device)[:, None, None], freckle)
    hollow = 0.14 + 0.18 * p["wrinkles"]
    dark = hollow * bump(e.dx, e.dy, -0.02, 0.065, 0.075, 0.028) + 0.25 * bump(e.dx, e.dy, -0.09, -0.02, 0.035, 0.05)
    nose_shadow = 0.30 * bump(x - 0.02 * torch.sign(-p["light_x"]), y, 0.0, p["nose_y"] + 0.068, 0.075, 0.022)
    occlusion = 1 - dark - nose_shadow - 0.10 * bump(x, y, 0.0, p["mouth_y"] + 0.10, 0.09, 0.022)
    diffuse, gleam = s.shade(relief(s, e))
    light = s.lit(diffuse) * occlusion * (1 - 0.30 * smooth(0.86, 1.02, s.r))
    oily = (
        bump(x, y, 0.0, -0.30, 0.24, 0.14)
        + bump(x, y, 0.0, p["nose_y"] - 0.03, 0.05, 0.12)
        + 0.7 * bump(a, y, 0.25, 0.13, 0.11, 0.07)
    )
    shine = p["shine"] * gleam.pow(22) * (0.25 + 0.75 * oily.clamp(max=1)) * (1 + 0.3 * fine)
    return base, torch.stack([light, 0.42 * shine], 0)


def head(s: View, image: Tensor) -> tuple[Tensor, Eye]:
    """Ears and the bare face over an image."""
    e = eyes(s)
    base, (light, shine) = skin(s, e)
    image = _ears(s, image, base)
    lit = times(base, light)
    # skin lets red light through where brightness falls off
    edge = (light * (1.25 - light)).clamp(0, 0.4)
    lit = torch.stack([lit[:, 0] + 0.10 * edge * base[:, 0], lit[:, 1], lit[:, 2] - 0.03 * edge * base[:, 2]], 1)
    lit = lit + shine[:, None]
    lit = _beard(s, lit, light)
    lit = _nostrils(s, lit)
    lit = _mouth(s, lit, light)
    lit = _eyes(s, lit, e, light)
    lit = _brows(s, lit, e)
    inside = (1 - s.r) * s.p["width"]
    image = times(image, 1 - 0.35 * smooth(-0.05, 0.0, inside) * (inside < 0) * (s.v > 0.1))
    return over(image, lit, s.cover(inside)), e


def _ears(s: View, image: Tensor, base: Tensor) -> Tensor:
    p = s.p
    side = torch.where(s.u < 0, -1.0, 1.0)
    # the ear on the far side hides behind a turned head
    cx = p["width"] * 0.975 * (1 + 0.35 * p["yaw"] * side)
    dx, dy = s.u.abs() - cx, s.v - 0.06 + 0.2 * (s.u.abs() - cx)
    inside = 1 - ((dx / 0.060).square() + (dy / 0.145).square()).sqrt()
    rim = bell(inside, 0.14, 0.07)
    diffuse, _ = s.shade(0.03 * rim + 0.05 * inside.clamp(min=0).sqrt())
    colour = times(base, s.lit(diffuse) * (0.80 + 0.10 * rim) * (1 - 0.35 * bump(dx, dy, -0.015, 0.0, 0.03, 0.07)))
    colour = colour * torch.tensor([1.02, 0.92, 0.90], device=colour.device)[:, None, None]
    return over(image, colour, s.cover(0.06 * inside))


def _nostrils(s: View, image: Tensor) -> Tensor:
    p = s.p
    a, y = s.fu.abs(), s.fv
    hole = bump(a, y, p["nose_w"] * 0.48, p["nose_y"] + 0.045 + 0.02 * p["pitch"], p["nose_w"] * 0.30, 0.014)
    wing = bump(a, y, p["nose_w"] + 0.022, p["nose_y"] + 0.02, 0.012, 0.035)
    image = times(image, 1 - 0.20 * wing)
    return over(image, image * torch.tensor([0.30, 0.20, 0.18], device=image.device)[:, None, None], hole.pow(0.8))


def _mouth(s: View, image: Tensor, light: Tensor) -> Tensor:
    p = s.p
    x, y = s.fu, s.fv
    t = (x / p["mouth_w"]).clamp(-1.3, 1.3)
    body = (1 - t.square()).clamp(min=0)
    corner = p["mouth_y"] - (0.060 * p["smile"] - 0.002) * t.square()
    line = corner + 0.012 * bell(t, 0.0, 0.25) * (1 - p["open"])
    gap = 0.052 * p["open"] * body.pow(0.7)
    bow = 1 - 0.22 * bell(t, 0.0, 0.13) + 0.12 * bell(t.abs(), 0.28, 0.16)
    top, bottom = line - gap * 0.45, line + gap * 0.9
    upper = top - p["lip"] * body.pow(0.65) * bow
    lower = bottom + p["lip"] * 1.25 * body.sqrt()
    lips = torch.where(y < (top + bottom) / 2, y - upper, lower - y)
    lips = torch.where(t.abs() < 1, lips, -0.05)
    fine, _ = s.noise("fine", 4, x * 3, y * 0.7, 90)
    natural = p["skin"] * torch.tensor([0.90, 0.60, 0.58], device=x.device)[:, None, None]
    painted = torch.stack([0.66 + 0.2 * p["lip_hue"], 0.10 + 0.22 * p["lip_hue"], 0.18 + 0.2 * p["lip_hue"]], 1)
    colour = torch.lerp(natural, painted, p["lipstick"][:, None])
    across_u, across_l = (
        ((y - upper) / (top - upper + 1e-3)).clamp(0, 1),
        ((y - bottom) / (lower - bottom + 1e-3)).clamp(0, 1),
    )
    form = torch.where(y < top, 0.80 + 0.16 * across_u, 1.12 - 0.30 * across_l)
    shine = 0.22 * bump(x, y, 0.0, bottom + 0.35 * (lower - bottom), 0.07, 0.010) * (0.4 + p["lipstick"])
    lit = times(colour.expand_as(image), light.clamp(0.25, 1.3) * form * (1 + 0.05 * fine)) + shine[:, None]
    image = over(image, lit, s.cover(lips, soft=0.012) * smooth(1.02, 0.85, t.abs()))
    # what is between the lips
    between = torch.where(t.abs() < 0.97, torch.minimum(y - top, bottom - y), -0.05)
    teeth = torch.tensor([0.93, 0.90, 0.84], device=x.device)[:, None, None]
    pitch = (t * 9.0) - torch.round(t * 9.0)
    tooth = (1 - 0.20 * bell(pitch.abs(), 0.5, 0.09)) * (1 - 0.55 * t.square()) * (0.60 + 0.30 * light)
    mouth = over(
        torch.zeros_like(image) + torch.tensor([0.20, 0.05, 0.05], device=x.device)[:, None, None],
        times(teeth.expand_as(image), tooth),
        s.cover(0.040 + 0.006 * (pitch.abs() < 0.4) - (y - top)),
    )
    image = over(image, mouth, s.cover(between))
    seam = bell(y, line, 0.006 + 0.5 * s.pixel) * smooth(1.12, 0.95, t.abs()) * (p["open"] < 0.05)
    corners = bump(x.abs(), y, p["mouth_w"], corner, 0.022, 0.016)
    return over(
        image,
        image * torch.tensor([0.42, 0.26, 0.25], device=x.device)[:, None, None],
        (0.85 * seam + 0.5 * corners).clamp(0, 1),
    )


def _eyes(s: View, image: Tensor, e: Eye, light: Tensor) -> Tensor:
    p = s.p
    iris_r = 0.047
    ix = e.dx - 0.09 * p["gaze"] * e.side
    iy = e.dy + 0.004
    radius = (ix.square() + iy.square()).sqrt()
    # sclera, darker under the lid and towards the corners
    shade = 0.55 + 0.45 * smooth(0.0, 0.035, e.dy - e.upper) - 0.25 * (e.dx / p["eye_w"]).square()
    white = torch.tensor([0.90, 0.87, 0.84], device=image.device)[:, None, None]
    ball = times(white.expand_as(image), shade * light.clamp(0.45, 1.05))
    rays, _ = s.noise("fine", 5, torch.atan2(iy, ix) * 0.5, radius * 1.5, 60)
    limb = 1 - 0.55 * smooth(iris_r * 0.72, iris_r, radius)
    inner = 1 + 0.45 * smooth(iris_r * 0.75, iris_r * 0.35, radius) * smooth(-0.02, 0.03, iy)
    iris = times(p["iris"].expand_as(image), (limb * inner * (1 + 0.15 * rays) * (0.45 + 0.55 * shade)) * 1.15)
    ball = over(ball, iris, s.cover(iris_r - radius, soft=0.010))
    ball = over(ball, torch.full_like(image, 0.03), s.cover(0.019 - radius, soft=0.008))
    lx, ly = p["light_x"], p["light_y"]
    glint = s.cover(
        0.011 - ((e.dx * e.side - 0.09 * p["gaze"] - 0.018 * lx).square() + (iy - 0.020 * ly).square()).sqrt(),
        soft=0.008,
    )
    ball = over(ball, torch.full_like(image, 0.97), 0.9 * glint)
    corner = bump(e.dx, e.dy, -p["eye_w"] + 0.012, 0.004, 0.014, 0.010)
    ball = over(
        ball,
        torch.tensor([0.75, 0.45, 0.42], device=image.device)[:, None, None] * (0.5 + 0.4 * light[:, None]),
        0.7 * corner,
    )
    image = over(image, ball, s.cover(e.opening))
    # lids: fold above, lash lines
    within = smooth(1.18, 0.95, (e.dx / p["eye_w"]).abs())
    fold = bell(e.dy, e.upper + 0.024, 0.008) * within
    upper = bell(e.dy, e.upper - 0.003, 0.0065 + 0.006 * p["lashes"] + 0.3 * s.pixel) * within
    wing = bump(e.dx, e.dy, p["eye_w"] + 0.012, -0.012, 0.020, 0.010) * p["lashes"]
    lower = bell(e.opening, 0.0, 0.006) * within * (e.dy > 0)
    image = times(image, 1 - 0.30 * fold)
    dark = torch.tensor([0.10, 0.065, 0.05], device=image.device)[:, None, None]
    return over(image, dark, (0.80 * upper + 0.7 * wing + 0.28 * lower).clamp(0, 1))


def _brows(s: View, image: Tensor, e: Eye) -> Tensor:
    p = s.p
    t = (e.dx + 0.01) / 0.155
    centre = p["eye_y"] - p["brow_y"] - p["brow_arch"] * (0.6 - 0.45 * (t - 0.3).square()) - 0.012 * p["smile"]
    centre = centre + 0.030 * (t - 0.2).clamp(min=0).square()
    thick = p["brow_thick"] * (1.05 - 0.45 * (t + 1).clamp(0, 2) / 2 * 1.2) * 1.15
    inside = thick - (s.fv - centre).abs()
    hair, _ = s.noise("fine", 6, (s.fu.abs() + 0.55 * s.fv) * 2.4, (s.fv - 0.3 * s.fu.abs()) * 0.35, 120)
    ends = smooth(1.12, 0.70, t.abs())
    alpha = smooth(-0.010, 0.014, inside + 0.006 * hair) * ends * (0.72 + 0.16 * hair).clamp(0, 1)
    colour = (p["hair_colour"] * 0.55).clamp(0, 1)
    colour = torch.lerp(colour, torch.full_like(colour, 0.10), 0.35)
    return over(image, times(colour.expand_as(image), 0.85 + 0.2 * hair), alpha)


def _beard(s: View, image: Tensor, light: Tensor) -> Tensor:
    p = s.p
    x, y, kind = s.fu, s.fv, p["beard"]
    a = x.abs()
    mouth = p["mouth_y"]
    ragged, tufts = s.noise("cloud", 7, x, y, 90)
    strand, _ = s.noise("fine", 6, x * 1.5, y * 0.35, 110)
    dots, _ = s.noise("fine", 7, x, y, 210)
    # the lower face, its upper edge falling from the ears to beside the mouth
    edge = y - (0.12 + 0.26 * smooth(0.46, 0.20, a)) + 0.02 * ragged
    moustache = torch.minimum(0.030 - (y - (mouth - 0.065 + 0.20 * a.square() * 3)).abs(), 0.19 - a) + 0.006 * ragged
    goatee = 0.14 - ((a / 1.0).square() + ((y - mouth - 0.16) / 1.15).square()).sqrt() + 0.008 * ragged
    jaw = torch.maximum(torch.minimum(edge, y - mouth + 0.45 * a + 0.03), moustache)
    bare = bump(x, y, 0.0, mouth + 0.008, p["mouth_w"] * 0.85, 0.032)
    full = s.cover(jaw, soft=0.05) * (1 - 0.9 * bare)
    chosen = torch.where(
        kind == BEARDS.index("full"),
        full,
        torch.where(
            kind == BEARDS.index("goatee"),
            torch.maximum(s.cover(goatee, 0.03), s.cover(moustache, 0.02)) * (1 - 0.9 * bare),
            s.cover(moustache, 0.02) * (kind == BEARDS.index("moustache")),
        ),
    )
    colour = times(
        (p["hair_colour"] * 0.72).expand_as(image), light.clamp(0.3, 1.1) * (0.82 + 0.24 * strand + 0.12 * tufts)
    )
    shadow = full * (kind == BEARDS.index("stubble")) * (0.30 + 0.30 * smooth(-0.2, 1.2, dots))
    image = over(image, image * 0.35 + 0.2 * p["hair_colour"], shadow)
    return over(image, colour, chosen * (0.86 + 0.10 * strand).clamp(0, 1))

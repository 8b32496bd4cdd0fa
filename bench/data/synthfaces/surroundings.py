"""What is behind and below the head: background, neck and clothes."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.data.synthfaces.scene import BACKGROUNDS, CLOTHES
from bench.data.synthfaces.view import View, bell, bump, over, smooth, times


def background(s: View) -> Tensor:
    """Out-of-focus surroundings [B, 3, H, W]; each image computes its own kind only."""
    p = s.p
    image = torch.zeros(len(p["age"]), 3, *s.x.shape[1:], device=s.x.device)
    makers = {"wall": _wall, "foliage": _foliage, "sky": _sky, "indoor": _indoor, "bokeh": _bokeh}
    kind = p["background"].flatten()
    for number, name in enumerate(BACKGROUNDS):
        chosen = (kind == number).nonzero().flatten()
        if len(chosen):
            part = {k: t[chosen] for k, t in p.items()}
            view = View(part, s.pixel, s.x, s.y, s.u[chosen], s.v[chosen], s.r, s.z, s.fu, s.fv, s.light[chosen])
            image[chosen] = makers[name](view)
    return image


def _gradient(s: View) -> Tensor:
    return s.x * s.p["bg_angle"].cos() + s.y * s.p["bg_angle"].sin()


def _wall(s: View) -> Tensor:
    cloud, spots = s.noise("cloud", 0, s.x, s.y, 40, blur=1)
    falloff = 1 + 0.16 * _gradient(s) + 0.06 * s.p["bg_texture"] * cloud + 0.02 * spots
    # the sitter's shadow
    shadow = bump(s.x, s.y, 0.25 * -torch.sign(s.p["light_x"]), 0.1, 0.75, 0.9)
    return times(s.p["bg_a"].expand(-1, -1, *s.x.shape[1:]), falloff * (1 - 0.18 * shadow))


def _foliage(s: View) -> Tensor:
    near, hue = s.noise("cloud", 1, s.x, s.y, 70, blur=1.0)
    far, light = s.noise("cloud", 2, s.x, s.y, 30, blur=2)
    leaf, _ = s.noise("blob", 3, s.x, s.y, 130, blur=0.0)
    lit = smooth(-1.8, 2.2, 0.8 * far + 0.45 * near + 0.4 * leaf)
    dark = torch.tensor([0.06, 0.085, 0.05], device=s.x.device)[:, None, None]
    green = torch.tensor([0.44, 0.52, 0.27], device=s.x.device)[:, None, None]
    green = green * (0.6 + 0.6 * s.p["bg_texture"][:, None]) * (1 + 0.15 * torch.tanh(hue)[:, None])
    image = over(dark.expand(len(near), 3, *near.shape[1:]), green, lit)
    sky = smooth(0.9, 2.3, light + 0.5 * far - 0.8 * s.y)
    return over(image, 0.6 + 0.4 * s.p["bg_a"], sky)


def _sky(s: View) -> Tensor:
    cloud, detail = s.noise("blob", 1, s.x, s.y, 45)
    tree, leaves = s.noise("cloud", 2, s.x, s.y, 50, blur=1.5)
    blue = torch.tensor([0.36, 0.56, 0.84], device=s.x.device)[:, None, None]
    pale = torch.tensor([0.86, 0.91, 0.96], device=s.x.device)[:, None, None]
    image = over(blue.expand(len(cloud), 3, *cloud.shape[1:]), pale, smooth(-1.2, 1.2, s.y + s.p["horizon"]))
    image = over(image, pale * 1.04, smooth(0.2, 1.8, cloud + 0.3 * detail) * s.p["bg_texture"])
    land = s.cover(s.y - s.p["horizon"] - 0.09 * tree - 0.02 * leaves, soft=0.07)
    ground = s.p["bg_b"] * 0.55 + 0.1
    return over(image, times(ground.expand_as(image), 1 + 0.3 * torch.tanh(leaves)), land)


def _indoor(s: View) -> Tensor:
    cloud, grain = s.noise("cloud", 1, s.x, s.y, 40, blur=1)
    image = times(s.p["bg_a"].expand(-1, -1, *s.x.shape[1:]), 1 + 0.12 * _gradient(s) + 0.04 * cloud)
    for k in range(4):  # furniture, frames, a doorway
        a, b = s.p[f"ox{k}"], s.p[f"oy{k}"]
        cx, cy = (a * 0.37) % 2.4 - 1.2, (b * 0.29) % 2.2 - 1.2
        wx, wy = 0.1 + (a * 0.71) % 0.4, 0.15 + (b * 0.53) % 0.6
        inside = torch.minimum(wx - (s.x - cx).abs(), wy - (s.y - cy).abs())
        tone = (0.25 + 0.9 * ((a + b) * 0.61 % 1))[:, None]
        colour = torch.where(((a * 7) % 1 < 0.5)[:, None], s.p["bg_b"], s.p["bg_a"]) * tone
        image = over(image, colour, s.cover(inside, soft=0.045))
        image = times(image, 1 - 0.3 * bell(inside, 0.0, 0.014))
    wood, _ = s.noise("cloud", 3, s.x * 4, s.y * 0.5, 30)
    floor = s.cover(s.y - s.p["horizon"] - 0.25, soft=0.05) * s.p["bg_texture"]
    return over(image, times((s.p["bg_b"] * 0.5).expand_as(image), 1 + 0.2 * wood + 0.05 * grain), floor)


def _bokeh(s: View) -> Tensor:
    cloud, _ = s.noise("blob", 1, s.x, s.y, 40)
    image = times((s.p["bg_a"] * 0.4).expand(-1, -1, *s.x.shape[1:]), 1 + 0.25 * cloud + 0.1 * _gradient(s))
    for k in range(8):  # lights out of focus: discs with a brighter rim
        a, b = s.p[f"ox{k}"], s.p[f"oy{k}"]
        cx, cy, radius = (a * 0.83) % 2.2 - 1.1, (b * 0.47) % 2.2 - 1.3, 0.06 + (a * 1.3 + b) % 0.16
        distance = radius - ((s.x - cx).square() + (s.y - cy).square()).sqrt()
        warm = torch.stack([1.0 + 0 * a, 0.65 + 0.3 * ((b * 3.1) % 1), 0.3 + 0.6 * ((a * 2.3) % 1)], 1)
        glow = s.cover(distance, soft=0.02) * (0.5 + 0.25 * smooth(0.05, 0.0, distance)) * s.p["bg_texture"]
        image = over(image, warm, glow * (0.3 + 0.6 * ((a + 2 * b) % 1)))
    return image


def neck(s: View, image: Tensor, skin: Tensor) -> Tensor:
    """Neck and the beginning of the chest, in the shade of the chin."""
    p = s.p
    along = (s.v - 0.45).clamp(min=0)
    half = p["neck_w"] + 0.05 * smooth(0.3, 0.0, along) + 0.9 * (along - 0.28).clamp(min=0).square() * 2.2
    u = s.u - 0.12 * p["yaw"]
    round_ = (1 - (u / half).square()).clamp(min=0.02).sqrt()
    tendon = bump(u, s.v, 0.35 * p["neck_w"], 0.8, 0.03, 0.3) + bump(u, s.v, -0.35 * p["neck_w"], 0.8, 0.03, 0.3)
    diffuse, _ = s.shade(0.20 * round_ + 0.012 * tendon)
    chin = smooth(0.34, 0.0, s.v - 0.60) * smooth(0.5, 0.2, s.u.abs())
    colour = times(skin, s.lit(diffuse) * (0.93 - 0.42 * chin))
    colour = torch.cat([colour[:, :1], colour[:, 1:] * (1 - 0.08 * chin[:, None])], 1)  # light through skin is red
    return over(image, colour, s.cover(half - u.abs()) * (s.v > 0.2))


def clothes(s: View, image: Tensor) -> Tensor:
    """Shoulders in a tee, shirt, V-neck or hoodie."""
    p = s.p
    kind = p["clothes"]
    x, y = s.x - 0.6 * p["dx"], s.y - 0.5 * p["dy"]
    side = x.abs() / p["shoulder_w"]
    line = p["shoulder"] + 0.03 + 0.34 * (side - 0.25).clamp(min=0).square() - 0.20 * smooth(0.42, 0.26, side)
    vee = kind == CLOTHES.index("vneck")
    shirt = kind == CLOTHES.index("shirt")
    hood = kind == CLOTHES.index("hoodie")
    depth = torch.where(vee, 0.34, torch.where(shirt, 0.22, 0.13))
    width = torch.where(vee, 0.30, torch.where(shirt, 0.20, 0.30))
    straight = depth * (1 - side / width)
    curved = depth * (1 - (side / width).square()).clamp(min=0).sqrt()
    opening = p["shoulder"] - 0.02 + torch.where(vee | shirt, straight, curved).clamp(min=0)
    inside = torch.where(side < width, torch.minimum(y - line, y - opening), y - line)
    fold, weave = s.noise("blob", 4, x * 1.2, y * 0.6, 60)
    fine, _ = s.noise("fine", 5, x, y, 150)
    body = 0.25 * (1.3 - side.square()).clamp(min=0.05).sqrt() + 0.022 * fold + 0.0008 * fine
    hem = bell(inside, 0.03, 0.0126) * (side < width * 1.25)
    collar = (shirt | hood) * smooth(0.13, 0.10, inside) * smooth(width * 1.9, width * 1.5, side)
    diffuse, _ = s.shade(body + 0.010 * hem + 0.02 * collar)
    f = p["pattern_f"]
    stripe = smooth(-0.3, 0.3, (f * (y + 0.15 * fold * 0.2)).sin())
    check = 0.5 * stripe + 0.5 * smooth(-0.3, 0.3, (f * x).sin())
    print_, _ = s.noise("blob", 6, x, y, 120)
    amount = torch.where(p["pattern"] == 1, stripe, torch.where(p["pattern"] == 2, check, smooth(0.3, 0.6, print_)))
    amount = amount * (p["pattern"] > 0)
    cloth = over(p["cloth_colour"].expand_as(image), p["cloth_colour2"], amount)
    cloth = times(cloth, s.lit(diffuse) * (1 + 0.05 * weave + 0.04 * fine + 0.10 * collar))
    edge = smooth(0.05, 0.0, inside) * 0.25 * (inside > 0)
    image = times(image, 1 - 0.30 * smooth(-0.07, 0.0, inside) * (inside < 0) * (side < 0.5))
    return over(image, times(cloth, 1 - edge), s.cover(inside))

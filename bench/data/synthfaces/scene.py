"""What is in an image: all parameters of a portrait, drawn from its index alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

DRAWS = 256
KEY = 0x5EED

HAIR_STYLES = ("bald", "buzz", "short", "side_part", "curly", "bob", "long", "wavy", "bun", "scarf")
BEARDS = ("none", "stubble", "moustache", "goatee", "full")
HATS = ("none", "cap", "beanie", "brim")
CLOTHES = ("tee", "shirt", "vneck", "hoodie")
BACKGROUNDS = ("wall", "foliage", "sky", "indoor", "bokeh")

# sRGB, from very light to very dark
SKIN = np.array(
    [
        [242, 206, 184],
        [232, 190, 162],
        [222, 172, 138],
        [205, 150, 114],
        [178, 122, 88],
        [142, 92, 64],
        [108, 70, 50],
        [76, 50, 38],
    ]
)
HAIR = np.array(
    [
        [24, 20, 19],
        [44, 31, 25],
        [74, 50, 36],
        [110, 76, 48],
        [160, 118, 72],
        [196, 160, 108],
        [142, 66, 34],
        [150, 146, 142],
        [205, 202, 198],
    ]
)
IRIS = np.array([[62, 40, 26], [88, 58, 34], [104, 92, 52], [82, 108, 76], [88, 120, 148], [122, 142, 156]])


class Draws:
    """Columns of uniform numbers [B, DRAWS], taken one after the other: the order in `Scene.draw` is the format."""

    def __init__(self, indices: Sequence[int]):
        self.u = np.stack([np.random.Generator(np.random.Philox(key=[KEY, i])).random(DRAWS) for i in indices])
        self.column = 0

    def uniform(self, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        """[B] uniform in [low, high)."""
        self.column += 1
        return low + (high - low) * self.u[:, self.column - 1]

    def bell(self, spread: float) -> np.ndarray:
        """[B] bell-shaped about 0, bounded by 3 spreads (mean of three uniforms)."""
        return spread * 2 * (self.uniform(-1, 1) + self.uniform(-1, 1) + self.uniform(-1, 1)) / 2

    def choice(self, weights: Sequence[float] | np.ndarray) -> np.ndarray:
        """[B] index drawn with weights [K] or [B, K]."""
        w = np.atleast_2d(np.asarray(weights, float))
        cumulative = np.cumsum(w / w.sum(1, keepdims=True), 1)
        return (self.uniform()[:, None] >= cumulative[:, :-1]).sum(1)

    def ramp(self, palette: np.ndarray, at: np.ndarray) -> np.ndarray:
        """[B, 3] colours in [0, 1] interpolated along a palette [K, 3]; `at` in [0, 1]."""
        t = np.clip(at, 0, 1) * (len(palette) - 1)
        i = np.minimum(t.astype(int), len(palette) - 2)
        f = (t - i)[:, None]
        return (palette[i] * (1 - f) + palette[i + 1] * f) / 255


@dataclass
class Scene:
    """Parameters of a batch of portraits: numbers [B], colours [B, 3]; see `Scene.draw` for their meaning."""

    values: dict[str, np.ndarray]

    def __getitem__(self, name: str) -> np.ndarray:
        return self.values[name]

    def tensors(self, device: torch.device) -> dict[str, Tensor]:
        """Numbers as [B, 1, 1], colours as [B, 3, 1, 1], float32."""
        out = {}
        for name, value in self.values.items():
            t = torch.from_numpy(np.ascontiguousarray(value)).to(device=device, dtype=torch.float32)
            out[name] = t[:, None, None] if t.ndim == 1 else t[:, :, None, None]
        return out

    def attributes(self) -> list[dict[str, object]]:
        """What a person would say of each image."""
        v = self.values
        return [
            {
                "glasses": bool(v["glasses"][i]),
                "beard": BEARDS[int(v["beard"][i])],
                "hair": HAIR_STYLES[int(v["hair"][i])],
                "hat": HATS[int(v["hat"][i])],
                "earrings": bool(v["earrings"][i]),
                "smile": round(float(v["smile"][i]), 3),
                "age": round(float(v["age"][i]), 3),
                "skin": round(float(v["tone"][i]), 3),
                "yaw": round(float(v["yaw"][i]), 3),
                "freckles": bool(v["freckles"][i] > 0),
                "clothes": CLOTHES[int(v["clothes"][i])],
                "background": BACKGROUNDS[int(v["background"][i])],
            }
            for i in range(len(v["age"]))
        ]

    @classmethod
    def draw(cls, indices: Sequence[int]) -> Scene:
        """Draw the scenes of some indices. An index gives the same scene in any batch."""
        d = Draws(indices)
        n = len(indices)
        v: dict[str, np.ndarray] = {}
        # people
        v["fem"] = (d.uniform() < 0.5).astype(float)
        fem = v["fem"]
        v["age"] = d.uniform()
        v["tone"] = np.clip(d.uniform(-0.05, 1.05), 0, 1)
        skin = d.ramp(SKIN, v["tone"])
        skin *= 1 + 0.05 * np.stack([d.uniform(-1, 1), d.uniform(-1, 1), d.uniform(-1, 1)], 1)
        v["skin"] = np.clip(skin, 0, 1)
        # pose, in radians and half sides
        v["yaw"], v["pitch"], v["roll"] = d.bell(0.2), d.bell(0.07), d.bell(0.05)
        v["dx"], v["dy"] = d.bell(0.02), d.bell(0.02)
        v["zoom"] = 1 + d.bell(0.035)
        # skull
        v["width"] = 0.475 + d.bell(0.02) - 0.012 * fem
        v["height"] = 0.735 + d.bell(0.02)
        v["jaw"] = 0.27 + d.bell(0.05) + 0.07 * fem
        v["chin"] = d.uniform(0.3, 1.0)
        # eyes
        v["eye_x"] = 0.262 + d.bell(0.008)
        v["eye_y"] = -0.035 + d.bell(0.008)
        v["eye_w"] = 0.107 + d.bell(0.006)
        v["eye_open"] = 0.040 + d.bell(0.006) + 0.004 * fem
        v["eye_tilt"] = d.bell(0.08)
        v["gaze"] = d.bell(0.16) - 0.35 * v["yaw"]
        v["iris"] = d.ramp(IRIS, np.where(v["tone"] > 0.45, d.uniform(0, 0.2), d.uniform(0, 1)))
        v["brow_y"] = 0.128 + d.bell(0.012)
        v["brow_thick"] = 0.019 + d.bell(0.004) - 0.004 * fem
        v["brow_arch"] = 0.025 + d.bell(0.015) + 0.012 * fem
        v["lashes"] = 0.35 + 0.5 * fem * d.uniform(0.4, 1)
        # nose and mouth
        v["nose_w"] = 0.088 + d.bell(0.010) + 0.022 * v["tone"] - 0.006 * fem
        v["nose_y"] = 0.215 + d.bell(0.015)
        v["nose_h"] = 1 + d.bell(0.15)
        v["smile"] = np.clip(d.uniform(-0.25, 1.15), 0, 1)
        v["open"] = np.clip(v["smile"] * d.uniform(-0.7, 1.0) + 0.12 * d.uniform(-1, 1), 0, 1)
        v["mouth_y"] = 0.395 + d.bell(0.012)
        v["mouth_w"] = 0.165 + d.bell(0.012) + 0.055 * v["smile"]
        v["lip"] = 0.030 + d.bell(0.004) + 0.010 * v["tone"] + 0.003 * fem
        v["lipstick"] = fem * (d.uniform() < 0.4) * d.uniform(0.3, 0.9)
        v["lip_hue"] = d.uniform()
        # skin detail
        v["wrinkles"] = np.clip((v["age"] - 0.35) * 1.5, 0, 1) * d.uniform(0.5, 1.1)
        v["freckles"] = (d.uniform() < 0.22) * (v["tone"] < 0.45) * d.uniform(0.3, 1)
        v["mottle"] = d.uniform(0.4, 1.0)
        v["shine"] = d.uniform(0.15, 0.7)
        v["blush"] = d.uniform(0.2, 1.0)
        # hair
        male_hair = np.array([0.9, 1.4, 2.6, 2.0, 0.9, 0.1, 0.25, 0.15, 0.1, 0.0])
        female_hair = np.array([0.05, 0.25, 0.6, 0.5, 1.0, 1.7, 2.4, 2.2, 0.9, 0.6])
        weights = np.where(fem[:, None] > 0, female_hair, male_hair)
        weights = weights * np.where(np.arange(len(HAIR_STYLES)) == 0, 1 + 2 * v["age"][:, None], 1.0)
        v["hair"] = d.choice(weights).astype(float)
        dark = np.array([3, 3, 0.3, 0.1, 0, 0, 0, 0, 0])
        light = np.array([1, 2, 2, 2, 1.6, 1.2, 0.6, 0, 0])
        grey = np.array([0.2, 0.2, 0.2, 0.1, 0, 0, 0, 3, 3])
        old = (np.clip((v["age"] - 0.55) * 2.4, 0, 1))[:, None]
        mix = np.where(v["tone"][:, None] > 0.45, dark, light) * (1 - old) + grey * old
        v["hair_colour"] = HAIR[d.choice(mix)] / 255 * (1 + 0.15 * d.uniform(-1, 1)[:, None])
        v["hairline"] = 0.50 + d.bell(0.03) + 0.05 * v["age"] * (1 - fem)
        v["part"] = d.uniform(-0.3, 0.3)
        v["fringe"] = (d.uniform() < 0.25) * d.uniform(0.3, 1.0)
        v["volume"] = d.uniform(0.0, 1.0)
        v["hair_length"] = d.uniform(0.5, 1.25)
        v["strand"] = d.uniform(0.6, 1.4)
        v["hair_shine"] = d.uniform(0.2, 1.0)
        beard_weights = np.where(fem[:, None] > 0, np.array([1.0, 0, 0, 0, 0]), np.array([1.6, 1.3, 0.4, 0.5, 1.1]))
        v["beard"] = d.choice(beard_weights).astype(float)
        # things
        v["glasses"] = (d.uniform() < 0.18 + 0.14 * v["age"]).astype(float)
        v["frame_w"] = 0.150 + d.bell(0.010)
        v["frame_h"] = 0.105 + d.bell(0.012)
        v["frame_round"] = d.uniform(0.3, 1.0)
        v["frame_thick"] = np.where(d.uniform() < 0.4, 0.006, d.uniform(0.010, 0.020))
        v["frame_colour"] = np.where(
            (d.uniform() < 0.6)[:, None],
            np.full((n, 3), 0.07),
            np.stack([d.uniform(0.2, 0.7), d.uniform(0.15, 0.5), d.uniform(0.1, 0.45)], 1),
        )
        v["tint"] = (d.uniform() < 0.12) * d.uniform(0.3, 0.85)
        v["hat"] = np.where(d.uniform() < 0.12, 1 + d.choice([1, 1, 0.7]), 0).astype(float)
        v["hat"] *= v["hair"] != HAIR_STYLES.index("scarf")
        hue = np.stack([d.uniform(), d.uniform(), d.uniform()], 1)
        v["hat_colour"] = d.uniform(0.1, 0.8)[:, None] * (1 - 0.75 * d.uniform()[:, None] ** 2 * (1 - hue))
        v["earrings"] = ((d.uniform() < 0.45) * fem).astype(float)
        v["earring_drop"] = d.uniform(0.02, 0.13)
        v["earring_colour"] = np.where((d.uniform() < 0.6)[:, None], [[0.86, 0.70, 0.32]], [[0.82, 0.83, 0.86]])
        # clothes
        v["clothes"] = d.choice([1.2, 1.0, 0.8, 0.7]).astype(float)
        cloth = np.stack([d.uniform(), d.uniform(), d.uniform()], 1)
        value = d.uniform(0.08, 0.9)[:, None]
        chroma = d.uniform(0, 1)[:, None] ** 2
        v["cloth_colour"] = value * (1 - chroma + chroma * cloth)
        v["cloth_colour2"] = np.clip(v["cloth_colour"] + 0.5 * (0.5 - cloth), 0, 1)
        v["pattern"] = d.choice([2.2, 0.7, 0.7, 0.6]).astype(float)  # plain, stripes, checks, print
        v["pattern_f"] = d.uniform(14, 34)
        v["shoulder"] = 0.80 + d.bell(0.03)
        v["shoulder_w"] = 1.02 + d.bell(0.06) - 0.06 * fem
        v["neck_w"] = 0.315 + d.bell(0.02) - 0.035 * fem
        # background
        v["background"] = d.choice([1.5, 1.3, 0.7, 1.2, 0.8]).astype(float)
        v["bg_a"] = np.stack([d.uniform(0.1, 0.95)] * 3, 1) * (
            1 + 0.16 * np.stack([d.uniform(-1, 1), d.uniform(-1, 1), d.uniform(-1, 1)], 1)
        )
        v["bg_b"] = np.stack([d.uniform(0.1, 0.9)] * 3, 1) * (
            1 + 0.35 * np.stack([d.uniform(-0.7, 1), d.uniform(-0.9, 0.8), d.uniform(-1, 0.7)], 1)
        )
        v["bg_angle"] = d.uniform(-3.14159, 3.14159)
        v["bg_texture"] = d.uniform(0.3, 1.0)
        v["horizon"] = d.uniform(-0.4, 0.5)
        # light and camera
        v["light_x"] = d.uniform(-0.8, 0.8)
        v["light_y"] = d.uniform(-0.85, -0.1)
        v["ambient"] = d.uniform(0.36, 0.58)
        v["key"] = d.uniform(0.42, 0.78)
        v["warmth"] = d.bell(0.035)
        v["exposure"] = 1.1 + d.bell(0.10)
        v["contrast"] = 1.0 + d.bell(0.08)
        v["saturation"] = d.uniform(0.85, 1.2)
        v["vignette"] = d.uniform(0, 0.22)
        v["grain"] = d.uniform(0.004, 0.014)
        # where the image looks at the shared textures
        for k in range(8):
            v[f"ox{k}"], v[f"oy{k}"] = d.uniform(0, 40), d.uniform(0, 40)
        if d.column > DRAWS:
            raise AssertionError(f"{d.column} draws, DRAWS is {DRAWS}")
        return cls(v)

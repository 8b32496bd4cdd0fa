"""LPIPS and shift-tolerant LPIPS, with features computed once per image.

Both have the same form (a fixed normalisation, a backbone, one weight per channel and depth), so one class serves both:
`embed` runs the backbone once per image, `distance` compares two embeddings. A set of n samples with its ground truth
then costs n + 1 passes for the distortion, all pairs and the diversity score together.

LPIPS: Zhang et al. 2018, package ``lpips`` 0.1. ST-LPIPS: Ghildyal & Liu 2022, :mod:`bench.metrics.stlpips`, whose
weights come with this project. They are different metrics and never share a name.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from bench.errors import BenchError, near_matches
from bench.files import sha256
from bench.metrics import PERCEPTUAL, Evaluation, Metric, MetricFacts, register_metric

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

# torchvision's file names end in the first eight digits of their sha256
BACKBONES = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}
TITLES = {
    "lpips_alex": "LPIPS (Alex)",
    "lpips_vgg": "LPIPS (VGG)",
    "stlpips_alex": "ST-LPIPS (Alex)",
}
SOURCES = {
    "lpips": "package lpips 0.1 (Zhang et al. 2018)",
    "stlpips": "network and weights of Ghildyal & Liu 2022 (package stlpips_pytorch 0.0.2)",
}
LEAST_SIZES = {"lpips_alex": 31, "lpips_vgg": 16, "stlpips_alex": 21}
"""Sides in pixels below which a pooling inside of the network has nothing left."""
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""The mean and standard deviation of ImageNet's colours, for images in [-1, 1]: the same in both metrics."""


def _checkpoint(backbone: str) -> Path:
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints" / BACKBONES[backbone]


def lpips_weights_missing(backbone: str) -> str | None:
    """Return why LPIPS' backbone weights cannot be used from this machine's cache, None if they can."""
    path = _checkpoint(backbone)
    if not path.is_file():
        return f"no {path.name} in torch's cache"
    if not sha256(path).startswith(path.stem.rsplit("-", 1)[1]):
        return f"{path} is truncated, damaged or another file: delete it"
    return None


def _normalise(x: Tensor) -> Tensor:
    return x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)


class PerceptualNet:
    """A perceptual distance split into `embed` and `distance`.

    Args:
        features: normalised images [M, 3, H, W] to features [M, C, h, w], one tensor per depth.
        weights: of the squared differences, [1, C, 1, 1] per depth, without gradients.

    """

    def __init__(self, features: Callable[[Tensor], Sequence[Tensor]], weights: Sequence[Tensor]) -> None:
        self.features = features
        self.weights = list(weights)

    def embed(self, x: Tensor) -> list[Tensor]:
        """Unit-normalised features of images [M, 3, H, W] in [0, 1], one tensor [M, C, h, w] per depth."""
        shift, scale = (x.new_tensor(v)[:, None, None] for v in (SHIFT, SCALE))
        return [_normalise(f) for f in self.features((2 * x - 1 - shift) / scale)]

    def distance(self, a: list[Tensor], b: list[Tensor]) -> Tensor:
        """Distance [M] between two embeddings of M images."""
        import torch
        import torch.nn.functional as F

        layers = [F.conv2d((fa - fb).square(), w).mean((1, 2, 3)) for fa, fb, w in zip(a, b, self.weights, strict=True)]
        return torch.stack(layers).sum(0)

    def distance_map(self, a: list[Tensor], b: list[Tensor], size: int) -> Tensor:
        """Distance per pixel [M, size, size], every depth enlarged bilinearly as in ``LPIPS(spatial=True)``."""
        import torch
        import torch.nn.functional as F

        layers = [
            F.interpolate(F.conv2d((fa - fb).square(), w), size=(size, size), mode="bilinear", align_corners=False)
            for fa, fb, w in zip(a, b, self.weights, strict=True)
        ]
        return torch.stack(layers).sum(0)[:, 0]


def from_lpips(library: nn.Module) -> PerceptualNet:
    """Take an ``lpips.LPIPS`` module, version 0.1, apart; it stays on its device."""
    library.eval().requires_grad_(False)
    # every linear layer is a 1x1 convolution to one channel without bias, behind a dropout that is off
    weights = [cast("Tensor", lin.model[-1].weight) for lin in library.lins]  # type: ignore[union-attr]
    return PerceptualNet(cast("Callable[[Tensor], Sequence[Tensor]]", library.net), weights)


def from_stlpips(weights: Mapping[str, Tensor]) -> PerceptualNet:
    """Take the tensors of :func:`bench.metrics.stlpips.load_weights`; they stay on their device."""
    from bench.metrics.stlpips import features

    return PerceptualNet(partial(features, weights), [weights[f"lin{k}"] for k in range(1, 6)])


def _load_lpips(backbone: str, device: torch.device) -> PerceptualNet:
    import lpips

    # torchvision hashes what it downloads and not what is there already
    if _checkpoint(backbone).is_file() and (why := lpips_weights_missing(backbone)):
        raise BenchError(f"lpips_{backbone} cannot be computed: {why}, or use perceptual=stlpips_alex.")
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # it uses torchvision's deprecated `pretrained` argument
        try:
            library = lpips.LPIPS(net=backbone, verbose=False)
        except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong hash is a RuntimeError
            raise BenchError(
                f"The weights of lpips_{backbone} ({BACKBONES[backbone]}) could not be downloaded ({error}). "
                f"Put the file into {_checkpoint(backbone).parent}, or use perceptual=stlpips_alex."
            ) from error
    return from_lpips(library.to(device))


@cache
def load_net(name: str, device: torch.device) -> PerceptualNet:
    """Load one of `PERCEPTUAL`; LPIPS downloads its backbone (checked by torchvision) if it is not cached.

    Raises:
        BenchError: there is no such distance, or the weights cannot be downloaded or are damaged.

    """
    if name not in PERCEPTUAL:
        raise BenchError(f"There is no perceptual distance '{name}'.{near_matches(name, PERCEPTUAL)}")
    family, _, backbone = name.partition("_")
    if family == "lpips":
        return _load_lpips(backbone, device)
    from bench.metrics.stlpips import load_weights

    return from_stlpips(load_weights(device))


class _PerceptualMetric(Metric):
    net_name: str

    def __init__(self, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        self.net = load_net(self.net_name, self.device)

    def samples(self, e: Evaluation) -> list[Tensor]:
        """Features of the samples, [B, n, C, h, w] per depth."""
        shape = e.samples.shape[:2]
        return cast(
            "list[Tensor]",
            e.shared(self.net_name, lambda: [f.unflatten(0, shape) for f in self.net.embed(e.flat)]),
        )

    def truth(self, e: Evaluation) -> list[Tensor]:
        """Features of the ground truth, [B, C, h, w] per depth."""
        return cast("list[Tensor]", e.shared(self.net_name + ":hr", lambda: self.net.embed(e.hr)))

    def sample(self, e: Evaluation, j: int) -> list[Tensor]:
        """Features of the j-th samples."""
        return [f[:, j] for f in self.samples(e)]


class _Distance(_PerceptualMetric):
    def __call__(self, e: Evaluation) -> Tensor:
        import torch

        truth = self.truth(e)
        return torch.stack([self.net.distance(self.sample(e, j), truth) for j in range(e.samples.shape[1])], 1)


class _Apd(_PerceptualMetric):
    def __call__(self, e: Evaluation) -> Tensor:
        import torch

        values = [self.net.distance(self.sample(e, i), self.sample(e, j)) for i, j in e.pairs()]
        return torch.stack(values, 1) if values else e.spread_of_one[:, None]


class _Diversity(_PerceptualMetric):
    def __call__(self, e: Evaluation) -> Tensor:
        import torch

        if e.samples.shape[1] < 2:
            return e.spread_of_one
        truth = self.truth(e)
        size = e.samples.shape[-1]
        maps = torch.stack(
            [self.net.distance_map(self.sample(e, j), truth, size) for j in range(e.samples.shape[1])], 1
        )
        global_best = maps.mean((2, 3)).amin(1)
        local_best = maps.amin(1).mean((1, 2))
        # a perfect sample leaves nothing to diversify
        return torch.where(global_best > 0, 100 * (global_best - local_best) / global_best, 0.0)


def _register(name: str) -> None:
    source = SOURCES[name.partition("_")[0]]
    least = LEAST_SIZES[name]
    kinds = {
        name: (
            _Distance,
            MetricFacts(
                TITLES[name],
                "lower",
                "",
                "sample",
                ">= 0",
                f"{source}, to the ground truth",
                "Distortion",
                digits=".3f",
                least_size=least,
            ),
        ),
        f"apd_{name}": (
            _Apd,
            MetricFacts(
                TITLES[name],
                "neither",
                "",
                "pair",
                ">= 0",
                f"{source}, between samples; tables show x 1e3",
                "Diversity (APD)",
                1e3,
                "_e3",
                ".1f",
                least_size=least,
            ),
        ),
        f"diversity_{name}": (
            _Diversity,
            MetricFacts(
                TITLES[name],
                "higher",
                "%",
                "image",
                "[0, 100]",
                f"NTIRE 2021 super-resolution space (github:andreas128/NTIRE21_Learning_SR_Space): {source}",
                "Diversity (NTIRE)",
                least_size=least,
            ),
        ),
    }
    for metric_name, (base, facts) in kinds.items():
        title = "".join(part.capitalize() for part in metric_name.split("_"))
        register_metric(metric_name)(
            type(title, (base,), {"net_name": name, "facts": facts, "__doc__": facts.source, "__module__": __name__})
        )


for _name in PERCEPTUAL:
    _register(_name)

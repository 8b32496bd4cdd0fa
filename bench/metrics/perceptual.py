"""LPIPS and shift-tolerant LPIPS, with features computed once per image.

Both libraries build the same object (scaling layer, backbone, one linear layer per depth), so one class serves both:
`embed` runs the backbone once per image, `distance` compares two embeddings. A set of n samples with its ground truth
then costs n + 1 passes for the distortion, all pairs and the diversity score together.

LPIPS: Zhang et al. 2018, package ``lpips`` 0.1. ST-LPIPS: Ghildyal & Liu 2022, package ``stlpips_pytorch``, whose
wheel carries the weights. They are different metrics and never share a name.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from functools import cache
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.errors import BenchError
from bench.files import sha256
from bench.metrics import PERCEPTUAL, Evaluation, Metric, MetricFacts, register_metric

# torchvision's file names end in the first eight digits of their sha256
BACKBONES = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}
TITLES = {
    "lpips_alex": "LPIPS (Alex)",
    "lpips_vgg": "LPIPS (VGG)",
    "stlpips_alex": "ST-LPIPS (Alex)",
    "stlpips_vgg": "ST-LPIPS (VGG)",
}
SOURCES = {
    "lpips": "package lpips 0.1 (Zhang et al. 2018)",
    "stlpips": "package stlpips_pytorch (Ghildyal & Liu 2022)",
}

Embedding = list[Tensor]


def lpips_weights_missing(backbone: str) -> str | None:
    """Return why LPIPS' backbone weights cannot be used from this machine's cache, None if they can."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / BACKBONES[backbone]
    if not path.is_file():
        return f"no {path.name} in torch's cache"
    if not sha256(path).startswith(path.stem.rsplit("-", 1)[1]):
        return f"{path} is truncated or damaged: delete it"
    return None


def _normalise(x: Tensor) -> Tensor:
    return x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)


class PerceptualNet(nn.Module):
    """A perceptual distance split into `embed` and `distance`.

    Args:
        library: an ``lpips.LPIPS`` or ``stlpips_pytorch.stlpips.LPIPS`` module, version 0.1.

    """

    def __init__(self, library: nn.Module) -> None:
        super().__init__()
        self.scaling = cast(nn.Module, library.scaling_layer)
        self.backbone = cast(nn.Module, library.net)
        # every linear layer is a 1x1 convolution to one channel without bias, behind a dropout that is off
        self.weights = [cast(Tensor, lin.model[-1].weight).detach() for lin in library.lins]  # type: ignore[union-attr]
        self.eval().requires_grad_(False)

    def to_device(self, device: torch.device | str) -> PerceptualNet:
        """Move the network and its weights."""
        self.to(device)
        self.weights = [w.to(device) for w in self.weights]
        return self

    def embed(self, x: Tensor) -> Embedding:
        """Unit-normalised features of images [M, 3, H, W] in [0, 1], one tensor [M, C, h, w] per depth."""
        return [_normalise(f) for f in self.backbone(self.scaling(2 * x - 1))]

    def distance(self, a: Embedding, b: Embedding) -> Tensor:
        """Distance [M] between two embeddings of M images."""
        layers = [F.conv2d((fa - fb).square(), w).mean((1, 2, 3)) for fa, fb, w in zip(a, b, self.weights, strict=True)]
        return torch.stack(layers).sum(0)

    def distance_map(self, a: Embedding, b: Embedding, size: int) -> Tensor:
        """Distance per pixel [M, size, size], every depth enlarged bilinearly as in ``LPIPS(spatial=True)``."""
        layers = [
            F.interpolate(F.conv2d((fa - fb).square(), w), size=(size, size), mode="bilinear", align_corners=False)
            for fa, fb, w in zip(a, b, self.weights, strict=True)
        ]
        return torch.stack(layers).sum(0)[:, 0]


@cache
def load_net(name: str, device: torch.device) -> PerceptualNet:
    """Load one of `PERCEPTUAL`; LPIPS downloads its backbone (checked by torchvision) if it is not cached.

    Raises:
        BenchError: the weights cannot be downloaded or are damaged.

    """
    family, _, backbone = name.partition("_")
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # both packages use torchvision's deprecated `pretrained` argument
        if family == "stlpips":
            from stlpips_pytorch import stlpips

            # the trunk's weights are part of the package's file, no second download
            library = stlpips.LPIPS(net=backbone, variant="shift_tolerant", pnet_rand=True, verbose=False)
        else:
            import lpips

            try:
                library = lpips.LPIPS(net=backbone, verbose=False)
            except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong hash is a RuntimeError
                raise BenchError(
                    f"The weights of {name} ({BACKBONES[backbone]}) could not be downloaded ({error}). "
                    f"Put the file into {Path(torch.hub.get_dir()) / 'checkpoints'}, or use perceptual=stlpips_alex."
                ) from error
    return PerceptualNet(library).to_device(device)


class _PerceptualMetric(Metric):
    net_name: str

    def __init__(self, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        self.net = load_net(self.net_name, self.device)

    def samples(self, e: Evaluation) -> list[Tensor]:
        """Features of the samples, [B, n, C, h, w] per depth."""
        shape = e.samples.shape[:2]
        return cast(
            list[Tensor],
            e.shared(self.net_name, lambda: [f.unflatten(0, shape) for f in self.net.embed(e.flat)]),
        )

    def truth(self, e: Evaluation) -> Embedding:
        """Features of the ground truth, [B, C, h, w] per depth."""
        return cast(Embedding, e.shared(self.net_name + ":hr", lambda: self.net.embed(e.hr)))

    def sample(self, e: Evaluation, j: int) -> Embedding:
        """Features of the j-th samples."""
        return [f[:, j] for f in self.samples(e)]


class _Distance(_PerceptualMetric):
    def __call__(self, e: Evaluation) -> Tensor:
        truth = self.truth(e)
        return torch.stack([self.net.distance(self.sample(e, j), truth) for j in range(e.samples.shape[1])], 1)


class _Apd(_PerceptualMetric):
    def __call__(self, e: Evaluation) -> Tensor:
        values = [self.net.distance(self.sample(e, i), self.sample(e, j)) for i, j in e.pairs()]
        return torch.stack(values, 1) if values else e.spread_of_one[:, None]


class _Diversity(_PerceptualMetric):
    def __call__(self, e: Evaluation) -> Tensor:
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
            ),
        ),
        f"apd_{name}": (
            _Apd,
            MetricFacts(
                TITLES[name],
                "higher",
                "",
                "pair",
                ">= 0",
                f"{source}, between samples; tables show x 1e3",
                "Diversity (APD)",
                1e3,
                "_e3",
                ".1f",
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

"""The public contract of a super-resolution method: with `bench.network` and `bench.operators`, all that one imports.

A method is one class with one decorator, and one yaml file of its settings (``configs/methods/NAME.yaml``)::

    from bench.contract import Facts, Method, register_method

    @register_method("mine")
    class Mine(Method):
        facts = Facts(title="Mine")

        def __init__(self, sharpness: float = 1.0): ...          # the yaml file's keys
        def load(self): ...                                      # read weights for self.operator on self.device, once
        def draw(self, y, n, tau, noise): ...                    # [B, 3, h, w] -> [B, n, 3, H, W]

``python -m bench check method=mine`` runs the contract on it. Who uses a method calls `prepare` and `sample`::

    method.prepare(operator, device)
    x = method.sample(y, 5, 0.8)
"""

from __future__ import annotations

import hashlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from bench.errors import BenchError
from bench.registry import Registry

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from bench.operators import Operator

__all__ = ["Facts", "Method", "Noise", "UnusableSamples", "methods", "register_method"]

UNKNOWN_POSTERIOR = "{} needs images whose posterior is known"
"""Of a method that declares it; with its title."""
TOLERANCE = 1e-5
"""How far outside of the range a sample may be by rounding, relative to its width."""


class UnusableSamples(UserWarning):
    """Some images of a batch have samples that are NaN or infinite; the others are good."""


warnings.simplefilter("always", UnusableSamples, append=True)  # every time, unless whoever calls has said otherwise


def cost_text(evaluations: int, backward_passes: int | None) -> str:
    """Network evaluations per sample and gradients through it, for reading: "100", "100 + 100 backward"."""
    return f"{evaluations}" + (f" + {backward_passes} backward" if backward_passes else "")


@dataclass(frozen=True)
class Facts:
    """What a method declares about itself. It must be a literal, so that it can be read without importing the module.

    Attributes:
        title: name in tables.
        scales: the scale factors it can do; None for any.
        operators: the operators it can do, by `Operator.kind`; None for any linear one.
        sigmas: the noise levels it can do (a network that was trained without noise: 0); None for any.
        uses_tau: whether the temperature applies; without it the method runs once, with tau None.
        deterministic: whether all samples of one image are equal by design.
        needs_posterior: whether it needs the exact posterior that some datasets offer.
        evaluations: network evaluations per sample (0 for none).
        backward_passes: gradients through the network per sample; each costs about as much as one or two evaluations.
        citation: paper and code.
        weights_licence: licence of the weights it loads by default, "none" where there are none.
        version: to be raised whenever the same settings and weights give other samples: rows of another version are
            never mixed in.

    """

    title: str
    scales: tuple[int, ...] | None = None
    operators: tuple[str, ...] | None = None
    sigmas: tuple[float, ...] | None = None
    uses_tau: bool = True
    deterministic: bool = False
    needs_posterior: bool = False
    evaluations: int = 1
    backward_passes: int = 0
    citation: str = ""
    weights_licence: str = "none"
    version: int = 1

    @property
    def ability(self) -> str:
        """What it can do, for reading, as in "bicubic x4, x8" or "any linear operator"."""
        operators = "any linear operator" if self.operators is None else " or ".join(self.operators)
        scales = "" if self.scales is None else " " + ", ".join(f"x{s}" for s in self.scales)
        sigmas = "" if self.sigmas in (None, (0.0,)) else " sigma " + ", ".join(f"{s:g}" for s in self.sigmas or ())
        return operators + scales + sigmas

    def refuses(self, kind: str, scale: int, sigma: float) -> str | None:
        """Say why an operator cannot be done, None where it can."""
        able = f"it does {self.ability}" + (" without noise" if self.sigmas == (0.0,) else "")
        if self.operators is not None and kind not in self.operators:
            return f"{self.title} does not do operator={kind}: {able}"
        if self.scales is not None and scale not in self.scales:
            return f"{self.title} does not do scale={scale}: {able}"
        if self.sigmas is not None and not any(abs(sigma - s) < 1e-9 for s in self.sigmas):
            return f"{self.title} does not do operator.sigma={sigma:g}: {able}"
        return None


class Noise:
    """A source of randomness with one independent stream for each (image, sample).

    What a stream yields depends on the seed, the image's id, the sample's number and the calls made, and on nothing
    else: not on the batch, its order, the device or the other samples. All randomness of a method comes from here.
    Streams are drawn on the CPU so that every device sees the same numbers. (The idea of per-image generators is
    EDM2's, github:NVlabs/edm2 generate_images.py.)

    Attributes:
        streams: the generators [B * n], image by image, for libraries that take one generator per row.

    """

    def __init__(
        self, seed: int, ids: Sequence[str], samples: Sequence[int | str], device: torch.device | str = "cpu"
    ) -> None:
        import torch

        self.ids = tuple(ids)
        self.samples = tuple(samples)
        self.device = torch.device(device)
        self.streams = [torch.Generator().manual_seed(_stream_seed(seed, i, j)) for i in ids for j in samples]

    @classmethod
    def of_content(cls, y: Tensor, n: int, seed: int = 0) -> Self:
        """Key the streams of `n` samples by what the observations y [B, 3, h, w] are: equal ones get equal noise."""
        rows = y.detach().float().cpu().contiguous()
        ids = [hashlib.sha256(f"{list(r.shape)}".encode() + r.numpy().tobytes()).hexdigest() for r in rows]
        return cls(seed, ids, range(n), y.device)

    @classmethod
    def of_observation(cls, seed: int, ids: Sequence[str], device: torch.device | str = "cpu") -> Self:
        """The streams, one for each image, of the noise in y; no method sees them."""
        return cls(seed, ids, ["observation"], device)

    def normal(self, *shape: int, rows: slice | None = None) -> Tensor:
        """Standard normal float32 [B, n, *shape] on the device.

        With `rows` of the B * n only those streams are drawn from and the result is [rows, *shape]: for methods that do
        one part of the samples after the other.
        """
        import torch

        return self._draw(shape, torch.randn, rows)

    def uniform(self, *shape: int, rows: slice | None = None) -> Tensor:
        """Uniform float32 in [0, 1), [B, n, *shape], on the device; `rows` as in `normal`."""
        import torch

        return self._draw(shape, torch.rand, rows)

    def _draw(self, shape: tuple[int, ...], draw: Any, rows: slice | None) -> Tensor:
        import torch

        streams = self.streams if rows is None else self.streams[rows]
        drawn = torch.stack([draw(shape, generator=g, device=g.device) for g in streams]).to(self.device)
        return drawn if rows is not None else drawn.view(len(self.ids), len(self.samples), *shape)


def _stream_seed(seed: int, image: str, sample: int | str) -> int:
    digest = hashlib.blake2b(f"{seed}\0{image}\0{sample}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number, of Python or of a library."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


class Method(ABC):
    """A diverse super-resolution method. Its constructor takes the keys of its yaml file.

    Attributes:
        operator: what made y, from `prepare` on.
        device: where it computes, from `prepare` on.
        posterior: the dataset's exact posterior, for a method that declares ``needs_posterior``.

    """

    facts: ClassVar[Facts]
    operator: Operator
    device: torch.device
    posterior: Any = None

    def prepare(self, operator: Operator, device: torch.device | str = "cpu", posterior: Any = None) -> Self:
        """Check that the method can do the operator and `load` it for it; called before any `sample`.

        Raises:
            BenchError: an operator that the method does not declare, a size that it cannot do, or missing, truncated or
                mismatching weights, in one sentence.

        """
        import torch

        if reason := self.facts.refuses(operator.kind, operator.scale, operator.sigma):
            raise BenchError(f"{reason}.")
        if self.size is not None and operator.size != self.size:
            have = "x".join(map(str, dict.fromkeys(operator.size)))
            raise BenchError(
                f"{self.facts.title} makes images of {self.size[0]} pixels with this network, not of {have}: "
                f"add dataset.size={self.size[0]}, or use another network."
            )
        if self.needs_posterior and posterior is None:
            raise BenchError(
                f"{UNKNOWN_POSTERIOR.format(self.facts.title)}: take dataset=gaussians, or in Python give it with "
                "prepare(..., posterior=...)."
            )
        self.device = torch.device(device)
        self.operator = operator.to(self.device)
        self.posterior = posterior
        self.load()
        return self

    def load(self) -> None:  # noqa: B027 -- optional by design
        """Build networks and read weights for ``self.operator`` on ``self.device``.

        Raises:
            BenchError: missing, truncated or mismatching weights, in one sentence.

        """

    def sample(self, y: Tensor, n: int, tau: float | None = None, noise: Noise | None = None) -> Tensor:
        """Draw `n` high-resolution images for each low-resolution one.

        Args:
            y: float32 [B, 3, h, w] on the device; in the operator's range and rounded to 8 bits where it has no noise.
            n: samples per image.
            tau: temperature in (0, 1]; None for 1. A method without a temperature ignores it.
            noise: the source of randomness for [B, n]; None keys it by the content of y and a seed of 0, so that equal
                calls give equal samples.

        Returns:
            float32 [B, n, 3, H, W] in the operator's range, on the device, without gradients. Values are NaN or
            infinite where the method failed for an image.

        Raises:
            BenchError: the method is not prepared, an argument does not fit, or the method broke the contract.

        Warns:
            UnusableSamples: the method failed for some images; the text names their places in the batch.

        """
        import torch

        self._check_input(y, n, tau)
        n = int(n)
        y = y.detach()
        self._check_observed(y)
        if noise is None:
            noise = Noise.of_content(y, n)
        elif not isinstance(noise, Noise):
            raise BenchError(
                f"noise={noise!r} is no source of noise: give bench.contract.Noise.of_content(y, n, seed)."
            )
        elif noise.device.type != self.device.type:
            raise BenchError(f"The noise is on {noise.device}, not on {self.device}: give Noise(..., device=...).")
        elif (len(noise.ids), len(noise.samples)) != (len(y), n):
            raise BenchError(
                f"The noise is for {len(noise.ids)} images and {len(noise.samples)} samples, not {len(y)} and {n}."
            )
        with torch.no_grad():
            x = self.draw(y, n, (1.0 if tau is None else float(tau)) if self.facts.uses_tau else None, noise)
        self._check_output(x, len(y), n)
        self._check_range(x)
        return x.detach()

    @abstractmethod
    def draw(self, y: Tensor, n: int, tau: float | None, noise: Noise) -> Tensor:
        """Draw samples; what a method's author writes. Arguments are checked, gradients are off.

        Args:
            y: float32 [B, 3, h, w].
            n: samples per image.
            tau: temperature in (0, 1], None for a method that declares ``uses_tau=False``.
            noise: the only source of randomness; its draws are [B, n, ...].

        Returns:
            float32 [B, n, 3, H, W] in the operator's range on the device.

        """

    @property
    def size(self) -> tuple[int, int] | None:
        """Sides of the images that it makes with this configuration; None for any."""
        return None

    @property
    def needs_posterior(self) -> bool:
        """Whether it needs the dataset's exact posterior with this configuration."""
        return self.facts.needs_posterior

    @property
    def evaluations(self) -> int:
        """Network evaluations per sample with this configuration."""
        return self.facts.evaluations

    @property
    def backward_passes(self) -> int:
        """Gradients through the network per sample with this configuration."""
        return self.facts.backward_passes

    def files(self) -> Mapping[str, Path]:
        """Files that `load` read, by their role: results depend on their content."""
        return {}

    def _check_input(self, y: Tensor, n: int, tau: float | None) -> None:
        import torch

        name = type(self).__name__
        if not hasattr(self, "operator"):
            raise BenchError(f"{name} is not prepared: call prepare(operator, device) first, or use load_method.")
        expected = (3, *self.operator.low_size)
        if not isinstance(y, torch.Tensor) or y.dim() != 4 or tuple(y.shape[1:]) != expected:
            shape = list(y.shape) if isinstance(y, torch.Tensor) else type(y).__name__
            raise BenchError(f"{name} expects y of the shape [B, {', '.join(map(str, expected))}], got {shape}.")
        if y.dtype != torch.float32 or y.device != self.device:
            raise BenchError(f"{name} expects y as torch.float32 on {self.device}, got {y.dtype} on {y.device}.")
        if len(y) < 1 or not is_whole(n) or n < 1:
            raise BenchError(f"{name} needs one image and one sample at least, got {len(y)} and n={n}.")
        if tau is not None and self.facts.uses_tau and not (_is_number(tau) and 0 < tau <= 1):
            raise BenchError(f"tau={tau} is not a number above 0 and up to 1.")

    def _check_observed(self, y: Tensor) -> None:
        """Check the values of y."""
        name = type(self).__name__
        if not y.isfinite().all():
            raise BenchError(f"{name} was given an observation that is NaN or infinite.")
        if (r := self.operator.range) is not None and not self.operator.sigma:
            low, high = float(y.min()), float(y.max())
            if low < r[0] or high > r[1]:
                raise BenchError(
                    f"{name} expects y between {r[0]:g} and {r[1]:g}, got values from {low:.3g} to {high:.3g}."
                )

    def _check_output(self, x: Tensor, images: int, n: int) -> None:
        import torch

        name = type(self).__name__
        expected = (images, n, 3, *self.operator.size)
        if not isinstance(x, torch.Tensor) or tuple(x.shape) != expected:
            shape = list(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__
            raise BenchError(f"{name} broke the contract: it returned the shape {shape}, expected {list(expected)}.")
        if x.dtype != torch.float32 or x.device != self.device:
            raise BenchError(
                f"{name} broke the contract: it returned {x.dtype} on {x.device}, expected torch.float32 on "
                f"{self.device}."
            )

    def _check_range(self, x: Tensor) -> None:
        """Check the values of samples; warn of images that failed."""
        name = type(self).__name__
        usable = x.isfinite().flatten(1).all(1)
        if failed := (~usable).nonzero().flatten().tolist():
            warnings.warn(
                f"{name} failed for {len(failed)} of {len(x)} images, y[{failed if len(failed) > 1 else failed[0]}]: "
                "samples of them are NaN or infinite; leave them out, or change tau or the method's settings.",
                UnusableSamples,
                stacklevel=3,
            )
        if self.operator.range is None:
            return
        low, high = self.operator.range
        margin = TOLERANCE * (high - low)
        finite = x[usable]  # an image with a NaN must not hide another that is out of range
        if finite.numel() and (finite.min() < low - margin or finite.max() > high + margin):
            raise BenchError(
                f"{name} broke the contract: it returned values from {float(finite.min()):.3g} to "
                f"{float(finite.max()):.3g}, expected {low:g} to {high:g}."
            )


methods: Registry[Method] = Registry("method", package="methods", group="bench.methods", facts=Facts)
register_method = methods.register

"""The contract of an operator, y = A x + sigma n, and the registry of all operators.

Add one in a file of this package (or through the entry point group ``bench.operators``) with a yaml file
``configs/operator/NAME.yaml`` whose keys, ``name`` apart, are the constructor's arguments::

    @register_operator("mine")
    class Mine(Separable):
        facts = OperatorFacts(title="Mine", source="...")

        def matrix(self, side: int) -> np.ndarray:        # what A does along one side: float64 [side / scale, side]
            ...

An operator that is not separable derives from :class:`Operator` and writes `forward`, `adjoint`, `pinv` and `svd`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from bench.errors import BenchError
from bench.registry import Registry
from bench.settings import Settings, parameters, validate, written

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from bench.contract import Noise

__all__ = [
    "Operator",
    "OperatorFacts",
    "Svd",
    "make_operator",
    "operators",
    "quantise",
    "register_operator",
    "to_uint8",
]

Range = tuple[float, float]


@dataclass(frozen=True)
class OperatorFacts:
    """What an operator declares.

    Attributes:
        title: its name in tables.
        source: where it comes from.
        scaled: whether A shrinks the sides by `scale`; without it the scale is 1 whatever is asked for.

    """

    title: str
    source: str = ""
    scaled: bool = True


def quantise(x: Tensor) -> Tensor:
    """Clip to [0, 1] and round to the 256 levels of an 8-bit image; same shape and dtype."""
    return (x.clamp(0, 1) * 255).round() / 255


def to_uint8(x: Tensor) -> Tensor:
    """Clip [0, 1] and round to uint8."""
    import torch

    return (x.clamp(0, 1) * 255).round().to(torch.uint8)


class Svd(ABC):
    """A = U diag(s) V^T of one colour, on coefficients that are laid out as the image is.

    Attributes:
        s: singular values [H, W]; 0 on what A does not see.

    """

    s: Tensor

    @abstractmethod
    def v_t(self, x: Tensor) -> Tensor:
        """V^T x: images [..., H, W] to coefficients [..., H, W]."""

    @abstractmethod
    def v(self, c: Tensor) -> Tensor:
        """V c: coefficients [..., H, W] to images [..., H, W]."""

    def pull(self, x: Tensor, target: Tensor, gain: Tensor | float) -> Tensor:
        """V diag(gain) (target - V^T x) where A sees something: images [..., H, W], and a gain for each coefficient."""
        import torch

        return self.v(torch.where(self.s > 0, gain * (target - self.v_t(x)), 0.0))

    @abstractmethod
    def diagonal(self, c: Tensor) -> Tensor:
        """Diagonal [H, W] of V diag(c) V^T: the variances of pixels, given those of coefficients [H, W]."""

    @abstractmethod
    def u_t(self, y: Tensor) -> Tensor:
        """U^T y: observations [..., h, w] to coefficients [..., H, W], 0 where s is."""

    @abstractmethod
    def u(self, c: Tensor) -> Tensor:
        """U c: coefficients [..., H, W], of which those with s = 0 do not count, to observations [..., h, w]."""


class Operator(ABC):
    """A linear map A from images to observations of them, and the noise of the observation.

    All operations take [..., H, W] tensors of any leading shape; `forward`, `adjoint`, `pinv` and `project` are linear
    in them (no clipping, no rounding) and differentiable. They compute in float32 at least, also under autocast.

    Args:
        size: sides (H, W) of the image in pixels, or one number for a square.
        scale: integer factor by which A shrinks both sides; 1 for an operator that keeps the size.
        sigma: standard deviation of the noise, in intensities.
        range: smallest and largest intensity of an image; None for tasks whose images are no photographs: nothing is
            then clipped, rounded or checked.
        device: where A lives.
        dtype: float32 or float64.

    Raises:
        BenchError: `scale` does not divide the sides, or leaves fewer than two pixels, or sigma or the range is wrong.

    """

    facts: ClassVar[OperatorFacts]
    name: ClassVar[str]
    """The registered name."""

    @classmethod
    def files(cls, settings: Mapping[str, Any]) -> dict[str, Path]:
        """Files that settings name, by setting: what they hold belongs to what is measured.

        Without more knowledge, those whose name has a suffix.
        """
        named = {k: Path(v) for k, v in settings.items() if isinstance(v, str) and Path(v).suffix}
        return {k: path for k, path in named.items() if path.is_file()}

    def __init__(
        self,
        size: int | tuple[int, int],
        scale: int,
        *,
        sigma: float = 0.0,
        range: Range | None = (0.0, 1.0),
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> None:
        import torch

        sides = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        for side in sides:
            if scale < 1 or side % scale:
                raise BenchError(f"scale={scale} does not divide the image size {side}: choose a divisor of {side}.")
            if side // scale < 2:
                raise BenchError(f"scale={scale} leaves an image of {side // scale} pixel: choose a smaller scale.")
        if not 0 <= sigma < math.inf:
            raise BenchError(f"operator.sigma={sigma:g} is wrong: give the standard deviation of the noise, 0 or more.")
        if range is not None and not -math.inf < range[0] < range[1] < math.inf:
            raise BenchError(
                f"operator.range={written(range)} is wrong: give the smallest and the largest intensity, as [0,1]."
            )
        self.size = sides
        self.scale = scale
        self.low_size = self.observed_size(sides)
        self.sigma = float(sigma)
        self.range = None if range is None else (float(range[0]), float(range[1]))
        self.device = torch.device(device)
        self.dtype = torch.float32 if dtype is None else dtype

    @classmethod
    def any_size(cls, scale: int, settings: Mapping[str, Any]) -> tuple[int, int]:
        """Sides (H, W) of images that the operator with these settings can have."""
        side = max(64 // scale, 8) * scale
        return side, side

    def observed_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Sides (h, w) of y for an image of sides (H, W)."""
        return size[0] // self.scale, size[1] // self.scale

    @property
    def observed(self) -> int:
        """Pixels of y that are observed, of one colour; fewer than h w where A hides some (`masked`)."""
        return self.low_size[0] * self.low_size[1]

    @property
    def kind(self) -> str:
        """What a trained method must have been trained for: the name, unless a setting changes A itself."""
        return self.name

    @property
    def title(self) -> str:
        """Name for messages and tables, as in "bicubic x8, sigma 0.05"."""
        size = f" x{self.scale}" if self.scale > 1 else ""
        return f"{self.kind}{size}" + (f", sigma {self.sigma:g}" if self.sigma else "")

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """A x: [..., H, W] -> [..., h, w]."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """A^T y: [..., h, w] -> [..., H, W]; <A x, y> = <x, A^T y>."""

    @abstractmethod
    def pinv(self, y: Tensor) -> Tensor:
        """A^+ y, the smallest x that comes nearest to y: [..., h, w] -> [..., H, W]."""

    @abstractmethod
    def svd(self) -> Svd:
        """Return the singular value decomposition of A, never as a dense matrix of the image's size."""

    @abstractmethod
    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Self:
        """Return the same operator on a device, in a precision (None: as it is)."""

    def project(self, x: Tensor, y: Tensor) -> Tensor:
        """Return x + A^+ (y - A x), the image nearest to `x` whose observation is `y` (before any clipping)."""
        return x + self.pinv(y - self.forward(x))

    def consistent(self, x: Tensor, y: Tensor, rounds: int = 8) -> Tensor:
        """Return an image within the range near `x` whose observation is nearly `y`.

        Clipping after `project` spoils the consistency where an image is black or white. Projecting and clipping in
        turns converges to an image that is in range and consistent (projections onto convex sets). The paper projects
        once; so do we where there is no range.
        """
        if self.range is None:
            return self.project(x, y)
        for _ in range(rounds):
            x = self.clip(self.project(x, y))
        return x

    def clip(self, x: Tensor) -> Tensor:
        """Keep intensities within the range, if there is one."""
        return x if self.range is None else x.clamp(*self.range)

    def round(self, x: Tensor) -> Tensor:
        """Clip and round to 8 bits, as a saved image is; nothing where there is no range."""
        if self.range is None:
            return x
        low, high = self.range
        return low + (high - low) * quantise((x - low) / (high - low)) if self.range != (0.0, 1.0) else quantise(x)

    def observe(self, x: Tensor, noise: Noise | None = None) -> Tensor:
        """Return y = A x + sigma n, rounded to 8 bits where sigma is 0.

        Args:
            x: images [B, 3, H, W].
            noise: a source with one stream for each image; needed where sigma > 0.

        Returns:
            [B, 3, h, w].

        """
        y = self.forward(x)
        if not self.sigma:
            return self.round(y)
        if noise is None:
            raise BenchError(f"{self.title} needs noise: observe(x, noise).")
        n = noise.normal(*y.shape[1:])[:, 0].to(y)
        return y + self.sigma * self.masked(n)

    def masked(self, y: Tensor) -> Tensor:
        """Return y with 0 where nothing is observed: everywhere the same as y unless A hides pixels."""
        return y


operators: Registry[Operator] = Registry(
    "operator", package="bench.operators", group="bench.operators", facts=OperatorFacts
)
register_operator = operators.register


GIVEN = ("size", "scale", "device", "dtype")
"""Arguments of an operator that are no settings."""


def operator_settings(config: Mapping[str, Any]) -> Settings:
    """Check an operator's configuration, ``name`` and the constructor's settings, without building it.

    Raises:
        BenchError: unknown name, or an unknown or wrong setting.

    """
    arguments = dict(config)
    name = str(arguments.pop("name"))
    checked: Settings = validate(parameters(operators.get(name), GIVEN), arguments, "operator", name)
    return checked


def operator_kind(config: Mapping[str, Any], scale: int) -> str:
    """Return the `Operator.kind` of a configuration, which its settings may change.

    Raises:
        BenchError: unknown name, or an unknown or wrong setting.

    """
    operator_settings(config)
    return make_operator(config, scale, operators.get(str(config["name"])).any_size(scale, config)).kind


def make_operator(
    config: Mapping[str, Any],
    scale: int,
    size: int | tuple[int, int],
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    range: Range | None = (0.0, 1.0),
) -> Operator:
    """Build an operator from its configuration for images of one size.

    Args:
        config: ``name`` and the operator's own settings (``sigma``, ``range``, ...).
        scale: scale factor; an operator that keeps the size ignores it.
        size: sides of the image.
        device: where A lives.
        dtype: precision.
        range: the dataset's; where it is None the operator's is too.

    Raises:
        BenchError: unknown name, an unknown or wrong setting, or a scale that does not fit.

    """
    checked = operator_settings(config)
    settings = {name: getattr(checked, name) for name in type(checked).model_fields}
    if range is None:
        settings["range"] = None
    return operators.get(str(config["name"]))(size, scale, device=device, dtype=dtype, **settings)

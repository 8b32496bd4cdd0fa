"""The contract of a metric and the registry of all metrics.

Add one in a file of this package (or through the entry point group ``bench.metrics``)::

    @register_metric("mine")
    class Mine(Metric):
        facts = MetricFacts(label="Mine", better="lower", unit="", domain="sample", range="[0, 1]", source="...")

        def __call__(self, e: Evaluation) -> Tensor:      # domain sample: [B, n]; pair: [B, pairs]; image: [B]
            return (e.samples - e.hr[:, None]).abs().mean((2, 3, 4))
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from math import log10, nan
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from bench.errors import BenchError, near_matches
from bench.registry import Registry

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from bench.operators import Operator
    from bench.posterior import Posterior

Domain = Literal["sample", "pair", "image", "timing"]
Better = Literal["higher", "lower", "neither"]
ARROWS: dict[Better, str] = {"higher": "↑", "lower": "↓", "neither": ""}
"""The better direction, for reading."""


@dataclass(frozen=True)
class MetricFacts:
    """What a metric declares.

    Attributes:
        label: name in tables.
        better: direction; "neither" where a value can be too large and too small: it has no arrow and no rank.
        unit: unit of the value, "" for none.
        domain: what one value belongs to: a sample, a pair of samples of one image, an image's set of samples, or the
            timing of a method. Values are averaged within an image first, then over images.
        range: possible values, as text; tables hold values of images in [0, 1] against the interval it begins with.
        needs_raw: whether it needs samples as the method returned them (`Evaluation.raw`), which a run does not keep.
        of_residual: whether it is the PSNR of y - A x: with noise in y it has no better direction (`better_at`).
        bounds: (least, largest) value for images of any intensities, None for no bound; None where `range` says it.
        source: definition and implementation.
        group: heading in the paper's Table 1.
        factor: tables show the value times this.
        column: suffix of the column's name that tells the factor ("" or "_e4").
        digits: format of the (multiplied) value in tables.
        least_size: shorter side in pixels of the smallest high-resolution images that it is defined for.
        needs_range: whether it is defined for images in [0, 1] only.

    """

    label: str
    better: Better
    unit: str
    domain: Domain
    range: str
    source: str
    group: str = "Other"
    factor: float = 1.0
    column: str = ""
    digits: str = ".2f"
    least_size: int = 1
    needs_range: bool = True
    needs_raw: bool = False
    of_residual: bool = False
    bounds: tuple[float | None, float | None] | None = None


@dataclass
class Evaluation:
    """One batch of images with their samples, and what several metrics share.

    Attributes:
        hr: float32 [B, 3, H, H] in [0, 1].
        y: float32 [B, 3, h, h] in [0, 1], the 8-bit observation.
        samples: float32 [B, n, 3, H, H] in [0, 1].
        operator: what made y.
        deterministic: whether all samples of an image are equal by design, so that one stands for all.
        raw: the samples as the method returned them, neither clipped nor rounded by the harness; None where `samples`
            are these.
        posterior: of images seen through `operator`, where it is known.
        n: samples per image of the run, which a deterministic method's one stands for; None for those that are there.

    """

    hr: Tensor
    y: Tensor
    samples: Tensor
    operator: Operator
    deterministic: bool = False
    raw: Tensor | None = None
    posterior: Posterior | None = None
    n: int | None = None
    _shared: dict[str, Any] = field(default_factory=dict)

    @property
    def set_size(self) -> int:
        """Samples per image, those included that one of a deterministic method stands for."""
        return self.samples.shape[1] if self.n is None else self.n

    @property
    def flat(self) -> Tensor:
        """The samples as [B * n, 3, H, H]."""
        return self.samples.flatten(0, 1)

    @property
    def hr_repeated(self) -> Tensor:
        """The ground truth once per sample, [B * n, 3, H, H]."""
        return self.hr.repeat_interleave(self.samples.shape[1], 0)

    def per_sample(self, values: Tensor) -> Tensor:
        """[B * n] to [B, n]."""
        return values.view(self.samples.shape[:2])

    @property
    def spread_of_one(self) -> Tensor:
        """[B], any measure of diversity of a single sample: 0 for a deterministic method, else undefined (NaN)."""
        return self.hr.new_full((len(self.hr),), 0.0 if self.deterministic else nan)

    def pairs(self) -> list[tuple[int, int]]:
        """All pairs of samples i < j."""
        return list(combinations(range(self.samples.shape[1]), 2))

    def shared(self, key: str, compute: Callable[[], Any]) -> Any:
        """Compute once per batch what several metrics need (features of a network)."""
        if key not in self._shared:
            self._shared[key] = compute()
        return self._shared[key]

    def part(self, rows: slice) -> Evaluation:
        """Some of the images, with nothing shared yet."""
        raw = None if self.raw is None else self.raw[rows]
        return replace(self, hr=self.hr[rows], y=self.y[rows], samples=self.samples[rows], raw=raw, _shared={})

    def release(self) -> None:
        """Forget what is shared, to have its memory back."""
        self._shared.clear()


class Metric(ABC):
    """A pure function of an `Evaluation`; the constructor may load weights."""

    facts: ClassVar[MetricFacts]

    def __init__(self, device: torch.device | str = "cpu") -> None:
        import torch  # what a metric declares can be read without it

        self.device = torch.device(device)

    @abstractmethod
    def __call__(self, e: Evaluation) -> Tensor:
        """Return [B, n], [B, pairs] or [B] by the domain; NaN where the metric is undefined for an image."""


metrics: Registry[Metric] = Registry("metric", package="bench.metrics", group="bench.metrics", facts=MetricFacts)
register_metric = metrics.register

PSNR_FLOOR = 1e-8
"""Added by piq to a mean square error: its PSNR is 80 dB at most."""
PERCEPTUAL = ("lpips_alex", "lpips_vgg", "stlpips_alex")
"""Perceptual distances; each also gives ``apd_NAME`` and ``diversity_NAME``."""


def better_at(name: str, sigma: float) -> Better:
    """Better direction of a metric where y has noise of standard deviation `sigma`.

    A sample of the posterior is as far from y as the noise is (`right_residual`), and a nearer one is fitted to it.
    """
    facts = metric_facts(name)
    return "neither" if facts.of_residual and sigma else facts.better


def right_residual(sigma: float) -> float:
    """PSNR of y - A x of a perfect sampler, in dB, as `lr_psnr` has it (80 at most); NaN without noise."""
    return -10 * log10(sigma**2 + PSNR_FLOOR) if sigma else nan


def metric_facts(name: str) -> MetricFacts:
    """Facts of a metric by name, without loading weights; ``pyiqa:NAME`` included."""
    if name.startswith("pyiqa:"):
        from bench.metrics.iqa import iqa_facts

        return iqa_facts(name.removeprefix("pyiqa:"))
    facts: MetricFacts = metrics.facts(name)
    return facts


def too_small(name: str, size: int) -> str | None:
    """Return the sentence that says why a metric is not defined for images of `size` pixels, None if it is."""
    least = metric_facts(name).least_size
    if size >= least:
        return None
    return f"{name} is n/a for images of {size}x{size} pixels: it needs {least}x{least} or more."


def column(name: str) -> str:
    """Name of the metric's column in table.csv."""
    return name + metric_facts(name).column


def unit(facts: MetricFacts) -> str:
    """Unit and factor of a column, as in "dB" or "x 1e4"; "" for neither."""
    return f"x {facts.factor:.0e}".replace("e+0", "e") if facts.factor != 1 else facts.unit


def load_metrics(names: Iterable[str], device: torch.device | str) -> dict[str, Metric]:
    """Build the metrics of a run on a device; metrics of the domain "timing" are left out."""
    loaded: dict[str, Metric] = {}
    for name in names:
        if name.startswith("pyiqa:"):
            from bench.metrics.iqa import IqaMetric

            loaded[name] = IqaMetric(name.removeprefix("pyiqa:"), device)
        elif metric_facts(name).domain != "timing":
            loaded[name] = metrics.get(name)(device)
    return loaded


def resolve_metrics(names: Sequence[str], perceptual: str) -> tuple[list[str], str | None]:
    """Put the real name of the perceptual distance in the place of "perceptual".

    Args:
        names: metric names; ``perceptual``, ``apd_perceptual`` and ``diversity_perceptual`` are placeholders.
        perceptual: one of `PERCEPTUAL`, or "auto": LPIPS (AlexNet) where its weights are on this machine, else
            shift-tolerant LPIPS (AlexNet), whose weights come with this project.

    Returns:
        the names, and a sentence for the user where "auto" fell back.

    """
    from bench.metrics.perceptual import lpips_weights_missing

    notice = None
    if any("perceptual" in n for n in names):
        if perceptual == "auto":
            missing = lpips_weights_missing("alex")
            perceptual = "stlpips_alex" if missing else "lpips_alex"
            if missing:
                notice = (
                    f"LPIPS weights are not on this machine ({missing}): using shift-tolerant LPIPS, named "
                    "stlpips_alex in every table. With network access, perceptual=lpips_alex downloads them."
                )
        elif perceptual not in PERCEPTUAL:
            raise BenchError(f"There is no perceptual distance '{perceptual}'.{near_matches(perceptual, PERCEPTUAL)}")
    resolved = [n.replace("perceptual", perceptual) for n in names]
    for name in resolved:
        metric_facts(name)  # an unknown name is an error before anything is computed
    return list(dict.fromkeys(resolved)), notice

"""Run the contract of :mod:`bench.contract` on a method and say readably what holds.

The same checks run in the test suite on every registered method.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bench.config import RunConfig, compose, read_config
from bench.contract import TOLERANCE, Method, Noise
from bench.data import make_dataset
from bench.errors import BenchError, ImageError
from bench.load import make_method
from bench.machine import release_memory
from bench.metrics import Evaluation, metrics, right_residual
from bench.run.draw import observe
from bench.run.selection import cell_keys, dataset_operator, prepared_method

LEVEL = 1 / 255
"""One step of an 8-bit image."""
STRAY = 1e-3
"""Share of values that may differ by more than a level between batch sizes: kernels change with the batch, and so does
rounding, which now and then turns a discrete choice (the component of a mixture) in one pixel."""
N = 3

Verdict = Literal["pass", "fail", "info"]


@dataclass(frozen=True)
class Result:
    """Outcome of one check: "info" for what is measured but not required."""

    name: str
    verdict: Verdict
    detail: str


class _Subject:
    """A prepared method with inputs, and its samples of all of them, drawn in one batch."""

    def __init__(self, method: Method, ids: list[str], y: Tensor, tau: float | None) -> None:
        self.method = method
        self.ids = ids
        self.y = y
        self.tau = tau
        self.input_changed = False
        self.state = torch.random.get_rng_state()
        self.x = self.draw(range(len(ids)))
        self.state_after = torch.random.get_rng_state()

    @property
    def n(self) -> int:
        return 1 if self.method.facts.deterministic else N

    def draw(self, which: range | list[int], samples: list[int] | None = None, tau: float | None = None) -> Tensor:
        chosen = list(range(self.n)) if samples is None else samples
        noise = Noise(0, [self.ids[i] for i in which], chosen, self.y.device)
        y = self.y[list(which)]
        before = y.clone()
        with torch.no_grad():  # `draw`, since the verdicts are on what `sample` refuses
            x = self.method.draw(y, len(chosen), self.tau if tau is None else tau, noise)
        self.input_changed |= not torch.equal(y, before)
        return x


def check_method(config: RunConfig) -> Iterator[Result]:
    """Check the one method of a configuration at its first scale, on the dataset's first images.

    Yields results as they come. The method's own exceptions become failed checks.

    Raises:
        BenchError: the method cannot be built, or more than one is given.

    """
    if len(config.methods) != 1:
        raise BenchError("check takes one method: python -m bench check method=NAME.")
    entry, scale = config.methods[0], config.scales[0]
    cell_keys(config)  # an undeclared scale is an error
    make_method(entry)  # wrong settings are an error of the configuration
    dataset = make_dataset(config.dataset)
    device = torch.device(config.device)
    operator = dataset_operator(config, dataset, scale)
    exact = operator.to("cpu", torch.float64)
    ids, low = [], []
    for index in range(len(dataset)):
        try:
            low.append(observe(dataset, index, exact, config.seed)[1])
            ids.append(dataset.ids[index])
        except ImageError:
            continue
        if len(ids) == 2:
            break
    else:
        raise BenchError("check needs two images that can be read: use another dataset.")
    try:
        method = prepared_method(config, entry, dataset, scale)
        tau = config.taus[0] if method.facts.uses_tau else None
        subject = _Subject(method, ids, torch.stack(low).to(device), tau)
    except BenchError:
        raise
    except Exception as error:  # noqa: BLE001 -- any failure of the method is a verdict on it
        yield Result("sample runs", "fail", f"{type(error).__name__}: {error}")
        return
    yield Result("sample runs", "pass", f"{len(ids)} images, n={subject.n}, tau={tau}, x{scale}, {device}")
    for name, check in CHECKS.items():
        try:
            verdict, detail = check(subject)
        except Exception as error:  # noqa: BLE001 -- as above
            verdict, detail = "fail", f"{type(error).__name__}: {error}"
        yield Result(name, verdict, detail)
        if name in FATAL and verdict == "fail":
            return


def failures(name: str, *overrides: str) -> list[str]:
    """Run the contract on a method and return what it breaks: a test of one's own asserts that it is nothing.

    Args:
        name: of its configuration.
        *overrides: of settings, as on the command line of ``python -m bench check``.

    """
    config = read_config(compose("check", [f"methods=[{name}]", *overrides]))
    return [f"{r.name}: {r.detail}" for r in check_method(config) if r.verdict == "fail"]


def _judge(good: bool, detail: str) -> tuple[Verdict, str]:
    return "pass" if good else "fail", detail


def _shape(s: _Subject) -> tuple[Verdict, str]:
    expected = [len(s.ids), s.n, 3, *s.method.operator.size]
    good = list(s.x.shape) == expected and s.x.dtype == torch.float32 and s.x.device == s.y.device
    return _judge(
        good, f"{s.x.dtype} {list(s.x.shape)} on {s.x.device}; expected torch.float32 {expected} on {s.y.device}"
    )


def _finite(s: _Subject) -> tuple[Verdict, str]:
    bad = int((~s.x.isfinite()).sum())
    return _judge(bad == 0, f"{bad} values are NaN or infinite")


def _range(s: _Subject) -> tuple[Verdict, str]:
    if (r := s.method.operator.range) is None:
        return "info", "the images have no range"
    low, high = float(s.x.min()), float(s.x.max())
    margin = TOLERANCE * (r[1] - r[0])
    good = low >= r[0] - margin and high <= r[1] + margin
    return _judge(good, f"values from {low:.4f} to {high:.4f}; expected {r[0]:g} to {r[1]:g}")


def _pure(s: _Subject) -> tuple[Verdict, str]:
    if s.input_changed:
        return "fail", "sample changed its input y in place: work on a copy"
    if not torch.equal(s.state, s.state_after):
        return "fail", "sample drew from PyTorch's global generator: draw from `noise` instead"
    return "pass", "input and global random state unchanged"


def _deterministic(s: _Subject) -> tuple[Verdict, str]:
    gap = float((s.draw(range(len(s.ids))) - s.x).abs().max())
    return _judge(gap == 0, f"the same call again differs by {gap:.2g}")


def _same(what: str, x: Tensor, reference: Tensor) -> tuple[Verdict, str]:
    """Judge that two ways to the same samples agree, up to rounding."""
    gap = (x - reference).abs()
    share = float((gap > LEVEL).float().mean())
    return _judge(
        share <= STRAY,
        f"{what}: {share:.3%} of the values differ by more than a level (allowed {STRAY:.1%}), most {gap.max():.2g}",
    )


def _batch(s: _Subject) -> tuple[Verdict, str]:
    return _same("images one by one", torch.cat([s.draw([i]) for i in range(len(s.ids))]), s.x)


def _order(s: _Subject) -> tuple[Verdict, str]:
    backwards = s.draw(list(reversed(range(len(s.ids))))).flip(0)
    return _same("images in reverse order", backwards, s.x)


def _sample_alone(s: _Subject) -> tuple[Verdict, str]:
    last = s.draw(range(len(s.ids)), [s.n - 1])
    return _same(f"sample {s.n - 1} alone", last, s.x[:, -1:])


def _spread(x: Tensor) -> float:
    """Root mean square deviation of the samples from their mean, in 8-bit levels."""
    return float((x - x.mean(1, keepdim=True)).square().mean().sqrt()) / LEVEL


def _distinct(s: _Subject) -> tuple[Verdict, str]:
    if s.method.facts.deterministic:
        return "info", "declared deterministic"
    gaps = [float((s.x[:, i] - s.x[:, j]).abs().amax((1, 2, 3)).min()) for i in range(s.n) for j in range(i)]
    return _judge(min(gaps) > 0, f"{s.n} samples of an image deviate by {_spread(s.x):.2f} levels (root mean square)")


def _tau(s: _Subject) -> tuple[Verdict, str]:
    if not s.method.facts.uses_tau:
        return "info", "declared without a temperature"
    cold, hot = (_spread(s.draw(range(len(s.ids)), tau=t)) for t in (0.1, 1.0))
    return _judge(hot > cold, f"spread of {cold:.2f} levels at tau 0.1, {hot:.2f} at tau 1.0; it must rise")


def _consistency(s: _Subject) -> tuple[Verdict, str]:
    operator = s.method.operator
    e = Evaluation(s.y.new_zeros(0), s.y, operator.clip(s.x), operator)
    right = f", of a perfect sampler {right_residual(operator.sigma):.2f} dB" if operator.sigma else ""
    return "info", f"LR-PSNR {float(metrics.get('lr_psnr')()(e).mean()):.2f} dB{right}"


def _memory(s: _Subject) -> tuple[Verdict, str]:
    s.draw([0])
    before = _allocated(s.y.device)
    for _ in range(2):
        s.draw([0])
    grown = _allocated(s.y.device) - before
    return _judge(grown <= 0, f"{max(grown, 0) / 2**20:.1f} MiB more after two further calls")


def _allocated(device: torch.device) -> int:
    """Bytes that tensors hold on a device."""
    release_memory()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return torch.cuda.memory_allocated(device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # asking some lazy objects of other packages for their type warns
        storages = {
            t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
            for t in gc.get_objects()
            if type(t) in (Tensor, torch.nn.Parameter) and t.device.type == "cpu" and t.layout == torch.strided
        }
    return sum(storages.values())


CHECKS: dict[str, Callable[[_Subject], tuple[Verdict, str]]] = {
    "shape, dtype and device": _shape,
    "finite": _finite,
    "range": _range,
    "no side effects": _pure,
    "deterministic given the noise": _deterministic,
    "independent of the batch": _batch,
    "independent of the order": _order,
    "independent of the other samples": _sample_alone,
    "samples are distinct": _distinct,
    "temperature": _tau,
    "consistency with y": _consistency,
    "memory is released": _memory,
}
FATAL = ("shape, dtype and device",)
"""Checks without which the others mean nothing."""

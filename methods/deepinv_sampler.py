"""Samplers of the library deepinv (github:deepinv/deepinv) on our prior and operator, to be run beside ours.

deepinv's images are in [0, 1]; its denoisers take x_0 + sigma n and sigma. Needs the extra `deepinv`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor

from bench.contract import Facts, register_method
from bench.errors import BenchError
from bench.operators import Operator
from methods.diffusion.prior import DiffusionPrior, even
from methods.diffusion.sampler import DiffusionSampler, Normal, Task

FLOOR = 0.001
"""Least sigma, as in DiffPIR's published code: deepinv's DiffPIR divides by sigma^2."""
Sampler = Callable[[Tensor, Any], Tensor]


@register_method("deepinv_sampler")
class DeepinvSampler(DiffusionSampler):
    """One of deepinv's samplers; every sample is drawn by itself, from a seed of its own stream.

    Args:
        sampler: "ddrm", "diffpir" or "dps".
        options: of its constructor, by deepinv's names: eta and etab; zeta and lambda_; weight and guidance.

    """

    facts = Facts(
        title="deepinv",
        version=2,
        uses_tau=False,
        evaluations=100,
        citation="Tachella et al. 2025 (github:deepinv/deepinv)",
        weights_licence="MIT (shipped)",
    )

    def __init__(
        self,
        sampler: Literal["ddrm", "diffpir", "dps"] = "ddrm",
        options: Mapping[str, float | str] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.sampler = sampler
        self.options = dict(options or {})

    @property
    def backward_passes(self) -> int:
        """One per step of DPS."""
        return self.steps if self.sampler == "dps" else 0

    def load(self) -> None:
        """Load the prior and build deepinv's sampler.

        Raises:
            BenchError: deepinv is not installed, or its sampler has no such option.

        """
        if find_spec("deepinv") is None:
            raise BenchError("deepinv_sampler needs the package deepinv: pip install 'diverse-sr-bench[deepinv]'.")
        super().load()
        self.physics = physics(self.operator)
        try:
            self.reconstruct = self._build(denoiser(self.prior))
        except TypeError as error:
            raise BenchError(f"options of deepinv's {self.sampler} are wrong: {error}: change them.") from error

    def _build(self, model: Any) -> Sampler:
        from deepinv.optim.data_fidelity import L2
        from deepinv.sampling import DDRM, DPS, DiffPIR

        if self.sampler == "ddrm":
            levels = [self.prior.level(t) / 2 for t in even(self.prior.steps, self.steps)]
            made: Sampler = DDRM(model, sigmas=levels, **self.options)
            return made
        if self.sampler == "dps":
            dps: Sampler = DPS(model, num_steps=self.steps + 1, device=self.device, **self.options)
            return dps
        diffpir = DiffPIR(model, L2(), max_iter=self.steps, device=self.device, **self.options)
        return lambda y, a: diffpir(y, a, x_init=self.operator.pinv(y))

    def trajectory(self, task: Task, normal: Normal) -> Tensor:
        """Row by row: deepinv draws from PyTorch's own generator, here seeded by the row's stream."""
        y = (task.y + self.operator.forward(task.y.new_ones(*self.operator.size))) / 2  # of images in [0, 1]
        devices = [self.device] if self.device.type == "cuda" else []
        found = []
        for row, key in zip(y, normal(), strict=True):
            with torch.random.fork_rng(devices):
                torch.manual_seed(int.from_bytes(hashlib.sha256(key.cpu().numpy().tobytes()).digest()[:7]))
                found.append(self.reconstruct(row[None], self.physics).float())
        return 2 * torch.cat(found) - 1


def denoiser(prior: DiffusionPrior) -> Any:
    """Our prior as deepinv's denoiser: (x_0 + sigma n, sigma) -> x_0, at the nearest level of its schedule."""
    from deepinv.models.base import Denoiser

    class Prior(Denoiser):
        def forward(self, x: Tensor, sigma: Tensor | float, *_: Any, **__: Any) -> Tensor:
            level = 2 * float(torch.as_tensor(sigma).flatten()[0])
            if level < prior.level(0) / 2:
                return x
            t = prior.nearest(level)
            return (prior(prior.signal(t) * (2 * x - 1), t).x0 + 1) / 2

    return Prior()


def physics(operator: Operator) -> Any:
    """Our operator as deepinv's, by its SVD."""
    from deepinv.physics import DecomposablePhysics, GaussianNoise

    svd = operator.svd()
    mask = svd.s.expand(1, 3, *operator.size)
    return DecomposablePhysics(
        U=svd.u, U_adjoint=svd.u_t, V=svd.v, V_adjoint=svd.v_t, mask=mask, img_size=(3, *operator.size),
        device=operator.device, noise_model=GaussianNoise(max(operator.sigma, FLOOR)),
    )  # fmt: skip

"""Sampling: z_<k from the low-resolution encoder, the other groups from the prior, then the output (paper, eq. 10)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from bench.contract import Degradation, Facts, Method, Noise, register_method
from bench.errors import BenchError
from bench.sampling import check_option, check_range, check_size, file_of_scale, finish, pieces
from methods.cvdvae.distributions import Gaussian
from methods.cvdvae.training import low_config, vdvae_config
from methods.cvdvae.vdvae import Block, TopDownBlock, Vdvae
from methods.cvdvae.weights import find_weights, load_weights

Output = Literal["draw", "mean", "mode"]


@torch.no_grad()
def super_resolve(
    model: Vdvae,
    y: Tensor,
    n: int,
    tau: float,
    noise: Noise,
    tau_scope: str = "prior",
    output: Output = "draw",
    batch: int | None = None,
) -> Tensor:
    """Sample p_SR(x | y) of eq. (10).

    Args:
        model: a VD-VAE with a low-resolution encoder.
        y: [B, 3, h, w] in [0, 1].
        n: samples per image; y is encoded once for all of them.
        tau: temperature.
        noise: draws [B, n, ...].
        tau_scope: "prior" applies tau to the groups >= k (as the authors' code), "all" to q_psi as well.
        output: "draw" from the mixture of logistics (as the authors' code), its "mean" or its "mode".
        batch: samples that go through the decoder together; None for all.

    Returns:
        [B, n, 3, H, H] in [0, 1], neither projected nor rounded.

    """
    assert model.low is not None
    k, size, mixtures = model.low.k, model.config.size, model.config.mixtures
    features = model.encoder_y(model.normalise(y))
    # what a branch makes of y's features is the same for all samples of an image
    projected = [block.enc_y.project(features[block.resolution]) for block in model.decoder.blocks[:k]]
    image_of_row = torch.arange(len(y), device=y.device).repeat_interleave(n)

    def decode(rows: slice) -> Tensor:
        def choose(l: int, block: TopDownBlock, state: Tensor, prior: Gaussian) -> Tensor:
            distribution = prior
            if l < k:
                low = projected[l][image_of_row[rows]]
                distribution = block.gaussian(block.enc_y.with_projected(state, low))
            normal = noise.normal(block.zdim, block.resolution, block.resolution, rows=rows)
            return distribution.draw(normal, tau if l >= k or tau_scope == "all" else 1.0)

        mixture = model.mixture(model.decoder(choose).float())
        if output == "draw":
            return mixture.draw(noise.uniform(mixtures, size, size, rows=rows), noise.uniform(3, size, size, rows=rows))
        return mixture.mean() if output == "mean" else mixture.mode()

    x = torch.cat([decode(rows) for rows in pieces(len(image_of_row), batch or len(image_of_row))])
    return ((x + 1) / 2).unflatten(0, (len(y), n))


def compile_blocks(model: Vdvae, mode: str) -> None:
    """Compile the convolutions of every block, which are most of the work; blocks of one shape share their code."""
    torch._dynamo.config.recompile_limit = 256  # one for each shape
    torch._dynamo.config.accumulated_recompile_limit = 4096
    for module in model.modules():
        if isinstance(module, Block):
            module.rest = torch.compile(module.rest, mode=mode, dynamic=False)  # type: ignore[method-assign]


@register_method("cvdvae")
class Cvdvae(Method):
    """CVDVAE with the weights of one prior and one low-resolution encoder per scale.

    Args:
        prior: keys of :class:`methods.cvdvae.vdvae.VdvaeConfig`.
        prior_weights: file; a bare name is looked for among the shipped weights.
        low: "x4", "x8" to keys of :class:`methods.cvdvae.vdvae.LowResolutionConfig`.
        low_weights: "x4", "x8" to file.
        tau_scope: "prior" or "all".
        output: "draw", "mean" or "mode".
        project: whether samples are made consistent with y (paper, section 4.1).
        batch: samples that go through the decoder together; at full size on a CPU one is the fastest.
        channels_last: memory format of the network.
        precision: "32", or "bf16" for the network's convolutions.
        compile: mode of torch.compile for the blocks ("default"; "reduce-overhead" adds CUDA graphs), None for none.

    """

    facts = Facts(
        title="CVDVAE",
        scales=(4, 8),
        citation="Prost et al., VISAPP 2024 (github:jprost76/srvdvae); VD-VAE: Child, ICLR 2021 (github:openai/vdvae)",
        weights_licence="MIT (shipped); MIT (VD-VAE, OpenAI)",
    )

    def __init__(
        self,
        prior: Mapping[str, Any],
        prior_weights: str,
        low: Mapping[str, Mapping[str, Any]],
        low_weights: Mapping[str, str | None],
        tau_scope: str = "prior",
        output: Output = "draw",
        project: bool = True,
        batch: int = 1,
        channels_last: bool = False,
        precision: Literal["32", "bf16"] = "32",
        compile: str | None = None,
    ) -> None:
        check_range("batch", batch, 1)
        check_option("precision", str(precision), ("32", "bf16"))
        check_option("compile", compile, (None, "default", "reduce-overhead"))
        check_option("tau_scope", tau_scope, ("prior", "all"))
        check_option("output", output, ("draw", "mean", "mode"))
        self.config = vdvae_config(prior)
        self.prior_weights = prior_weights
        self.low = {name: low_config(c) for name, c in low.items()}
        self.low_weights = dict(low_weights)
        self.tau_scope = tau_scope
        self.output: Output = output
        self.project = project
        self.batch = batch
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.bf16 = str(precision) == "bf16"
        self.compile = compile
        self._files: list[Path] = []

    def prepare(self, degradation: Degradation, device: torch.device) -> None:
        """Build the network for one scale and load its two files."""
        check_size(degradation, self.config.size)
        file = file_of_scale(self.low_weights, degradation.scale, "cvdvae", key="low_weights")
        low = self.low.get(f"x{degradation.scale}")
        if low is None:
            raise BenchError(
                f"There is no low-resolution encoder for x{degradation.scale}: add low.x{degradation.scale}."
            )
        self.degradation = degradation
        self.model = Vdvae(self.config, low)
        self._files = [find_weights(self.prior_weights), find_weights(file)]
        load_weights(self.model, self._files[0], part="prior")
        load_weights(self.model, self._files[1], part="low")
        self.model.eval().requires_grad_(False).to(device).to(memory_format=self.memory_format)
        if self.compile:
            compile_blocks(self.model, self.compile)

    def sample(self, y: Tensor, n: int, tau: float | None, noise: Noise) -> Tensor:
        """Sample; see :func:`super_resolve`."""
        tau = 1.0 if tau is None else tau
        with torch.autocast(y.device.type, torch.bfloat16, enabled=self.bf16):
            x = super_resolve(self.model, y, n, tau, noise, self.tau_scope, self.output, self.batch)
        return finish(x, y, self.degradation, self.project)

    def weights(self) -> Sequence[Path]:
        """The two files."""
        return self._files

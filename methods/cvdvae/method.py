"""Sampling: z_<k from the low-resolution encoder, the other groups from the prior, then the output (paper, eq. 10)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from bench.contract import Facts, Noise, register_method
from bench.network import NetworkMethod, check_scale, pieces
from bench.weights import find_weights, read_tensors
from methods.cvdvae.distributions import Gaussian
from methods.cvdvae.vdvae import Block, LowResolutionConfig, TopDownBlock, Vdvae, VdvaeConfig
from methods.cvdvae.weights import SHIPPED, inferred_groups, load_weights

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
    rows: int | None = None,
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
        rows: samples that go through the decoder together; None for all.

    Returns:
        [B, n, 3, H, H] in [0, 1], neither projected nor rounded.

    """
    k, size, mixtures = model.k, model.config.size, model.config.mixtures
    features = model.encoder_y(model.normalise(y))
    # what a branch makes of y's features is the same for all samples of an image
    projected = [block.enc_y.project(features[block.resolution]) for block in model.decoder.blocks[:k]]
    image_of_row = torch.arange(len(y), device=y.device).repeat_interleave(n)

    def decode(part: slice) -> Tensor:
        def choose(l: int, block: TopDownBlock, state: Tensor, prior: Gaussian) -> Tensor:
            distribution = prior
            if l < k:
                low = projected[l][image_of_row[part]]
                distribution = block.gaussian(block.enc_y.with_projected(state, low))
            normal = noise.normal(block.zdim, block.resolution, block.resolution, rows=part)
            return distribution.draw(normal, tau if l >= k or tau_scope == "all" else 1.0)

        mixture = model.mixture(model.decoder(choose).float())
        if output == "draw":
            return mixture.draw(noise.uniform(mixtures, size, size, rows=part), noise.uniform(3, size, size, rows=part))
        return mixture.mean() if output == "mean" else mixture.mode()

    x = torch.cat([decode(part) for part in pieces(len(image_of_row), rows or len(image_of_row))])
    return ((x + 1) / 2).unflatten(0, (len(y), n))


def compile_blocks(model: Vdvae, mode: str) -> None:
    """Compile the convolutions of every block, which are most of the work; blocks of one shape share their code."""
    torch._dynamo.config.recompile_limit = 256  # one for each shape
    torch._dynamo.config.accumulated_recompile_limit = 4096
    for module in model.modules():
        if isinstance(module, Block):
            module.rest = torch.compile(module.rest, mode=mode, dynamic=False)  # type: ignore[method-assign]


@register_method("cvdvae")
class Cvdvae(NetworkMethod):
    """CVDVAE with the weights of one prior and one low-resolution encoder per scale.

    Args:
        prior: shape of the prior.
        prior_weights: file; a bare name is looked for among the shipped weights.
        low: "x4", "x8" to the shape of the low-resolution encoder; where its k is None, k is read from its file.
        low_weights: "x4", "x8" to file.
        tau_scope: "prior" or "all".
        output: "draw", "mean" or "mode".
        project: whether samples are made consistent with y (paper, section 4.1).

    """

    facts = Facts(
        title="CVDVAE",
        scales=(4, 8),
        operators=("bicubic",),
        sigmas=(0.0,),
        citation="Prost et al., VISAPP 2024 (github:jprost76/srvdvae); VD-VAE: Child, ICLR 2021 (github:openai/vdvae)",
        weights_licence="MIT (shipped); MIT (VD-VAE, OpenAI)",
    )

    def __init__(
        self,
        prior: VdvaeConfig,
        prior_weights: str,
        low: Mapping[str, LowResolutionConfig],
        low_weights: Mapping[str, str | None],
        tau_scope: Literal["prior", "all"] = "prior",
        output: Output = "draw",
        project: bool = True,
        **common: Any,
    ) -> None:
        super().__init__(project=project, **common)
        self.config = prior
        self.prior_weights = prior_weights
        self.low = low
        self.low_weights = low_weights
        self.tau_scope = tau_scope
        self.output: Output = output

    @property
    def size(self) -> tuple[int, int]:
        """The prior's."""
        return self.config.size, self.config.size

    def load(self) -> None:
        """Build the network for one scale and load its two files."""
        scale = self.operator.scale
        low = check_scale(self.low, scale, "cvdvae", "low")
        file = check_scale(self.low_weights, scale, "cvdvae", "low_weights")
        if low.k is None:
            low = low.model_copy(update={"k": inferred_groups(read_tensors(find_weights(file, SHIPPED)))})
        self.model = Vdvae(self.config, low)
        self.loaded = {
            "prior": load_weights(self.model, self.prior_weights, part="prior"),
            "encoder": load_weights(self.model, file, part="low"),
        }
        self.place(self.model, compile_blocks)

    def draw(self, y: Tensor, n: int, tau: float | None, noise: Noise) -> Tensor:
        """Sample; see :func:`super_resolve`."""
        assert tau is not None
        with self.autocast():
            x = super_resolve(self.model, y, n, tau, noise, self.tau_scope, self.output, self.rows)
        return self.finish(x, y)

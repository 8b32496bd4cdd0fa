"""A super-resolution pipeline of diffusers as a method: latent diffusion (LDM) or Stable Diffusion's upscaler.

Source: github:huggingface/diffusers, pipelines/latent_diffusion and stable_diffusion (Rombach et al., CVPR 2022).
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from bench import hub
from bench.contract import Facts, Noise, register_method
from bench.errors import BenchError
from bench.network import NetworkMethod

LDM, UPSCALE = "LDMSuperResolutionPipeline", "StableDiffusionUpscalePipeline"
DECODERS = {LDM: "vqvae", UPSCALE: "vae"}
"""Known pipelines, and the part that makes images of latents."""
SETTINGS = ("*.json", "*/*.json", "*/*.txt")
SAFE = ("*/diffusion_pytorch_model.safetensors", "*/model.safetensors")
PICKLED = ("*/diffusion_pytorch_model.bin", "*/pytorch_model.bin")


@register_method("diffusers_pipeline")
class DiffusersPipeline(NetworkMethod):
    """A pipeline with its own factor, from a folder or the Hugging Face hub.

    Args:
        weights: "hf:OWNER/NAME@COMMIT", "hf:OWNER/NAME" or a folder that diffusers has saved.
        steps: of its scheduler.
        eta: share of fresh noise, for schedulers that have one (DDIM).
        prompt: what the image shows, for a pipeline with a text encoder.
        guidance: scale of the guidance by the prompt; 1 for none, None for diffusers' own, which guides.
        noise_level: step of the noise that is put on the observation, for Stable Diffusion's upscaler.

    """

    facts = Facts(
        title="diffusers pipeline",
        operators=("bicubic",),
        sigmas=(0.0,),
        uses_tau=False,
        evaluations=100,
        citation="Rombach et al., CVPR 2022 (github:huggingface/diffusers)",
        weights_licence="Apache-2.0 (LDM), OpenRAIL++ (Stable Diffusion)",
    )

    def __init__(
        self,
        weights: str,
        steps: Annotated[int, Field(ge=1, le=1000)] = 100,
        eta: Annotated[float, Field(ge=0, le=1)] = 0.0,
        prompt: str | None = None,
        guidance: Annotated[float, Field(ge=1)] | None = None,
        noise_level: Annotated[int, Field(ge=0)] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.weights = weights
        self.steps = steps
        self.eta = eta
        self.prompt = prompt
        self.guidance = guidance
        self.noise_level = noise_level

    @property
    def evaluations(self) -> int:
        """One per step, two with guidance, which Stable Diffusion's upscaler has unless it is told otherwise.

        Of a repository that is not loaded yet only the settings count: nothing is fetched for this.
        """
        known = "kind" in vars(self) or not hub.is_name(self.weights)
        guided = (known and self.kind == UPSCALE) if self.guidance is None else self.guidance > 1
        return self.steps * (2 if guided else 1)

    @cached_property
    def folder(self) -> Path:
        """Where the pipeline is, fetched if need be: pickled weights only of what has no others."""
        if not hub.is_name(self.weights):
            return Path(self.weights)
        folder = hub.fetch(self.weights, [*SETTINGS, *SAFE])
        return hub.fetch(self.weights, [*SETTINGS, *SAFE, *PICKLED]) if _unsafe(folder) else folder

    @cached_property
    def kind(self) -> str:
        """Name of the pipeline's class."""
        try:
            found = json.loads((self.folder / "model_index.json").read_text()).get("_class_name")
        except (OSError, ValueError, AttributeError) as error:
            raise BenchError(
                f"{self.weights} has no pipeline ({error}): give a folder that diffusers has saved."
            ) from error
        if found not in DECODERS:
            raise BenchError(f"{self.weights} is a {found}: give a {' or a '.join(DECODERS)}.")
        return str(found)

    def load(self) -> None:
        """Read the pipeline; check that it has the operator's factor and can take its observations."""
        options = {"prompt": self.prompt, "guidance": self.guidance, "noise_level": self.noise_level}
        if self.kind == LDM and (given := [k for k, v in options.items() if v is not None]):
            raise BenchError(f"{self.weights} sees the observation alone: leave {given[0]} out, or give null.")
        self.pipeline = self.read()
        parts: dict[str, Any] = {k: v for k, v in self.pipeline.components.items() if isinstance(v, nn.Module)}
        for name, part in parts.items():
            if name == "unet":
                self.place(part)
            else:
                part.eval().requires_grad_(False).to(self.device)
        decoder = parts[DECODERS[self.kind]]
        decoder.decoder.register_forward_hook(lambda module, inputs, out: out.float())  # bf16 is unknown to numpy
        factor = 2 ** (len(decoder.config.block_out_channels) - 1)
        multiple = 2 ** (len(parts["unet"].config.block_out_channels) - 1) if self.kind == LDM else factor
        if self.operator.scale != factor:
            raise BenchError(f"{self.weights} enlarges {factor} times, not {self.operator.scale}: use scale={factor}.")
        if any(side % multiple for side in self.operator.low_size):
            have = "x".join(map(str, self.operator.low_size))
            raise BenchError(
                f"{self.weights} takes observations whose sides are multiples of {multiple}, not {have}: use images "
                f"whose sides are multiples of {multiple * factor}."
            )
        used = [p for pattern in (*SETTINGS, *SAFE) for p in self.folder.glob(pattern)] + _unsafe(self.folder)
        self.loaded = {str(p.relative_to(self.folder)): p for p in sorted(used)}

    def read(self) -> Any:
        """The pipeline on the CPU, in float32; pickles are read as tensors alone."""
        import diffusers

        try:
            pipeline = getattr(diffusers, self.kind).from_pretrained(
                self.folder, local_files_only=True, low_cpu_mem_usage=False
            )
        except ImportError as error:
            raise BenchError(
                f"{self.weights} needs the package transformers: pip install 'diverse-sr-bench[pipelines]'."
            ) from error
        except Exception as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise BenchError(f"{self.weights} cannot be read by diffusers ({reason}): fetch it again.") from error
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def draw(self, y: Tensor, n: int, tau: float | None, noise: Noise) -> Tensor:
        """Sample, some rows at a time; there is no temperature."""
        rows = y.repeat_interleave(n, 0)
        with self.autocast():
            x = [self.enlarge(rows[part], noise.streams[part]) for part in self.pieces(len(rows))]
        return self.finish(torch.cat(x), y)

    def enlarge(self, y: Tensor, streams: Sequence[torch.Generator]) -> Tensor:
        """Images [R, 3, H, W] in [0, 1] of observations [R, 3, h, w], with a generator for each."""
        call: dict[str, Any] = {"image": 2 * y - 1}
        if self.kind == UPSCALE:
            call = {"image": y, "prompt": [self.prompt or ""] * len(y)}
            given = {"guidance_scale": self.guidance, "noise_level": self.noise_level}
            call |= {k: v for k, v in given.items() if v is not None}
        with _keyed(self.pipeline.scheduler, list(streams)):
            images = self.pipeline(
                **call, num_inference_steps=self.steps, eta=self.eta, generator=list(streams), output_type="np"
            ).images
        return torch.from_numpy(images).permute(0, 3, 1, 2).to(self.device)


def _unsafe(folder: Path) -> list[Path]:
    """Pickled weights of parts that have no others; their configurations, where there are no weights at all yet."""
    found = []
    for part in {p.parent for p in folder.glob("*/config.json")}:
        if not any(p.parent == part for pattern in SAFE for p in folder.glob(pattern)):
            found += [p for pattern in PICKLED for p in folder.glob(pattern) if p.parent == part] or [
                part / "config.json"
            ]
    return found


@contextmanager
def _keyed(scheduler: Any, streams: list[torch.Generator]) -> Iterator[None]:
    """Let a scheduler draw from the rows' own streams: not every pipeline passes its generators on."""
    step = scheduler.step
    if "generator" in inspect.signature(step).parameters:
        scheduler.step = partial(step, generator=streams)
    try:
        yield
    finally:
        vars(scheduler).pop("step", None)

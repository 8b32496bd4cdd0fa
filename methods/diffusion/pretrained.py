"""Priors in diffusers' format: a folder, or a repository of the Hugging Face hub, with a ``UNet2DModel``.

Known layouts: ``unet/`` and ``scheduler/`` (a pipeline that was saved), the files of both in one folder (the first
published DDPMs), or a ``UNet2DModel`` alone.
"""

from __future__ import annotations

import json
import re
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, UNet2DModel
from torch import Tensor

from bench import hub, weights
from bench.errors import BenchError
from methods.diffusion.prior import Levels, Prediction, Variance
from methods.diffusion.unet import DiffusersNetwork

CONFIG, SCHEDULE, COMPONENTS = "config.json", "scheduler_config.json", "model_index.json"
SAFE, PICKLED = "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"
PREDICTIONS: dict[str, Prediction] = {"epsilon": "noise", "v_prediction": "velocity", "sample": "clean"}
VARIANCES: dict[str, Variance] = {
    "fixed_small": "small", "fixed_small_log": "small", "fixed_large": "large", "fixed_large_log": "large"
}  # fmt: skip
BETAS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas")
ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Names of an attention block's projections in files of 2022, and today's."""


def is_pretrained(name: str) -> bool:
    """Whether weights are in diffusers' format: a name of the hub or a folder."""
    return hub.is_name(name) or (name != "" and Path(name).is_dir())


class Pretrained:
    """What is read of a prior before its weights are.

    Args:
        name: "hf:OWNER/NAME@COMMIT", "hf:OWNER/NAME" or a folder.

    Raises:
        BenchError: it cannot be fetched or is no unconditional prior of colour images on a discrete schedule.

    """

    def __init__(self, name: str) -> None:
        self.name = name
        folder = _fetched(name) if hub.is_name(name) else Path(name)
        self.unet = folder / "unet" if (folder / "unet" / CONFIG).is_file() else folder
        beside = (folder / "scheduler", folder, folder.parent / "scheduler" if folder.name == "unet" else folder)
        self.scheduler = next((p / SCHEDULE for p in beside if (p / SCHEDULE).is_file()), None)
        self._check_components(folder / COMPONENTS)
        self._check_network()
        self._check_schedule()

    @cached_property
    def config(self) -> dict[str, Any]:
        """The network's, as it was saved."""
        if not (self.unet / CONFIG).is_file():
            raise self._refusal(f"it has no {CONFIG} of a UNet2DModel, here or in unet/")
        return _mapping(self.unet / CONFIG)

    @cached_property
    def schedule(self) -> dict[str, Any]:
        """The scheduler's settings; none for a network alone, which is taken for one of DDPM's schedule."""
        return _mapping(self.scheduler) if self.scheduler else {"beta_schedule": "linear"}

    @property
    def size(self) -> int:
        """Side of the images."""
        return int(self.config["sample_size"])

    @property
    def learned(self) -> bool:
        """Whether the network has learned the variance."""
        return self.config.get("out_channels") == 6

    @property
    def prediction(self) -> Prediction:
        """What the network's output stands for."""
        return PREDICTIONS[self.schedule.get("prediction_type", "epsilon")]

    @property
    def variance(self) -> Variance:
        """Of the steps, where it is not learned."""
        return VARIANCES.get(str(self.schedule.get("variance_type")), "small")

    @cached_property
    def alpha_bar(self) -> Tensor:
        """The schedule, float64 [T]."""
        try:
            betas = DDPMScheduler(**{k: v for k, v in self.schedule.items() if k in BETAS}).betas
        except (NotImplementedError, TypeError, ValueError) as error:
            raise self._refusal(f"its schedule is not known ({error})") from error
        return torch.cumprod(1 - betas.double(), 0)

    @cached_property
    def levels(self) -> Levels:
        """The noise levels."""
        return Levels(self.alpha_bar)

    def load(self) -> tuple[DiffusersNetwork, dict[str, Path]]:
        """The network with its weights, and the files, by role, that it depends on.

        Raises:
            BenchError: no weights, or weights that do not fit the configuration.

        """
        path = next((self.unet / f for f in (SAFE, PICKLED) if (self.unet / f).is_file()), None)
        if path is None:
            raise self._refusal(f"it has no {SAFE} or {PICKLED}")
        try:
            network = DiffusersNetwork(UNet2DModel.from_config(self.config))
        except (TypeError, ValueError, KeyError) as error:
            raise self._refusal(f"diffusers cannot build its network ({error})") from error
        weights.load_weights(network.unet, path, shipped=self.unet, rename=todays_names)
        files = {"prior": path, "config": self.unet / CONFIG}
        return network, files | ({"schedule": self.scheduler} if self.scheduler else {})

    def _refusal(self, reason: str) -> BenchError:
        return BenchError(
            f"{self.name} cannot be used as a prior: {reason}; give a folder or a repository that diffusers has saved "
            "with an unconditional UNet2DModel."
        )

    def _check_components(self, path: Path) -> None:
        if not path.is_file():
            return
        parts = [k for k, v in _mapping(path).items() if not k.startswith("_") and v != [None, None]]
        if others := sorted(set(parts) - {"unet", "scheduler"}):
            raise self._refusal(f"it has a {others[0]}, so that its network does not see pixels alone")

    def _check_network(self) -> None:
        c = self.config
        if c.get("_class_name", "UNet2DModel") != "UNet2DModel":
            raise self._refusal(f"its network is a {c['_class_name']}")
        channels, output = c.get("in_channels", 3), c.get("out_channels", 3)
        if channels != 3 or output not in (3, 6):
            raise self._refusal(f"its network has {channels} channels and {output} of output")
        if c.get("num_class_embeds") or c.get("class_embed_type"):
            raise self._refusal("its network wants a class")
        if c.get("time_embedding_type", "positional") == "fourier":
            raise self._refusal("its network wants noise levels and not steps")
        if not isinstance(c.get("sample_size"), int):
            raise self._refusal(f"its images have the size {c.get('sample_size')}, not one side")

    def _check_schedule(self) -> None:
        s = self.schedule
        if "beta_schedule" not in s and s.get("trained_betas") is None:
            raise self._refusal(f"its scheduler {s.get('_class_name')} has no betas")
        if s.get("prediction_type", "epsilon") not in PREDICTIONS:
            raise self._refusal(f"its prediction_type {s['prediction_type']} is not known")
        if s.get("rescale_betas_zero_snr"):
            raise self._refusal("its last step has no signal left (rescale_betas_zero_snr)")
        # only DDPM's scheduler says it; the others leave a learned one unused
        variance = s.get("variance_type", "learned_range" if self.learned else "fixed_small")
        if variance not in (["learned_range"] if self.learned else VARIANCES):
            channels = self.config.get("out_channels", 3)
            raise self._refusal(
                f"its variance_type {variance} does not fit a network with {channels} channels of output"
            )


def todays_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Translate the names of attention blocks in files of 2022."""
    old = re.compile(rf"(attentions\.\d+)\.({'|'.join(ATTENTION)})\.")
    return {old.sub(lambda m: f"{m[1]}.{ATTENTION[m[2]]}.", name): value for name, value in state.items()}


def _fetched(name: str) -> Path:
    """The folder of a repository with its settings and its weights, of the form that runs no code where it has both."""
    settings = [COMPONENTS, CONFIG, SCHEDULE, f"unet/{CONFIG}", f"scheduler/{SCHEDULE}"]
    folder = hub.fetch(name, [*settings, SAFE, f"unet/{SAFE}"])
    if not any((folder / part / SAFE).is_file() for part in ("", "unet")):
        folder = hub.fetch(name, [*settings, PICKLED, f"unet/{PICKLED}"])
    return folder


def _mapping(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BenchError(f"{path} cannot be read ({error}): fetch it again.") from error
    if not isinstance(content, dict):
        raise BenchError(f"{path} holds no settings: fetch it again.")
    return content

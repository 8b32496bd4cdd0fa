"""A training that takes milliseconds: of the mean colour of images. As a script it is what torchrun starts."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.training.config import TrainConfig
from bench.training.trainable import BatchNoise, Trainable
from bench.training.trainer import Trainer


class Colour(Trainable):
    """Fit the mean of noisy mean colours; `fault` may change a loss."""

    def __init__(self, scaled: bool = False, fault: Callable[[Tensor], Tensor] = lambda loss: loss) -> None:
        super().__init__()
        self.colour = nn.Parameter(torch.zeros(3))
        self.frozen = nn.Parameter(torch.ones(2))
        self.register_buffer("buffer", torch.ones(2))
        self.fault = fault

    def trained(self) -> dict[str, nn.Parameter]:
        return {"colour": self.colour}

    def forward(self, x: Tensor, y: Tensor | None, noise: BatchNoise) -> dict[str, Tensor]:
        seen = (x if y is None else y).mean((2, 3)) + 0.1 * noise.normal(3)
        return {"loss": self.fault((seen - self.colour).square().mean())}

    def preview(self, x: Tensor, y: Tensor | None, noise: BatchNoise) -> Tensor:
        return (self.colour + 0.1 * noise.normal(3))[:, :, None, None].expand_as(x).clamp(0, 1)


def make_config(out: Path, **changes: Any) -> TrainConfig:
    settings = {
        "dataset": {"name": "synthfaces", "size": 32}, "scale": None, "pool": 12, "val": 3, "flip": True, "batch": 4,
        "steps": 6, "budget": None, "lr": 0.01, "betas": (0.9, 0.99), "weight_decay": 0.0, "warmup": 0,
        "schedule": "constant", "patience": 0, "min_lr": 0.0, "clip": 100.0, "skip": None, "ema": 0.9, "crop": None,
        "milestones": (), "gamma": 0.5, "clip_value": None,
        "precision": "32", "seed": 0, "device": "cpu", "log_every": 2, "save_every": 1e9, "val_every": 1000,
    }  # fmt: skip
    assert changes.keys() <= settings.keys()
    settings |= changes
    record = {k: v for k, v in settings.items() if k != "device"}
    assert set(TrainConfig.model_fields) == settings.keys() | {"method", "out", "record"}
    return TrainConfig(**settings, method={"name": "colour"}, out=out, record=record)


def run(mode: str, out: Path) -> None:
    module, changes = Colour(), {}
    if mode == "raise" and os.environ["RANK"] == "1":
        calls: list[Tensor] = []

        def fail(loss: Tensor) -> Tensor:
            calls.append(loss)
            if len(calls) == 3:
                (out / "raised").write_text(str(time.time()))
                raise ValueError("this process has had enough")
            return loss

        module.fault = fail
        changes = {"steps": 1000000}
    elif mode == "raise":
        changes = {"steps": 1000000}
    else:
        changes = {"schedule": "plateau", "val_every": 2, "scale": 4, "val": int(mode)}
    Trainer(module, make_config(out, **changes)).fit()
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]))

"""The training loop, on Lightning Fabric: mixed precision, data parallel, EMA, budgets, exact resume."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers import TensorBoardLogger
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torchvision.utils import make_grid
from tqdm import tqdm

from bench.errors import BenchError
from bench.files import disk_errors, write_atomic, write_json
from bench.machine import environment, is_out_of_memory, keep_freed_memory
from bench.operators import Operator, to_uint8
from bench.operators.bicubic import Bicubic
from bench.training.config import TrainConfig
from bench.training.data import Order, make_splits, to_tensor
from bench.training.trainable import BatchNoise, Trainable

CHECKPOINT = "checkpoint.pt"
WEIGHTS = "weights.safetensors"
STEP_SEEDS = 1_000_003
"""Seeds of different runs do not share the seeds of their steps."""


@dataclass
class State:
    """What a checkpoint holds besides tensors."""

    step: int = 0
    seconds: float = 0.0
    skipped: int = 0
    best: float = math.inf
    bad: int = 0
    factor: float = 1.0


class Trainer:
    """Fit one trainable. `fit` goes on from the checkpoint in ``config.out`` if there is one."""

    def __init__(self, module: Trainable, config: TrainConfig) -> None:
        self.config = config
        kind = torch.device(config.device).type
        precision = {"32": "32-true", "bf16": "bf16-mixed"}[config.precision]
        try:
            here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # set by torchrun
            self.logger = TensorBoardLogger(config.out, name="", version="tensorboard")
            self.fabric = Fabric(
                accelerator=kind,
                devices=here,
                num_nodes=int(os.environ.get("WORLD_SIZE", "1")) // here,
                precision=precision,  # type: ignore[arg-type]
                loggers=self.logger,
            )
            self.fabric.launch()
        except MisconfigurationException as error:
            raise BenchError(f"Training cannot start on {config.device}: {error}") from error
        world, rank = self.fabric.world_size, self.fabric.global_rank
        if config.batch % world:
            raise BenchError(f"batch={config.batch} cannot be split over {world} processes: use a multiple of {world}.")
        share = config.batch // world
        self.rows = slice(rank * share, (rank + 1) * share)
        self.module = module
        module.to(memory_format=torch.channels_last)
        trained = module.trained()
        module.requires_grad_(False)
        for parameter in trained.values():
            parameter.requires_grad_(True)
        optimizer = torch.optim.AdamW(
            trained.values(), lr=config.lr, betas=config.betas, weight_decay=config.weight_decay
        )
        self.network, self.optimizer = self.fabric.setup(module, optimizer)
        self.trained = {name: p for name, p in module.trained().items()}
        self.ema = {name: p.detach().clone() for name, p in self.trained.items()}
        self.state = State()
        self.between_steps = True

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return self.fabric.device

    def fit(self) -> State:
        """Train until the steps or the budget are used up; write weights and a summary.

        Raises:
            BenchError: out of memory, a full disk, a damaged checkpoint, or a loss that is never finite.

        """
        keep_freed_memory()
        c = self.config
        self._resume()
        train, val = (pool.images for pool in make_splits(c.dataset, c.pool, c.val))
        order = Order(len(train), c.batch, c.seed, c.flip)
        operator = Bicubic(train.shape[1], c.scale, device=self.device) if c.scale else None
        if self.state.step == 0:
            self._initialise(train, order, operator)
        saved = time.monotonic()
        last = saved
        sums: dict[str, float] = {}
        counted = 0
        bar = tqdm(
            total=c.steps, initial=self.state.step, unit="step", desc="train", disable=self.fabric.global_rank > 0,
            mininterval=0.5 if sys.stderr.isatty() else 60.0,
        )  # fmt: skip
        try:
            while self.state.step < c.steps and not self._spent():
                numbers, flips = order(self.state.step)
                x = to_tensor(train[numbers[self.rows]], flips[self.rows], self.device)
                losses = self._step(x, operator)
                self.state.step += 1
                self.between_steps = True
                now = time.monotonic()
                self.state.seconds += (now - last) * self.fabric.world_size
                last = now
                for name, value in losses.items():
                    sums[name] = sums.get(name, 0.0) + value
                counted += 1
                bar.update()
                if self.state.step % c.log_every == 0:
                    means = {name: s / counted for name, s in sums.items()}
                    self.fabric.log_dict({f"train/{k}": v for k, v in means.items()}, step=self.state.step)
                    bar.set_postfix({k: f"{v:.4g}" for k, v in list(means.items())[:3]})
                    sums, counted = {}, 0
                if self.state.step % c.val_every == 0:
                    self._validate(val, operator)
                    last = time.monotonic()
                if now - saved > c.save_every:
                    self._save()
                    saved = now
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                raise BenchError(
                    f"Out of memory on {self.device} at batch={c.batch}: use a smaller batch or precision=bf16."
                ) from error
            raise
        finally:
            bar.close()
            if self.between_steps:  # else the last checkpoint is the newest that is whole
                self._save()
        figures = self._validate(val, operator)
        self._finish(figures)
        return self.state

    def _initialise(self, train: Any, order: Order, operator: Operator | None) -> None:
        """Let the method set parameters by the first batch, whole, so that all processes set the same."""
        c = self.config
        numbers, flips = order(0)
        x = to_tensor(train[numbers], flips, self.device)
        noise = BatchNoise(c.seed * STEP_SEEDS, c.batch, slice(0, c.batch), self.device)
        self.module.initialise(x, operator.observe(x) if operator else None, noise)
        self.ema = {name: p.detach().clone() for name, p in self.trained.items()}

    def _step(self, x: Tensor, operator: Operator | None) -> dict[str, float]:
        c = self.config
        noise = BatchNoise(c.seed * STEP_SEEDS + self.state.step, c.batch, self.rows, self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = self._lr()
        self.optimizer.zero_grad()
        losses = self.network(x, operator.observe(x) if operator else None, noise)
        self.fabric.backward(losses["loss"])
        norm = nn.utils.clip_grad_norm_(self.trained.values(), c.clip)
        # every process sees the same averaged gradient, so that all skip together
        large = not torch.isfinite(norm) or (c.skip is not None and norm >= c.skip)
        self.between_steps = False  # until the step is counted: an interruption here must not be saved
        if not large:
            self.optimizer.step()
            # a short memory at first, so that the average forgets the initial weights
            decay = min(c.ema, (1 + self.state.step) / (10 + self.state.step))
            get_ema_multi_avg_fn(decay)(list(self.ema.values()), [p.detach() for p in self.trained.values()], 0)
        else:
            self.state.skipped += 1
        figures = {name: self._mean(v.detach()) for name, v in losses.items()}
        return {k: v for k, v in figures.items() if math.isfinite(v)} | {"norm": min(float(norm), 1e9)}

    def _mean(self, value: Tensor) -> float:
        """Mean of a scalar over all processes."""
        reduced = self.fabric.all_reduce(value.float())
        assert isinstance(reduced, Tensor)
        return float(reduced)

    def _lr(self) -> float:
        c, step = self.config, self.state.step
        lr = c.lr * min(1.0, (step + 1) / max(1, c.warmup))
        if c.schedule == "cosine":
            lr *= 0.5 * (1 + math.cos(math.pi * min(1.0, step / c.steps)))
        return max(lr * self.state.factor, c.min_lr)

    def _spent(self) -> bool:
        """Whether the budget is used up, by the clock of the first process."""
        if self.config.budget is None:
            return False
        spent = torch.tensor(float(self.state.seconds >= self.config.budget), device=self.device)
        return bool(self.fabric.broadcast(spent) > 0)

    @torch.no_grad()
    def _validate(self, val: Any, operator: Operator | None) -> dict[str, float]:
        """Losses and LR-RMSE (in 8-bit levels) of the averaged weights, and a grid of samples."""
        c = self.config
        with self._averaged():
            figures = self._losses(val, operator)
            self._grid(val, operator)
        self.fabric.log_dict({f"val/{k}": v for k, v in figures.items()}, step=self.state.step)
        if c.schedule == "plateau":
            self._plateau(figures["loss"])
        if self.fabric.global_rank == 0:
            line = ", ".join(f"{k} {v:.4g}" for k, v in figures.items())
            hours = self.state.seconds / 3600
            tqdm.write(f"step {self.state.step}, {hours:.2f} device-hours: {line}", file=sys.stderr)
        return figures

    def _losses(self, val: Any, operator: Operator | None) -> dict[str, float]:
        """Means over the validation images."""
        c = self.config
        totals: dict[str, float] = {}
        count = 0
        share = self.rows.stop - self.rows.start
        for first in range(0, len(val), c.batch):
            batch = val[first : first + c.batch]
            rows = slice(min(self.rows.start, len(batch)), min(self.rows.stop, len(batch)))
            if len(batch) < c.batch and self.fabric.world_size > 1:
                break  # every process needs the same share
            x = to_tensor(batch[rows], None, self.device)
            noise = BatchNoise(first, len(batch), rows, self.device)
            y = operator.observe(x) if operator else None
            losses = dict(self.network(x, y, noise))
            if first < share * 4 and operator and y is not None:
                drawn = self.module.preview(x, y, noise)
                losses["lr_rmse"] = 255 * (operator.forward(drawn) - y).square().mean().sqrt()
            for name, value in losses.items():
                totals[name] = totals.get(name, 0.0) + self._mean(value) * len(batch)
            totals["lr_rmse_n"] = totals.get("lr_rmse_n", 0) + (len(batch) if "lr_rmse" in losses else 0)
            count += len(batch)
        rmse_count = totals.pop("lr_rmse_n", 0)
        return {k: v / (rmse_count if k == "lr_rmse" else count) for k, v in totals.items()}

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Evaluate with the averaged weights; the current ones are back afterwards, whatever happens."""
        self._swap()
        self.network.eval()
        try:
            yield
        finally:
            self.network.train()
            self._swap()

    def _grid(self, val: Any, operator: Operator | None) -> None:
        if self.fabric.global_rank > 0:
            return
        x = to_tensor(val[:8], None, self.device)
        y = operator.observe(x) if operator else None
        whole = slice(0, len(x))
        rows = [x] if y is None or operator is None else [nn.functional.interpolate(y, x.shape[-1]), x]
        rows += [self.module.preview(x, y, BatchNoise(k, len(x), whole, self.device)) for k in range(3)]
        shown = torch.cat(rows).float().nan_to_num(0.0).clamp(0, 1).cpu()
        grid = make_grid(shown, nrow=len(x), padding=1)
        self.logger.experiment.add_image("samples", grid, self.state.step)
        from bench.files import write_png

        write_png(self.config.out / "samples.png", to_uint8(grid).permute(1, 2, 0).numpy())

    def _plateau(self, loss: float) -> None:
        """Reduce the learning rate when validation stops improving by 1% (the authors' ReduceLROnPlateau)."""
        if loss < self.state.best * (1 - 0.01):
            self.state.best, self.state.bad = loss, 0
            return
        self.state.bad += 1
        if self.state.bad > self.config.patience:
            self.state.factor, self.state.bad = self.state.factor * 0.1, 0

    def _swap(self) -> None:
        """Exchange the weights with their averages."""
        with torch.no_grad():
            for name, p in self.trained.items():
                kept = p.detach().clone()
                p.copy_(self.ema[name])
                self.ema[name].copy_(kept)

    def _save(self) -> None:
        """Write the checkpoint atomically; only the first process does."""
        if self.fabric.global_rank == 0:
            content = {
                "state": vars(self.state),
                "weights": {n: p.detach() for n, p in self.trained.items()},
                "ema": self.ema,
                "optimizer": self.optimizer.state_dict(),
            }
            path = self.config.out / CHECKPOINT
            temporary = path.with_suffix(".tmp")
            with disk_errors(path):
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    torch.save(content, temporary)
                    temporary.replace(path)
                finally:
                    temporary.unlink(missing_ok=True)
        self.fabric.barrier()

    def _resume(self) -> None:
        path = self.config.out / CHECKPOINT
        if not path.exists():
            return
        try:
            content = torch.load(path, map_location=self.device, weights_only=True)
            with torch.no_grad():
                for name, p in self.trained.items():
                    p.copy_(content["weights"][name])
                    self.ema[name].copy_(content["ema"][name])
            self.optimizer.load_state_dict(content["optimizer"])
            self.state = State(**content["state"])
        except Exception as error:  # a truncated or foreign file fails in many ways
            raise BenchError(f"{path} cannot be resumed ({error}): delete it, or use another out=DIR.") from error

    def _finish(self, figures: dict[str, float]) -> None:
        from safetensors.torch import save

        if self.fabric.global_rank > 0:
            return
        tensors = {name: t.detach().cpu().contiguous() for name, t in self.ema.items()}
        write_atomic(self.config.out / WEIGHTS, save(tensors))
        summary = {
            "steps": self.state.step,
            "images": self.state.step * self.config.batch,
            "device_hours": self.state.seconds / 3600,
            "skipped_steps": self.state.skipped,
            "parameters": sum(t.numel() for t in tensors.values()),
            "processes": self.fabric.world_size,
            "validation": figures,
            "environment": environment(self.config.device),
            "config": self.config.record,
        }
        if self.device.type == "cuda":
            summary["peak_memory_bytes"] = torch.cuda.max_memory_allocated(self.device)
        write_json(self.config.out / "summary.json", summary)

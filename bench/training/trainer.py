"""The training loop, on Lightning Fabric: mixed precision, data parallel, EMA, budgets, exact resume."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torchvision.utils import make_grid
from tqdm import tqdm

from bench.errors import BenchError
from bench.files import digest, write_atomic, write_json
from bench.machine import environment, is_out_of_memory, keep_freed_memory
from bench.operators import Operator, to_uint8
from bench.operators.bicubic import Bicubic
from bench.training.checkpoint import CHECKPOINT, Identity, hash_tensors, read_checkpoint, write_checkpoint
from bench.training.config import TrainConfig
from bench.training.data import Images, Order, cropped, make_splits, to_tensor
from bench.training.schedule import Schedule, ema_decay
from bench.training.trainable import BatchNoise, Trainable

try:
    import tensorboard  # type: ignore[import-untyped]  # noqa: F401 -- Fabric's logger imports it late
    from lightning_fabric import Fabric
    from lightning_fabric.loggers import TensorBoardLogger
    from lightning_fabric.utilities.exceptions import MisconfigurationException
except ImportError as error:
    raise BenchError(f"Training needs the package {error.name}: pip install 'diverse-sr-bench[train]'.") from error

WEIGHTS = "weights.safetensors"
STEP_SEEDS = 1_000_003
"""Seeds of different runs do not share the seeds of their steps."""
MOST_SKIPPED = 100
"""After so many skipped steps in a row nothing will be learnt any more."""
PREVIEWED = 4
"""Batches of the validation images whose samples are compared with y."""


class DivergedError(BenchError):
    """The training has come to figures that are not finite; what was saved before is kept."""


@dataclass
class State:
    """What a checkpoint holds besides tensors."""

    step: int = 0
    seconds: float = 0.0
    skipped: int = 0
    best: float = math.inf
    bad: int = 0
    factor: float = 1.0
    judged: int | None = None
    """The step of the last validation that the schedule took note of; None in checkpoints from before it was kept."""


def fabric_arguments(device: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return what Fabric is told of devices.

    Args:
        device: cpu or cuda:N.
        environ: variables that torchrun sets; it starts one process for each device of a machine.

    Raises:
        BenchError: several processes for one device.

    """
    kind, index = torch.device(device).type, torch.device(device).index
    here = int(environ.get("LOCAL_WORLD_SIZE", "1"))
    if here > 1 and index:
        raise BenchError(
            f"device={device} is one device for {here} processes: use device=cuda, "
            "and choose the devices by CUDA_VISIBLE_DEVICES."
        )
    devices = [index or 0] if kind == "cuda" and here == 1 else here
    return {"accelerator": kind, "devices": devices, "num_nodes": int(environ.get("WORLD_SIZE", "1")) // here}


class Trainer:
    """Fit one trainable. `fit` goes on from the checkpoint in ``config.out`` if there is one."""

    def __init__(self, module: Trainable, config: TrainConfig) -> None:
        self.config = config
        precision = {"32": "32-true", "bf16": "bf16-mixed"}[config.precision]
        try:
            self.logger = TensorBoardLogger(config.out, name="", version="tensorboard")
            self.fabric = Fabric(
                **fabric_arguments(config.device, os.environ),
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
        self.state = State(judged=0)
        self.whole = True
        """Whether weights, averages and state belong together; a checkpoint is written only then."""
        self.saved: int | None = None
        """The step of the newest checkpoint."""
        self.skipped_in_a_row = 0
        self.any_finite = False

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return self.fabric.device

    def fit(self) -> State:
        """Train until the steps or the budget are used up; write weights and a summary.

        Raises:
            BenchError: out of memory, a full disk, a checkpoint that is damaged or of another training, or figures that
                are not finite.

        """
        keep_freed_memory()
        c = self.config
        train, val = make_splits(c.dataset, c.pool, c.val)
        order = Order(len(train.images), c.batch, c.seed, c.flip)
        frozen = {name: p for name, p in self.module.named_parameters() if not p.requires_grad}
        self.identity = Identity(c.record, [train.sha256, val.sha256], hash_tensors(frozen))
        self._resume()
        size = train.images.shape[1]
        self._check_crop(size)
        operator = Bicubic(size, c.scale, device=self.device) if c.scale else None
        self.observed = Bicubic(c.crop, c.scale, device=self.device) if c.crop and c.scale else operator
        if self.state.step == 0:
            self._initialise(train.images, order)
        self.schedule = Schedule(self.optimizer.optimizer, c, self.state)
        try:
            self._train(train.images, val.images, order, operator)
        except DivergedError:
            raise
        except BaseException as error:
            # the other processes may be anywhere: nothing here may wait for them
            if self.whole and self._finite():
                self._save()
            if is_out_of_memory(error):
                raise BenchError(
                    f"Out of memory on {self.device} at batch={c.batch}: use a smaller batch or precision=bf16."
                ) from error
            raise
        self._save()
        figures = self._validate(val.images, operator)
        if not math.isfinite(figures["loss"]):
            raise self._diverged("its validation loss is not finite")
        self._finish(figures)
        return self.state

    def _train(self, train: Images, val: Images, order: Order, operator: Operator | None) -> None:
        """Do the steps, log, validate and save."""
        c, state = self.config, self.state
        if state.judged not in (None, state.step) and state.step % c.val_every == 0:  # interrupted in the validation
            self._judge(val, operator)
            self.schedule = Schedule(self.optimizer.optimizer, c, state)
        first = state.step
        saved = last = time.monotonic()
        sums: dict[str, float] = {}
        counted = 0
        with tqdm(
            total=c.steps, initial=first, unit="step", desc="train", disable=self.fabric.global_rank > 0,
            mininterval=0.5 if sys.stderr.isatty() else 60.0,
        ) as bar:  # fmt: skip
            while state.step < c.steps and not self._spent():
                losses = self._step(self._images(train, order, state.step, self.rows))
                now = time.monotonic()
                state.seconds += (now - last) * self.fabric.world_size
                last = now
                for name, value in losses.items():
                    sums[name] = sums.get(name, 0.0) + value
                counted += 1
                bar.update()
                if state.step % c.log_every == 0:
                    means = {name: s / counted for name, s in sums.items()}
                    self.fabric.log_dict({f"train/{k}": v for k, v in means.items()}, step=state.step)
                    bar.set_postfix({k: f"{v:.4g}" for k, v in list(means.items())[:3]})
                    sums, counted = {}, 0
                if state.step % c.val_every == 0:
                    self._judge(val, operator)
                    last = time.monotonic()
                self.schedule.step()
                if now - saved > c.save_every:
                    self._save()
                    saved = now
        if state.step > first and not self.any_finite:
            raise self._diverged("its loss was never finite")

    def _judge(self, val: Images, operator: Operator | None) -> None:
        """Validate, and let the schedule take note of it."""
        loss = self._validate(val, operator)["loss"]
        self.whole = False
        self.schedule.judge(loss, self.state)
        self.state.judged = self.state.step
        self.whole = True

    def _check_crop(self, size: int) -> None:
        c = self.config
        if c.crop is None:
            return
        if c.crop > size:
            raise BenchError(f"crop={c.crop} is more than the images' {size} pixels: use a smaller crop, or crop=null.")
        if c.scale and c.crop % c.scale:
            raise BenchError(f"crop={c.crop} is no multiple of scale={c.scale}: use one.")

    def _images(self, train: Images, order: Order, step: int, rows: slice) -> Tensor:
        """Rows of the images of a step, cropped and mirrored; y is made of what is left."""
        c = self.config
        numbers, flips = order(step)
        images = train[numbers[rows]]
        if c.crop is not None:
            images = cropped(images, order.corners(step, train.shape[1] - c.crop + 1)[rows], c.crop)
        return to_tensor(images, flips[rows], self.device)

    def _initialise(self, train: Images, order: Order) -> None:
        """Let the method set parameters by the first batch, whole, so that all processes set the same."""
        c = self.config
        whole = slice(0, c.batch)
        x = self._images(train, order, 0, whole)
        noise = BatchNoise(c.seed * STEP_SEEDS, c.batch, whole, self.device)
        self.module.initialise(x, self.observed.observe(x) if self.observed else None, noise)
        self.ema = {name: p.detach().clone() for name, p in self.trained.items()}

    def _step(self, x: Tensor) -> dict[str, float]:
        """Do one step, in turns where there are any, and count it; return the finite losses and the largest norm."""
        c, state = self.config, self.state
        noise = BatchNoise(c.seed * STEP_SEEDS + state.step, c.batch, self.rows, self.device)
        y = self.observed.observe(x) if self.observed else None
        # what draws from PyTorch's own generator, as dropout does, follows from the step, too; each process its own
        torch.manual_seed(int(digest([c.seed, state.step, self.fabric.global_rank])[:15], 16))
        figures = {"loss": 0.0}
        norms = []
        for turn in self.module.turns or (None,):
            self.module.turn = turn
            try:
                losses, norm = self._descend(x, y, noise)
            finally:
                self.module.turn = None
            figures |= losses | {"loss": figures["loss"] + losses["loss"]}
            norms.append(norm)
        large = [not self._usable(norm) for norm in norms]
        if not all(large):
            decay = ema_decay(state.step, c.ema)
            get_ema_multi_avg_fn(decay)(list(self.ema.values()), [p.detach() for p in self.trained.values()], 0)
        state.skipped += int(any(large))
        state.step += 1
        self.whole = True
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if any(large) else 0
        self.any_finite |= math.isfinite(figures["loss"])
        if self.skipped_in_a_row == MOST_SKIPPED:
            limit = "" if c.skip is None else f" or was at least skip={c.skip:g}"
            raise self._diverged(f"the norm of its gradient was not finite{limit} in {MOST_SKIPPED} steps in a row")
        return {k: v for k, v in figures.items() if math.isfinite(v)} | {"norm": min(max(norms), 1e9)}

    def _descend(self, x: Tensor, y: Tensor | None, noise: BatchNoise) -> tuple[dict[str, float], float]:
        """One step of the optimiser, unless the gradient is too large; return all losses and its norm."""
        self.optimizer.zero_grad()
        losses = self.network(x, y, noise)
        self.fabric.backward(losses["loss"])
        norm = float(self._clip())
        if self._usable(norm):  # every process sees the same averaged gradient, so that all skip together
            self.whole = False  # until the step is counted: an interruption here must not be saved
            self.optimizer.step()
        return {name: self._mean(v.detach()) for name, v in losses.items()}, norm

    def _usable(self, norm: float) -> bool:
        return math.isfinite(norm) and (self.config.skip is None or norm < self.config.skip)

    def _clip(self) -> Tensor:
        """Clip the elements of the gradient, then its norm; return what the norm was before."""
        c, parameters = self.config, list(self.trained.values())
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if c.clip_value is not None:
            nn.utils.clip_grad_value_(parameters, c.clip_value)
        if c.clip is not None:
            nn.utils.clip_grad_norm_(parameters, c.clip)
        return norm

    def _finite(self) -> bool:
        """Whether all weights and averages are."""
        with torch.no_grad():
            finite = [t.isfinite().all() for t in (*self.trained.values(), *self.ema.values())]
        return bool(torch.stack(finite).all())

    def _diverged(self, why: str) -> DivergedError:
        kept = "no checkpoint was written" if self.saved is None else f"the checkpoint of step {self.saved} is kept"
        return DivergedError(
            f"The training has diverged at step {self.state.step}: {why}; {kept}. "
            "Begin anew in another out=DIR with a smaller lr or a longer warmup."
        )

    def _mean(self, value: Tensor) -> float:
        """Mean of a scalar over all processes."""
        reduced = self.fabric.all_reduce(value.float())
        assert isinstance(reduced, Tensor)
        return float(reduced)

    def _spent(self) -> bool:
        """Whether the budget is used up, by the clock of the first process."""
        if self.config.budget is None:
            return False
        spent = torch.tensor(float(self.state.seconds >= self.config.budget), device=self.device)
        return bool(self.fabric.broadcast(spent) > 0)

    @torch.no_grad()
    def _validate(self, val: Images, operator: Operator | None) -> dict[str, float]:
        """Losses and LR-RMSE (in 8-bit levels) of the averaged weights, and a grid of samples."""
        if not self._finite():
            raise self._diverged("its weights are not finite")
        with self._averaged():
            figures = self._losses(val, operator)
            self._grid(val, operator)
        self.fabric.log_dict({f"val/{k}": v for k, v in figures.items()}, step=self.state.step)
        if self.fabric.global_rank == 0:
            line = ", ".join(f"{k} {v:.4g}" for k, v in figures.items())
            hours = self.state.seconds / 3600
            tqdm.write(f"step {self.state.step}, {hours:.2f} device-hours: {line}", file=sys.stderr)
        return figures

    def _losses(self, val: Images, operator: Operator | None) -> dict[str, float]:
        """Means over the validation images, the same for any number of processes."""
        batch = self.config.batch
        totals: dict[str, float] = {}
        counts: dict[str, int] = {}
        for first in range(0, len(val), batch):
            images = val[first : first + batch]
            mine = slice(min(self.rows.start, len(images)), min(self.rows.stop, len(images)))
            # a process without an image takes part with a weight of 0, since all must meet in the sum
            rows, weight = (mine, mine.stop - mine.start) if mine.start < mine.stop else (slice(0, 1), 0)
            figures = self._figures(images, first, rows, operator)
            summed = self.fabric.all_reduce(torch.stack(list(figures.values())) * weight, reduce_op="sum")
            assert isinstance(summed, Tensor)
            means = dict(zip(figures, (summed / len(images)).tolist(), strict=True))
            if "lr_rmse" in means:  # so far the mean square
                means["lr_rmse"] = 255 * math.sqrt(means["lr_rmse"])
            for name, value in means.items():
                totals[name] = totals.get(name, 0.0) + value * len(images)
                counts[name] = counts.get(name, 0) + len(images)
        return {name: total / counts[name] for name, total in totals.items()}

    def _figures(self, images: np.ndarray, first: int, rows: slice, operator: Operator | None) -> dict[str, Tensor]:
        """Means over some rows of a batch of validation images, float64; `lr_rmse` is still the mean square."""
        x = to_tensor(images[rows], None, self.device)
        noise = BatchNoise(first, len(images), rows, self.device)
        y = operator.observe(x) if operator else None
        with self.fabric.autocast():  # without DDP's wrapper, which may wait for the other processes
            figures = {name: value.detach().double() for name, value in self.module(x, y, noise).items()}
        if first < PREVIEWED * self.config.batch and operator and y is not None:
            drawn = self.module.preview(x, y, noise)
            figures["lr_rmse"] = (operator.forward(drawn) - y).square().mean().double()
        return figures

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
            self.whole = True

    def _grid(self, val: Images, operator: Operator | None) -> None:
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

    def _swap(self) -> None:
        """Exchange the weights with their averages."""
        self.whole = False
        with torch.no_grad():
            for name, p in self.trained.items():
                kept = p.detach().clone()
                p.copy_(self.ema[name])
                self.ema[name].copy_(kept)

    def _save(self) -> None:
        """Write the checkpoint; only the first process does, and none waits.

        Raises:
            DivergedError: a weight is not finite; the checkpoint before is kept.

        """
        if self.fabric.global_rank > 0:
            return
        if not self._finite():
            raise self._diverged("its weights are not finite")
        content = {
            "state": vars(self.state),
            "weights": {n: p.detach() for n, p in self.trained.items()},
            "ema": self.ema,
            "optimizer": self.optimizer.state_dict(),
            "identity": self.identity.as_json(),
        }
        write_checkpoint(self.config.out / CHECKPOINT, content)
        self.saved = self.state.step

    def _resume(self) -> None:
        path = self.config.out / CHECKPOINT
        if not path.exists():
            return
        content = read_checkpoint(path, self.device)
        self.identity.check(path, content)
        shapes = {name: p.shape for name, p in self.trained.items()}
        try:
            for part in ("weights", "ema"):
                if {name: t.shape for name, t in content[part].items()} != shapes:
                    raise BenchError(
                        f"{path} holds another network than method.network describes: "
                        "use another out=DIR, or the settings of then."
                    )
            with torch.no_grad():
                for name, p in self.trained.items():
                    p.copy_(content["weights"][name])
                    self.ema[name].copy_(content["ema"][name])
            self.optimizer.load_state_dict(content["optimizer"])
            self.state = State(**content["state"])
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise BenchError(f"{path} cannot be resumed ({error}): delete it, or use another out=DIR.") from error
        self.saved = self.state.step

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
            "environment": environment(str(self.device)),
            "config": self.config.record,
        }
        if self.device.type == "cuda":
            summary["peak_memory_bytes"] = torch.cuda.max_memory_allocated(self.device)
        write_json(self.config.out / "summary.json", summary)

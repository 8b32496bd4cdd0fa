"""Learning rates and averages, step by step, against formulas that are written out here."""

from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from bench.training.schedule import Schedule, ema_decay
from bench.training.trainer import State, Trainer

LOSSES = [3.0, 2.99, 2.98, 2.0, 1.99, 1.985, 1.9, 1.9, 1.9, 1.9, float("nan"), 1.9]
SETTINGS = [
    {"schedule": "constant", "warmup": 0},
    {"schedule": "constant", "warmup": 1},
    {"schedule": "constant", "warmup": 5, "min_lr": 5e-4},
    {"schedule": "cosine", "warmup": 4},
    {"schedule": "cosine", "warmup": 0, "min_lr": 2e-4},
    {"schedule": "plateau", "warmup": 3, "patience": 0},
    {"schedule": "plateau", "warmup": 0, "patience": 1, "min_lr": 5e-5},
    {"schedule": "multistep", "warmup": 0, "milestones": (3, 7, 8), "gamma": 0.5},
]


def expected(s: dict) -> list[float]:
    """Rates of 12 steps with a validation after each, as they were computed before there was a scheduler."""
    rates = []
    best, bad, factor = math.inf, 0, 1.0
    for step, loss in enumerate(LOSSES):
        lr = 1e-3 * min(1.0, (step + 1) / max(1, s["warmup"]))
        if s["schedule"] == "cosine":
            lr *= 0.5 * (1 + math.cos(math.pi * min(1.0, step / 10)))
        if s["schedule"] == "multistep" and step + 1 in s["milestones"]:  # official HCFlow: before that step, from 1
            factor *= s["gamma"]
        rates.append(max(lr * factor, s.get("min_lr", 0.0)))
        if s["schedule"] == "plateau":
            if loss < best * (1 - 0.01):
                best, bad = loss, 0
            else:
                bad += 1
                if bad > s["patience"]:
                    factor, bad = factor * 0.1, 0
    return rates


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("resumed", [False, True])
def test_rates_are_those_of_the_formula(stub: ModuleType, tmp_path: Path, settings: dict, resumed: bool) -> None:
    config = stub.make_config(tmp_path, lr=1e-3, steps=10, **settings)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    state = State()
    schedule = Schedule(optimizer, config, state)
    rates = []
    for loss in LOSSES:
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        state.step += 1
        schedule.judge(loss, state)
        schedule.step()
        if resumed:  # each step by a process of its own
            before = optimizer.state_dict()
            optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
            optimizer.load_state_dict(before)
            state = State(**vars(state))
            schedule = Schedule(optimizer, config, state)
    assert rates == pytest.approx(expected(settings), rel=1e-12)
    assert len(set(rates)) > 1 or settings["schedule"] == "constant"


def test_the_trainer_uses_the_rate_of_each_step(
    stub: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []
    real = torch.optim.AdamW.step

    def record(self: torch.optim.AdamW, *arguments: object, **options: object) -> object:
        used.append(self.param_groups[0]["lr"])
        return real(self, *arguments, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", record)
    losses = iter(LOSSES)
    monkeypatch.setattr(Trainer, "_validate", lambda *_: {"loss": next(losses)})
    settings = SETTINGS[5]
    Trainer(stub.Colour(), stub.make_config(tmp_path, lr=1e-3, steps=6, val_every=1, **settings)).fit()
    assert used == pytest.approx(expected(settings)[:6], rel=1e-12)


def test_averages_are_those_of_the_closed_form(
    stub: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights: list[Tensor] = []
    real = torch.optim.AdamW.step

    def record(self: torch.optim.AdamW, *arguments: object, **options: object) -> object:
        done = real(self, *arguments, **options)
        weights.append(self.param_groups[0]["params"][0].detach().clone())
        return done

    monkeypatch.setattr(torch.optim.AdamW, "step", record)
    trainer = Trainer(stub.Colour(), stub.make_config(tmp_path, steps=30, ema=0.6))
    trainer.fit()
    # sum_k (1 - d_k) w_k prod_{j > k} d_j, the initial weights being 0
    decays = [min(0.6, (1 + k) / (10 + k)) for k in range(30)]
    average = sum((1 - d) * w * math.prod(decays[k + 1 :]) for k, (d, w) in enumerate(zip(decays, weights)))  # noqa: B905
    torch.testing.assert_close(trainer.ema["colour"], average, rtol=1e-5, atol=1e-7)
    assert [ema_decay(k, 0.6) for k in (0, 1, 1000)] == [0.1, 2 / 11, 0.6]

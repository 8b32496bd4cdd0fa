"""One trainer for all methods: exact resume, data parallel, budgets, and what it writes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bench.cli import main
from bench.training.config import parse_budget
from bench.training.data import Order
from bench.training.trainable import BatchNoise
from bench.training.trainer import Trainer

TINY = [
    "method=vdvae", "dataset=synthfaces", "dataset.size=32", "device=cpu", "precision=32", "pool=16", "val=4",
    "batch=4", "method.network.prior.size=32", "method.network.prior.decoder=\"1x1,4m1,8m4,32m8\"",
    "method.network.prior.encoder=\"32d4,8d2,4d4,1x1\"", "method.network.prior.width=8",
    "method.network.prior.widths=null", "method.network.prior.patch=1", "method.network.prior.mixtures=2",
    "val_every=1000", "log_every=2",
    "schedule=constant",
]  # fmt: skip


def train(out: Path, *words: str) -> dict[str, torch.Tensor]:
    assert main(["train", *TINY, f"out={out}", *words]) == 0
    return load_file(out / "weights.safetensors")


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], tolerance: float = 0.0) -> bool:
    return a.keys() == b.keys() and all(torch.allclose(a[k], b[k], rtol=tolerance, atol=tolerance) for k in a)


def test_resume_is_exact(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", "steps=6")
    train(tmp_path / "parts", "steps=2")
    train(tmp_path / "parts", "steps=4")
    parts = train(tmp_path / "parts", "steps=6")
    assert equal(whole, parts)
    assert not equal(whole, train(tmp_path / "seed", "steps=6", "seed=1"))


@pytest.mark.parametrize(
    ("where", "sent", "code"),
    [("validation", signal.SIGINT, 130), ("update", signal.SIGINT, 130), ("update", signal.SIGTERM, 143)],
)
def test_an_interruption_at_any_point_resumes_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, sent: signal.Signals, code: int
) -> None:
    with monkeypatch.context() as patch:
        calls = []
        owner, name = (Trainer, "_grid") if where == "validation" else (torch.optim.AdamW, "step")
        real = getattr(owner, name)

        def interrupt(*arguments, **options):
            calls.append(real(*arguments, **options))
            if len(calls) == 2:
                signal.raise_signal(sent)

        patch.setattr(owner, name, interrupt)
        assert main(["train", *TINY, f"out={tmp_path / 'parts'}", "steps=6", "val_every=2"]) == code
    whole = train(tmp_path / "whole", "steps=6", "val_every=2")
    assert equal(whole, train(tmp_path / "parts", "steps=6", "val_every=2"))


def test_an_interrupted_validation_is_judged_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stub: ModuleType
) -> None:
    """The rate that follows from it is that of a training that was left alone."""
    settings = {"schedule": "plateau", "patience": 0, "val_every": 1, "lr": 1e-9, "steps": 4}
    whole = Trainer(stub.Colour(), stub.make_config(tmp_path / "whole", **settings)).fit()
    assert whole.factor == pytest.approx(1e-3)  # nothing is learnt: every validation but the first is without progress
    with monkeypatch.context() as patch:
        calls = []

        def interrupt(*_: object) -> None:
            calls.append(1)
            if len(calls) == 2:
                raise KeyboardInterrupt

        patch.setattr(Trainer, "_grid", interrupt)
        with pytest.raises(KeyboardInterrupt):
            Trainer(stub.Colour(), stub.make_config(tmp_path / "parts", **settings)).fit()
    parts = Trainer(stub.Colour(), stub.make_config(tmp_path / "parts", **settings)).fit()
    assert (parts.factor, parts.best, parts.bad, parts.judged) == (whole.factor, whole.best, whole.bad, whole.judged)


def test_dropout_resumes_exactly(tmp_path: Path, stub: ModuleType) -> None:
    class Dropping(stub.Colour):  # type: ignore[name-defined, misc]
        def forward(self, x: torch.Tensor, y: torch.Tensor | None, noise: BatchNoise) -> dict[str, torch.Tensor]:
            return super().forward(torch.nn.functional.dropout(x, 0.5, self.training), y, noise)

    Trainer(Dropping(), stub.make_config(tmp_path / "whole", steps=4)).fit()
    for steps in (2, 4):
        Trainer(Dropping(), stub.make_config(tmp_path / "parts", steps=steps)).fit()
    Trainer(stub.Colour(), stub.make_config(tmp_path / "without", steps=4)).fit()
    whole, parts, without = (load_file(tmp_path / n / "weights.safetensors") for n in ("whole", "parts", "without"))
    assert equal(whole, parts)
    assert not equal(whole, without)


def test_what_is_written(tmp_path: Path) -> None:
    train(tmp_path, "steps=4", "val_every=2")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["steps"] == 4
    assert summary["images"] == 16
    assert summary["device_hours"] > 0
    assert {"loss", "distortion", "rate"} <= set(summary["validation"])
    assert (tmp_path / "samples.png").is_file()
    assert list((tmp_path / "tensorboard").glob("events*"))
    assert summary["config"]["method"]["name"] == "vdvae"


def test_sigkill_and_resume(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "train", *TINY, "steps=400", "save_every=0.01", f"out={tmp_path}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (tmp_path / "checkpoint.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["state"]["step"]
    assert 0 < done < 400
    killed = train(tmp_path, f"steps={done + 2}")
    assert equal(killed, train(tmp_path / "whole", f"steps={done + 2}"))


def test_two_processes_give_the_result_of_one(tmp_path: Path) -> None:
    one = train(tmp_path / "one", "steps=3")
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
        "-m", "bench", "train", *TINY, "steps=3", f"out={tmp_path / 'two'}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    two = load_file(tmp_path / "two" / "weights.safetensors")
    assert equal(one, two, 1e-5)
    assert json.loads((tmp_path / "two" / "summary.json").read_text())["processes"] == 2


def test_the_budget_ends_training(tmp_path: Path) -> None:
    begun = time.monotonic()
    train(tmp_path, "steps=1000000", "budget=1s")
    assert time.monotonic() - begun < 60
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert 1 <= summary["device_hours"] * 3600 < 30


def test_steps_with_a_large_gradient_are_skipped(tmp_path: Path) -> None:
    before = train(tmp_path / "a", "steps=1", "skip=1e-9")
    after = train(tmp_path / "a", "steps=5", "skip=1e-9")
    assert equal(before, after)
    assert json.loads((tmp_path / "a" / "summary.json").read_text())["skipped_steps"] == 5


def test_cvdvae_trains_the_low_resolution_encoder_only(tmp_path: Path) -> None:
    train(tmp_path / "prior", "steps=2")
    words = [w for w in TINY if w != "method=vdvae"]
    low = [
        "method=cvdvae", "scale=4", f"method.network.prior_weights={tmp_path / 'prior' / 'weights.safetensors'}",
        "method.network.low.x4.encoder=\"8x1,8d2,4d4,1x1\"", "method.network.low.x4.k=3",
        "method.network.low.x4.width=8", "method.network.low.x4.widths=null",
    ]  # fmt: skip
    out = tmp_path / "low"
    assert main(["train", *low, *words, "steps=3", f"out={out}"]) == 0
    names = set(load_file(out / "weights.safetensors"))
    assert names
    assert all(n.startswith("model.encoder_y.") or ".enc_y." in n or n.startswith("encoder_y.") for n in names)
    assert "lr_rmse" in json.loads((out / "summary.json").read_text())["validation"]


@pytest.mark.parametrize(
    ("text", "seconds"), [("48h", 172800), ("30m", 1800), ("48h*4", 691200), ("1.5d", 129600), (None, None)]
)
def test_budgets(text: str | None, seconds: float | None) -> None:
    assert parse_budget(text) == seconds


def test_bad_budget() -> None:
    with pytest.raises(ValueError, match="48h, 30m or 48h"):
        parse_budget("two days")


def test_order_is_a_function_of_the_step() -> None:
    order = Order(10, 3, seed=0, flip=True)
    epoch = np.concatenate([order(s)[0] for s in range(3)])
    assert len(set(epoch)) == 9
    again = Order(10, 3, seed=0, flip=True)
    assert (again(5)[0] == order(5)[0]).all()
    assert (again(5)[1] == order(5)[1]).all()
    assert not (order(3)[0] == order(0)[0]).all()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["method=cvdvae"], "add scale=4 or scale=8"),
        (["method=vdvea"], "Did you mean 'vdvae'"),
        (["method=vdvae", "precision=16"], "precision=16 is wrong: it should be '32' or 'bf16'."),
        (["method=vdvae", "budget=soon"], "budget=soon is wrong: it should be a time"),
        (["method=vdvae", "+method.network.depth=3"], "method.network.depth is no setting of vdvae"),
        (["method=vdvae", "batch=64", "pool=10", "dataset.size=64"], "fewer than batch=64"),
        (["method=hcflow", "scale=4", "pool=32", "val=2", "crop=80"], "crop=80 is more than the images' 64 pixels"),
        (["method=hcflow", "scale=4", "pool=32", "val=2", "crop=30"], "crop=30 is no multiple of scale=4"),
        (["method=vdvae", "betas=[1,0.9]"], "it should be below 1"),
        (["method=vdvae", "seed=99999999999999999999"], "seed=99999999999999999999 is wrong"),
        (["method=vdvae", "dataset=folder", "dataset.path=.", "dataset.size=0"], "dataset.size=0 is wrong"),
        (["method=sr3", "scale=4", "method.network.unet.groups=5"], "method.network describes no network of sr3"),
        ([], "method"),
    ],
)
def test_mistakes_are_one_sentence(
    words: list[str], sentence: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *words, "device=cpu", f"out={tmp_path}"]) == 1
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("bench: ")]
    assert len(errors) == 1
    assert sentence in errors[0]

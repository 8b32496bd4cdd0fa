"""What goes wrong in a training ends it in one sentence, soon, in all processes, and keeps what was good."""

from __future__ import annotations

import builtins
import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch

from bench.errors import BenchError
from bench.training.checkpoint import Identity, hash_tensors, read_checkpoint
from bench.training.data import make_splits
from bench.training.trainable import BatchNoise
from bench.training.trainer import Trainer, fabric_arguments

STUB = Path(__file__).with_name("stub.py")
ROOT = Path(__file__).parents[3]


def torchrun(mode: str, out: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(STUB), mode, str(out),
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)


@pytest.mark.parametrize(
    ("device", "environ", "expected"),
    [
        ("cpu", {}, ("cpu", 1, 1)),
        ("cuda:0", {}, ("cuda", [0], 1)),
        ("cuda:1", {}, ("cuda", [1], 1)),
        ("cuda:1", {"LOCAL_WORLD_SIZE": "1", "WORLD_SIZE": "1"}, ("cuda", [1], 1)),
        ("cuda:0", {"LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8"}, ("cuda", 4, 2)),
        ("cpu", {"LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "2"}, ("cpu", 2, 1)),
    ],
)
def test_fabric_gets_the_device_that_was_asked_for(device: str, environ: dict[str, str], expected: tuple) -> None:
    assert tuple(fabric_arguments(device, environ)[k] for k in ("accelerator", "devices", "num_nodes")) == expected


def test_one_device_for_several_processes() -> None:
    with pytest.raises(BenchError, match="device=cuda:1 is one device for 2 processes: use device=cuda"):
        fabric_arguments("cuda:1", {"LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "2"})


def test_one_process_that_raises_ends_all(tmp_path: Path) -> None:
    done = torchrun("raise", tmp_path)
    ended = time.time()
    assert done.returncode != 0
    assert "this process has had enough" in done.stderr
    assert ended - float((tmp_path / "raised").read_text()) < 20  # seconds; on a busy machine


@pytest.mark.parametrize("images", [1, 3, 5])
def test_validation_is_the_same_with_two_processes(stub: ModuleType, tmp_path: Path, images: int) -> None:
    stub.run(str(images), tmp_path / "one")
    done = torchrun(str(images), tmp_path / "two")
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (json.loads((tmp_path / n / "summary.json").read_text()) for n in ("one", "two"))
    assert (one["processes"], two["processes"]) == (1, 2)
    assert one["validation"].keys() == {"loss", "lr_rmse"}
    assert two["validation"] == pytest.approx(one["validation"], rel=1e-5)


def test_validation_is_the_mean_over_images(stub: ModuleType, tmp_path: Path) -> None:
    trainer = Trainer(stub.Colour(), stub.make_config(tmp_path, val=5, steps=1, lr=1e-9))
    trainer.fit()
    untrained = stub.Colour()
    x = torch.from_numpy(make_splits({"name": "synthfaces", "size": 32}, 12, 5)[1].images.copy())
    x = x.permute(0, 3, 1, 2).float() / 255
    losses = [
        untrained(x[first : first + count], None, BatchNoise(first, count, slice(0, count), torch.device("cpu")))[
            "loss"
        ]
        for first, count in ((0, 4), (4, 1))
    ]
    mean = float((4 * losses[0] + losses[1]).detach()) / 5
    figures = json.loads((tmp_path / "summary.json").read_text())["validation"]
    assert figures["loss"] == pytest.approx(mean, rel=1e-5)


def nan_after(steps: int):
    calls: list[int] = []

    def fault(loss: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return loss * float("nan") if len(calls) > steps else loss

    return fault


def test_a_loss_that_is_never_finite(stub: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"diverged at step 6: its loss was never finite; no checkpoint was written"):
        Trainer(stub.Colour(fault=nan_after(0)), stub.make_config(tmp_path)).fit()
    assert not (tmp_path / "weights.safetensors").exists()


def test_a_hundred_skipped_steps_in_a_row(stub: ModuleType, tmp_path: Path) -> None:
    config = stub.make_config(tmp_path, steps=500, save_every=1e-9)
    sentence = r"diverged at step 107: the norm of its gradient was not finite in 100 steps in a row; the checkpoint of"
    with pytest.raises(BenchError, match=sentence):
        Trainer(stub.Colour(fault=nan_after(7)), config).fit()
    kept = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert all(bool(t.isfinite().all()) for part in ("weights", "ema") for t in kept[part].values())
    assert not (tmp_path / "weights.safetensors").exists()


def test_weights_that_are_not_finite_do_not_replace_good_ones(
    stub: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Trainer(stub.Colour(), stub.make_config(tmp_path, steps=2)).fit()
    before = (tmp_path / "checkpoint.pt").read_bytes()
    real = torch.optim.AdamW.step

    def overflow(self: torch.optim.AdamW, *arguments: object, **options: object) -> None:
        real(self, *arguments, **options)
        with torch.no_grad():
            self.param_groups[0]["params"][0].fill_(float("inf"))

    monkeypatch.setattr(torch.optim.AdamW, "step", overflow)
    trainer = Trainer(stub.Colour(), stub.make_config(tmp_path, steps=9, save_every=1e-9))
    with pytest.raises(BenchError, match="its weights are not finite; the checkpoint of step 2 is kept"):
        trainer.fit()
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize("damage", ["empty", "cut", "foreign", "partial", "text"])
def test_a_damaged_checkpoint_is_one_sentence(stub: ModuleType, tmp_path: Path, damage: str) -> None:
    Trainer(stub.Colour(), stub.make_config(tmp_path, steps=2)).fit()
    path = tmp_path / "checkpoint.pt"
    content = torch.load(path, weights_only=True)
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    elif damage == "text":
        path.write_text("not a checkpoint")
    elif damage == "foreign":
        torch.save({"model": torch.zeros(2)}, path)
    else:
        content["state"] = {"stride": 3}
        torch.save(content, path)
    with pytest.raises(BenchError, match=r"checkpoint\.pt (is damaged|is no checkpoint|cannot be resumed)") as caught:
        Trainer(stub.Colour(), stub.make_config(tmp_path, steps=4)).fit()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ({}, {"batch": 2}, r"batch=2 \(then 4\)"),
        ({}, {"seed": 1, "lr": 0.1}, r"lr=0\.1 \(then 0\.01\); seed=1 \(then 0\)"),
        ({}, {"schedule": "cosine"}, r"schedule=cosine \(then constant\)"),
        ({}, {"scale": 4}, r"scale=4 \(then null\)"),
        ({}, {"dataset": {"name": "synthfaces", "size": 40}}, r"dataset\.size=40 \(then 32\)"),
        ({}, {"pool": 8}, r"pool=8 \(then 12\)"),
        ({"schedule": "cosine"}, {"schedule": "cosine", "steps": 8},
         r"steps=8 \(then 2, and the rate of schedule=cosine depends on it\)"),
        ({"schedule": "plateau"}, {"schedule": "plateau", "val_every": 8},
         r"val_every=8 \(then 1000, and the patience of schedule=plateau depends on it\)"),
    ],
)  # fmt: skip
def test_another_training_is_not_gone_on_with(
    stub: ModuleType, tmp_path: Path, before: dict, after: dict, named: str
) -> None:
    Trainer(stub.Colour(), stub.make_config(tmp_path, **{"steps": 2} | before)).fit()
    with pytest.raises(BenchError, match=f"belongs to another training: .*{named}.* Use another out=DIR"):
        Trainer(stub.Colour(), stub.make_config(tmp_path, **{"steps": 2} | after)).fit()


def test_what_does_not_change_the_result_may_change(stub: ModuleType, tmp_path: Path) -> None:
    Trainer(stub.Colour(), stub.make_config(tmp_path, steps=2)).fit()
    changes = {"steps": 4, "budget": 1e6, "val_every": 3, "save_every": 5.0, "log_every": 1, "pool": 12}
    moved = {"name": "synthfaces", "size": 32, "split": "train"}  # other words for the same images
    state = Trainer(stub.Colour(), stub.make_config(tmp_path, **changes, dataset=moved)).fit()
    assert state.step == 4


def test_other_frozen_weights_are_another_training(stub: ModuleType, tmp_path: Path) -> None:
    Trainer(stub.Colour(), stub.make_config(tmp_path, steps=2)).fit()
    module = stub.Colour()
    torch.nn.init.zeros_(module.frozen)
    with pytest.raises(BenchError, match="the weights that are not trained are others"):
        Trainer(module, stub.make_config(tmp_path, steps=4)).fit()


def test_other_images_under_the_same_settings(tmp_path: Path) -> None:
    content = {"identity": Identity({"pool": 3}, ["a", "b"], "c").as_json()}
    Identity({"pool": 4}, ["a", "b"], "c").check(tmp_path, content)
    with pytest.raises(BenchError, match="the images of the dataset are others"):
        Identity({"pool": 3}, ["other", "b"], "c").check(tmp_path, content)


def test_settings_that_were_added_since_are_as_they_would_have_been(tmp_path: Path) -> None:
    content = {"identity": Identity({"lr": 0.1}, ["a", "b"], "c").as_json()}
    Identity({"lr": 0.1, "gamma": 0.5, "crop": None, "milestones": []}, ["a", "b"], "c").check(tmp_path, content)
    with pytest.raises(BenchError, match=r"crop=16 \(then null\); gamma=0\.3 \(then 0\.5\)"):
        Identity({"lr": 0.1, "gamma": 0.3, "crop": 16}, ["a", "b"], "c").check(tmp_path, content)


def test_another_network_under_unknown_settings(stub: ModuleType, tmp_path: Path) -> None:
    Trainer(stub.Colour(), stub.make_config(tmp_path, steps=2)).fit()
    content = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    del content["identity"]
    content["weights"]["colour"] = torch.zeros(1)  # would be broadcast
    torch.save(content, tmp_path / "checkpoint.pt")
    with pytest.raises(BenchError, match=r"holds another network than method\.network describes"):
        Trainer(stub.Colour(), stub.make_config(tmp_path, steps=4)).fit()


def test_checkpoints_of_earlier_versions_are_gone_on_with(stub: ModuleType, tmp_path: Path) -> None:
    """Until a9ebf8c they held state, weights, ema and optimizer, the last without an initial rate."""
    whole = Trainer(stub.Colour(), stub.make_config(tmp_path / "whole", warmup=5))
    whole.fit()
    Trainer(stub.Colour(), stub.make_config(tmp_path / "parts", warmup=5, steps=3)).fit()
    path = tmp_path / "parts" / "checkpoint.pt"
    content = torch.load(path, weights_only=True)
    del content["identity"], content["state"]["judged"]
    for group in content["optimizer"]["param_groups"]:
        group.pop("initial_lr")
        group["lr"] = 0.01 * 3 / 5  # that of the last step
    assert content["state"].keys() == {"step", "seconds", "skipped", "best", "bad", "factor"}
    assert content.keys() == {"state", "weights", "ema", "optimizer"}
    torch.save(content, path)
    parts = Trainer(stub.Colour(), stub.make_config(tmp_path / "parts", warmup=5))
    parts.fit()
    assert torch.equal(whole.trained["colour"], parts.trained["colour"])
    assert torch.equal(whole.ema["colour"], parts.ema["colour"])


def test_hash_of_tensors() -> None:
    a, b = torch.zeros(2, dtype=torch.bfloat16), torch.zeros(())
    hashes = {hash_tensors(t) for t in ({"a": a}, {"b": a}, {"a": b}, {"a": a + 1}, {"a": a, "b": b}, {})}
    assert len(hashes) == 6


def test_out_of_memory_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise MemoryError

    monkeypatch.setattr(torch, "load", full)
    with pytest.raises(MemoryError):
        read_checkpoint(tmp_path, torch.device("cpu"))


@pytest.mark.parametrize("package", ["lightning_fabric", "tensorboard"])
def test_a_missing_package_is_one_sentence(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import bench.training.trainer as trainer

    real = builtins.__import__

    def hide(name: str, *arguments: object, **options: object) -> object:
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(f"No module named '{package}'", name=package)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", hide)
    monkeypatch.delitem(sys.modules, "bench.training.trainer")
    with pytest.raises(
        BenchError, match=rf"Training needs the package {package}: pip install 'diverse-sr-bench\[train"
    ):
        importlib.import_module("bench.training.trainer")
    monkeypatch.undo()
    assert sys.modules["bench.training.trainer"] is trainer

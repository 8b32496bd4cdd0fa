"""All shipped networks, tiny, by the one command: in pieces, through kills and pauses, with the result of one piece."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from scripts import train_shipped
from scripts.train_shipped import AGAIN, STAGES, bring_back, main, with_settings

PRIOR = [
    "method.network.prior.size=32", "method.network.prior.width=8",
    'method.network.prior.decoder="1x1,4m1,8m4,16m8"', 'method.network.prior.encoder="16d2,8d2,4d4,1x1"',
    "method.network.prior.widths=null", "method.network.prior.mixtures=2",
]  # fmt: skip
SETTINGS = {
    "all": ["dataset=synthfaces", "dataset.size=32", "device=cpu", "precision=32", "pool=8", "val=2", "batch=2",
            "val_every=1000", "log_every=1", "save_every=0.01"],
    "prior64": PRIOR,
    **{
        f"low64_x{s}": [
            *PRIOR, f'method.network.low.x{s}.encoder="{blocks}"', f"method.network.low.x{s}.k={k}",
            f"method.network.low.x{s}.width=8", f"method.network.low.x{s}.widths=null",
        ]
        for s, blocks, k in ((4, "8x1,8d2,4d4,1x1", 3), (8, "4x1,4d4,1x1", 2))
    },
    **{
        f"flow64{stage}_x{s}": [f"method.network.flow.x{s}={{levels: {levels}, steps: 2, conditional: 1, hidden: 4, "
                                "features: 4, growth: 2, blocks: [1, 1], quant: 256}"]
        for s, levels in ((4, 2), (8, 3))
        for stage in ("", "-likelihood")
    },
    **{name: ["method.network.unet.size=32", "method.network.unet.channels=32"]
       for name in ("unet64_x4", "unet64_x8", "diffusion64")},
    "gaussians32": ["dataset=gaussians", "method.network.unet.channels=32"],
}  # fmt: skip


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def start(folder: Path, *words: str) -> multiprocessing.Process:
    """The command in a process of its own."""
    settings = folder.parent / "settings.yaml"
    settings.write_text(yaml.safe_dump(SETTINGS))
    # forked: most of the time of a new interpreter is the import of PyTorch
    arguments = [str(folder), "--settings", str(settings), *words]
    process = multiprocessing.get_context("fork").Process(target=lambda: sys.exit(main(arguments)))
    process.start()
    return process


def ended(process: multiprocessing.Process) -> int | None:
    process.join(120)
    return process.exitcode


def wait_for(condition, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)


def test_an_encoder_is_trained_on_the_prior_before_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert ended(start(out, "--steps", "20", "--only", "prior64", "low64_x4", "--back", str(tmp_path / "back"))) == 0
    found = {p.stem: load_file(p) for p in (out / "weights").iterdir()}
    assert set(found) == {"prior64", "low64_x4"}
    assert all(t.dtype == torch.float16 for tensors in found.values() for t in tensors.values())
    assert all(n.startswith("encoder_y.") or ".enc_y." in n for n in found["low64_x4"])
    assert {p.stem for p in (tmp_path / "back").iterdir()} == set(found)


@pytest.mark.slow
def test_every_network_is_trained(tmp_path: Path) -> None:
    """Two steps of each stage."""
    out = tmp_path / "out"
    assert ended(start(out, "--steps", "2", "--back", str(tmp_path / "back"))) == 0
    found = {p.stem: load_file(p) for p in (out / "weights").iterdir()}
    assert set(found) == {s.name for s in STAGES}
    for name, tensors in found.items():
        assert all(t.dtype == torch.float16 for t in tensors.values()), name
        assert all(t.isfinite().all() for t in tensors.values()), name
    assert all(n.startswith("encoder_y.") or ".enc_y." in n for n in found["low64_x4"])
    likelihood, plus = (load_file(out / f"flow64{s}_x4" / "weights.safetensors") for s in ("-likelihood", ""))
    assert plus.keys() == likelihood.keys()
    assert any(not torch.equal(plus[k], likelihood[k]) for k in plus)  # the second stage went on from the first
    assert all((plus[k] - likelihood[k]).abs().max() < 0.01 for k in plus)
    assert len(list((tmp_path / "back").iterdir())) == 8  # no more come back


@pytest.mark.slow
def test_pieces_kills_and_pauses_change_nothing(tmp_path: Path) -> None:
    steps = ["--steps", "24", "--only", "prior64"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert ended(start(whole, *steps)) == 0
    checkpoint = parts / "prior64" / "checkpoint.pt"

    def step() -> int:
        return torch.load(checkpoint, weights_only=True)["state"]["step"] if checkpoint.exists() else 0

    assert ended(start(parts, *steps, "--minutes", "0.001")) == AGAIN

    killed = start(parts, *steps)
    wait_for(lambda: step() > 0)
    os.kill(int((parts / "training.pid").read_text()), signal.SIGKILL)
    assert ended(killed) not in (0, AGAIN)  # it says that something went wrong
    done = step()
    assert done < 24

    driver = start(parts, *steps)
    wait_for(lambda: step() > done)
    assert main([str(parts), "--pause"]) == 0
    still = step()
    time.sleep(0.5)
    assert step() == still < 24
    assert (parts / "weights" / "prior64.safetensors").is_file()  # what has been learnt is at hand
    assert main([str(parts), "--continue"]) == 0
    assert ended(driver) == 0
    a, b = (load_file(f / "prior64" / "weights.safetensors") for f in (whole, parts))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_a_pause_where_nothing_runs_returns_at_once(tmp_path: Path) -> None:
    begun = time.monotonic()
    assert main([str(tmp_path), "--pause"]) == 0
    assert time.monotonic() - begun < 5


def test_settings_take_the_place_of_earlier_ones() -> None:
    settings = {"all": ["pool=8", "batch=2"], "prior64": ["batch=4"]}
    prior, low = (with_settings(s, settings, 0.5, None) for s in STAGES[:2])
    assert prior.words.count("batch=4") == 1
    assert "batch=2" not in prior.words
    assert "batch=2" in low.words
    assert not any(w.startswith("pool=") and w != "pool=8" for w in prior.words)
    assert prior.steps == STAGES[0].steps // 2


def test_the_newest_weights_come_back(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    for i in range(10):
        path = tmp_path / "weights" / f"{i}.safetensors"
        path.write_bytes(b"0")
        os.utime(path, (i, i))
    bring_back(tmp_path, tmp_path / "back", files=2)
    assert sorted(p.name for p in (tmp_path / "back").iterdir()) == ["8.safetensors", "9.safetensors"]


def test_missing_modules_come_from_wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheels, site = tmp_path / "wheels", tmp_path / "site"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "carried_along-1.0-py3-none-any.whl", "w") as wheel:
        info = "carried_along-1.0.dist-info"
        wheel.writestr("carried_along.py", "VALUE = 7\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: carried-along\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setattr(train_shipped, "WHEELS", {"carried_along": "carried-along", "torch": "torch"})
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", "")
    train_shipped.install_wheels(wheels, site)
    assert importlib.import_module("carried_along").VALUE == 7
    assert not (site / "torch").exists()  # what is there is not touched

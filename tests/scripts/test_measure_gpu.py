"""The pieces that a GPU will run are run here on the CPU, at the small size; Philox against its published vectors."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch

from scripts import philox
from scripts.measure_gpu import AGAIN, KINDS, Measurement, main, shipped_methods, tf32


# kat_vectors of github:DEShawResearch/random123, philox4x32 10
@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)  # fmt: skip
def test_philox(counter: list[int], key: list[int], expected: list[int]) -> None:
    assert philox.words(torch.tensor(counter), torch.tensor(key)).tolist() == expected


def test_philox_is_normal_and_keyed() -> None:
    keys = torch.tensor([[1, 2], [1, 3]])
    drawn = philox.normal(keys, 100_001)
    assert drawn.shape == (2, 100_001)
    assert drawn.mean(1).abs().max() < 0.02
    assert (drawn.var(1) - 1).abs().max() < 0.02
    assert (drawn.pow(4).mean(1) - 3).abs().max() < 0.1
    assert torch.equal(philox.normal(keys[1:], 100_001)[0], drawn[1])
    assert float((philox.normal(keys[1:], 100_001, call=1)[0] * drawn[1]).mean()) == pytest.approx(0, abs=0.02)


def test_pieces_resume_and_end_in_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [str(tmp_path), "--device", "cpu", "--small", "--only", "equal", "public", "noise"]
    monkeypatch.setattr("scripts.measure_gpu.shipped_methods", lambda: ["bicubic", "hcflow"])
    assert main([*words, "--minutes", "0.45"]) == AGAIN  # too few for the public code
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "pieces").iterdir()}
    assert before
    while main(words) == AGAIN:
        pass
    for name, written in before.items():
        assert (tmp_path / "pieces" / name).stat().st_mtime_ns == written
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert set(found["results"]) == {"equal", "public", "noise"}
    assert found["results"]["equal"]["bicubic"] == {"float32": 0.0, "TF32": 0.0}
    assert found["results"]["equal"]["hcflow"]["bf16"] < 0.1
    table = (tmp_path / "gpu.md").read_text()
    assert "| hcflow " in table
    assert "has no checkout" in table


def test_a_piece_that_fails_is_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Measurement) -> None:
        raise RuntimeError("the device is on fire")

    monkeypatch.setattr(Measurement, "noise", broken)
    assert main([str(tmp_path), "--device", "cpu", "--small", "--only", "noise"]) == 1
    assert "the device is on fire" in (tmp_path / "gpu.md").read_text()


def test_what_differs_from_the_cpu_and_tests_that_fail_end_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("scripts.measure_gpu.shipped_methods", lambda: ["hcflow"])
    monkeypatch.setattr(Measurement, "equal", lambda self, label: {"float32": 2e-4, "TF32": 0.1})
    monkeypatch.setattr(Measurement, "tests", lambda self: {"passed": False, "line": "1 failed", "tail": []})
    assert main([str(tmp_path), "--device", "cpu", "--small", "--only", "equal", "tests"]) == 1
    said = capsys.readouterr().err
    assert "equal hcflow: float32 samples differ from the CPU's by 2.0e-04" in said
    assert "tests device: 1 failed" in said
    assert "1 failed" in (tmp_path / "gpu.md").read_text()


def test_a_piece_ends_when_it_takes_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of a call it is left for the next one; with all its time it is written down as failed."""
    monkeypatch.setattr(Measurement, "noise", lambda self: time.sleep(60))
    monkeypatch.setattr("scripts.measure_gpu.PATIENCE", 0.01)
    words = [str(tmp_path), "--device", "cpu", "--small", "--only", "noise"]
    assert main([*words, "--minutes", "1"]) == 1
    assert "took longer than" in (tmp_path / "gpu.md").read_text()
    (tmp_path / "pieces" / "noise-streams.json").unlink()
    monkeypatch.setattr("scripts.measure_gpu.PATIENCE", 1e6)
    monkeypatch.setattr("scripts.measure_gpu.time.monotonic", lambda: next(clock))
    clock = iter([0.0, 0.0, 59.9])
    assert main([*words, "--minutes", "1"]) == AGAIN
    assert not (tmp_path / "pieces" / "noise-streams.json").exists()


def test_tf32_is_on_where_a_row_names_it_alone() -> None:
    with tf32(True):
        assert torch.backends.cudnn.allow_tf32
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


def test_options_of_a_network(tmp_path: Path) -> None:
    measurement = Measurement("cpu", small=True, folder=tmp_path, public=None)
    named = {f"x{scale}/{name}": settings for scale, name, settings in measurement.options()}
    assert list(named)[-1] in ("x8/all", "x4/all")
    assert {"x8/none", "x8/TF32", "x8/bf16", "x8/compile, CUDA graphs", "x4/none"} <= set(named)
    none = measurement.speed("hcflow", 8, "none", named["x8/none"])
    half = measurement.speed("hcflow", 8, "bf16", named["x8/bf16"])
    assert none["change"] == 0.0
    assert 0 < half["change"] < 0.1
    assert half["seconds"] > 0
    rows = measurement.memory("cvdvae")
    assert [row["rows"] for row in rows] == [1, 2]
    assert all(row["seconds"] > 0 for row in rows)


def test_every_kind_has_a_piece(tmp_path: Path) -> None:
    pieces = list(Measurement("cuda", False, tmp_path, None).pieces())
    assert {p.kind for p in pieces} == set(KINDS)
    assert len({p.file for p in pieces}) == len(pieces)
    assert all(p.minutes <= 9 for p in pieces)
    assert sum(p.minutes for p in pieces) <= 25.5
    assert set(shipped_methods()) >= {"bicubic", "cvdvae", "hcflow", "sr3", "dps"}


def test_no_gpu_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert main([str(tmp_path)]) == 2
    assert "sees no GPU" in capsys.readouterr().err

"""The table says what `run` would of the validation faces."""

from pathlib import Path

import pytest

from bench.config import compose, read_config
from scripts.choose import PHOTOGRAPHS, VALIDATION, main


def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = tmp_path / "faces.png"
    words = ["scale=8", "methods=[hcflow]", "tau=[0.1,1]", "device=cpu", "--images", "2", "--samples", "3"]
    main([*words, "--pictures", str(pictures)])
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    assert [row[:3] for row in rows[2:]] == [["hcflow", "x8", "0.1"], ["hcflow", "x8", "1.0"]]
    cold, warm = ({name: float(v) for name, v in zip(rows[0][3:], row[3:], strict=True)} for row in rows[2:])
    assert 0 < cold["APD / MSE"] + 0.01 < warm["APD / MSE"] + 0.01
    for figures in (cold, warm):
        rms = 255 * 10 ** (-figures["PSNR (dB)"] / 20)
        assert 0.4 * rms < figures["energy score (levels)"] < 1.1 * rms
        assert 0 < figures["ST-LPIPS"] < 0.5
    assert pictures.stat().st_size > 1000


def test_photographs_are_those_that_training_has_not() -> None:
    dataset = read_config(compose("run", [*PHOTOGRAPHS, *VALIDATION])).dataset
    assert dataset["name"] == "mixture"
    assert dataset["split"] == "val"
    assert {name: part["weight"] for name, part in dataset["parts"].items()} == {"synthfaces": 0, "portraits256": 1}

"""The tutorials run as they stand: their files are written, their commands executed, in an empty folder."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import skimage.data
from PIL import Image

TUTORIALS = Path(__file__).parent.parent / "docs" / "tutorials"
ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"(?:^File `(?P<path>[^`]+)`:\n\n)?```(?P<kind>\w+)\n(?P<text>.*?)```", re.DOTALL | re.MULTILINE)


def play(name: str, folder: Path) -> str:
    """Do what a tutorial says; return all that its commands printed."""
    site = folder / "site"
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)]),
        "BENCH_CACHE": str(folder / "cache"),
        "CUDA_VISIBLE_DEVICES": "",
    }
    said = []
    for block in BLOCK.finditer((TUTORIALS / f"{name}.md").read_text()):
        if block["path"]:
            path = folder / block["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block["text"])
            continue
        if block["kind"] != "console":
            continue  # an excerpt
        for line in block["text"].splitlines():
            words = shlex.split(line.removeprefix("$ "))
            if words[:3] == ["pip", "install", "-e"]:  # beside the packages that are here, not among them
                words = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation",
                         "--target", str(site), "--upgrade", str(folder / words[3])]  # fmt: skip
            elif words[0] == "python":
                words[0] = sys.executable
            done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, (line, done.stdout, done.stderr)
            said.append(done.stdout)
    return "\n".join(said)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder `photos` with three real photographs, one in a folder below."""
    folder = tmp_path / "photos"
    (folder / "b").mkdir(parents=True)
    for name, image in (
        ("a.png", skimage.data.astronaut()),
        ("b/c.png", skimage.data.coffee()),
        ("d.png", skimage.data.cat()),
    ):
        Image.fromarray(image).save(folder / name)
    return folder


def test_method(tmp_path: Path) -> None:
    assert "The method keeps the contract." in play("method", tmp_path)
    table = pd.read_csv(tmp_path / "results/runs/borrowed/table.csv")
    assert table["method"].tolist() == ["bicubic", "borrowed", "borrowed"]
    mild, strong = table["apd_mse_e4"][1:]
    assert (
        40 * mild < strong < 70 * mild
    )  # the texture is scaled by tau, which is squared here; clipping takes a little


def test_metric(tmp_path: Path) -> None:
    assert "Sharpness" in play("metric", tmp_path)
    table = pd.read_csv(tmp_path / "results/runs/sharp/table.csv").set_index("method")
    assert 0 < table.loc["bicubic", "sharpness"] < table.loc["cvdvae", "sharpness"]


def test_dataset(tmp_path: Path) -> None:
    assert "Stripes" in play("dataset", tmp_path)
    table = pd.read_csv(tmp_path / "results/runs/stripes/table.csv").set_index("scale")
    assert table["n_images"].tolist() == [4, 4]
    assert table.loc[4, "psnr"] > table.loc[8, "psnr"] > 5


def test_operator(tmp_path: Path) -> None:
    said = play("operator", tmp_path)
    assert "Tent" in said
    assert "The method keeps the contract." in said
    table = pd.read_csv(tmp_path / "results/runs/tent/table.csv")
    assert (table["operator"][0], table["sigma"][0]) == ("tent", 0.02)
    assert 15 < table["psnr"][0] < 34  # the noise of y, -20 log10(0.02) = 34 dB, is still in the enlarged image
    assert 34 < table["lr_psnr"][0] < 45  # which gives back y, its noise included, but for some smoothing


def test_python(tmp_path: Path) -> None:
    face = skimage.data.astronaut()[30:158, 170:298]
    Image.fromarray(face).resize((8, 8), Image.Resampling.BOX).save(tmp_path / "face.png")
    assert "bicubic x4, x8 (1, 3, 3, 64, 64)" in play("python", tmp_path)
    samples = [np.array(Image.open(tmp_path / f"sample{i}.png")).astype(int) for i in range(3)]
    assert all(s.shape == (64, 64, 3) for s in samples)
    assert np.abs(samples[0] - samples[1]).max() > 2


@pytest.mark.usefixtures("photos")
def test_images(tmp_path: Path) -> None:
    assert "b/c.png" in play("images", tmp_path)
    assert len(pd.read_csv(tmp_path / "results/runs/photos/table.csv")) == 2
    assert (tmp_path / "results/photos/figures/figure3.png").is_file()


def test_cluster(tmp_path: Path) -> None:
    play("cluster", tmp_path)
    assert pd.read_csv(tmp_path / "results/runs/shared/table.csv")["n_images"].tolist() == [6, 6]
    assert (tmp_path / "results/runs/seed1/table.csv").is_file()


@pytest.mark.usefixtures("photos")
def test_training(tmp_path: Path) -> None:
    play("training", tmp_path)
    assert (tmp_path / "results/training/mine/weights.safetensors").is_file()
    assert pd.read_csv(tmp_path / "results/runs/mine/table.csv")["method"].tolist() == ["bicubic", "sr3"]


def test_first_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    book = nbformat.read(TUTORIALS / "first_steps.ipynb", as_version=4)
    nbformat.validate(book)
    assert not any(cell.get("outputs") for cell in book.cells)  # kept without: they are made anew
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    NotebookClient(book, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    table = pd.read_csv(tmp_path / "first_run/table.csv").set_index("method")
    assert table.loc["cvdvae", "apd_mse_e4"] > table.loc["bicubic", "apd_mse_e4"] == 0
    right = pd.read_csv(tmp_path / "known/truth.csv").set_index("method")
    for name in ("apd_ratio_mse", "coverage90", "lr_residual", "mmse_gap"):  # what the notebook shows and says
        assert abs(right.loc["oracle", f"{name}_distance"]) < 2, name
        if name not in ("apd_ratio_mse", "coverage90"):  # the prior has the spread of the truth, not its place
            assert abs(right.loc["prior_only", f"{name}_distance"]) > 3, name
    said = "".join(o.get("text", "") for c in book.cells for o in c.get("outputs", []) if o.get("name") == "stdout")
    a, mean = map(float, re.search(r"a sample: ([\d.]+) dB, their mean: ([\d.]+) dB", said).groups())
    assert mean > a

"""The README's example of a method runs as it stands."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench.cli import main

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_example_method_keeps_the_contract(tmp_path: Path) -> None:
    code = re.search(r"```python\n(\"\"\"Bicubic.+?)```", README, re.DOTALL)[1]
    config = re.search(r"```yaml\n(.+?)```", README, re.DOTALL)[1]
    assert len(code.splitlines()) <= 30
    package = tmp_path / "grainypackage"
    (package / "configs" / "methods").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "grainy.py").write_text(code)
    (package / "configs" / "methods" / "grainy.yaml").write_text(config)
    info = tmp_path / "grainy-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: grainy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[bench.methods]\ngrainy = grainypackage.grainy\n")
    path = os.pathsep.join([str(tmp_path), os.getcwd()])
    command = [sys.executable, "-m", "bench", "check", "method=grainy"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path})
    assert done.returncode == 0, done.stdout + done.stderr
    words = ["run", "methods=[bicubic,grainy]", "tau=[0.1,0.8]", "limit=1", "metrics=[psnr]", f"out={tmp_path / 'run'}"]
    done = subprocess.run([*command[:3], *words], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path})
    assert done.returncode == 0, done.stdout + done.stderr


def test_links_lead_somewhere() -> None:
    root = Path(__file__).parent.parent
    for page in [root / "README.md", *(root / "docs").glob("*.md"), root / "results" / "README.md"]:
        for link in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), (page, link)


SMALL = {
    "run": ["limit=1", "n=2", "metrics=[psnr]", "device=cpu"],
    "reproduce": ["limit=1", "n=2", "metrics=[psnr]", "device=cpu", "methods=[bicubic,cvdvae]", "plan=true"],
    "tune": ["limit=1", "n=2", "metric=psnr", "methods.diffpir.steps=2", "device=cpu"],
    "train": ["budget=null", "steps=1", "batch=2", "pool=4", "val=2", "dataset=synthfaces", "device=cpu"],
    "sample": ["n=2"],
}
"""What makes a command of the README small enough to be run by a test."""
COMMANDS = [line.split("#")[0].split()[3:] for line in README.splitlines() if line.startswith("    python -m bench ")]


def test_the_readme_has_the_commands_that_are_run_here() -> None:
    assert {words[0] for words in COMMANDS} == {"check", *SMALL}


@pytest.mark.parametrize("words", [w for w in COMMANDS if "grainy" not in " ".join(w)], ids=" ".join)
def test_commands_run(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8).repeat(1, 0)).save("face16.png")
    steps = [f"methods.{m}.steps=2" for m in ("ddrm", "diffpir") if words[0] == "run" and m in " ".join(words)]
    small = [w for w in SMALL[words[0]] if not (w.startswith("methods=") and "paper" not in words)]
    given = [w for w in words if not w.startswith(("limit=", "budget="))]
    code = main([*given, *small, *steps])
    offline = words[0] == "reproduce" and "dataset=synthfaces" not in words  # FFHQ is not here
    assert code == (1 if offline else 0)


def test_python_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    code = next(c for c in re.findall(r"```python\n(.+?)```", README, re.DOTALL) if "load_method" in c)
    found: dict[str, object] = {"y": torch.rand(2, 3, 8, 8)}
    exec(code, found)
    x = found["x"]
    assert isinstance(x, torch.Tensor)
    assert x.shape == (2, 5, 3, 64, 64)

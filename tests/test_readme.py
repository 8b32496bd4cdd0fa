"""The README's example of a method runs as it stands."""

import os
import re
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_example_method_keeps_the_contract(tmp_path: Path) -> None:
    code = re.search(r"```python\n(.+?)```", README, re.DOTALL)[1]
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


def test_links_lead_somewhere() -> None:
    root = Path(__file__).parent.parent
    for page in [root / "README.md", *(root / "docs").glob("*.md"), root / "results" / "README.md"]:
        for link in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), (page, link)

"""What is declared can be listed without the libraries that compute."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "torchvision", "piq", "lpips", "scipy", "diffusers", "matplotlib", "pandas")
SCRIPT = """
import sys
from bench.{package} import {registry} as registry
print(*[registry.get(name).facts.{word} for name in registry.names()], file=sys.stderr)
assert not registry.broken, registry.broken
print(*sys.modules)
"""


LISTS = [("metrics", "metrics", "label"), ("data", "datasets", "title")]


@pytest.mark.parametrize(("package", "registry", "word"), LISTS)
def test_facts_are_listed_without_torch(package: str, registry: str, word: str) -> None:
    script = SCRIPT.format(package=package, registry=registry, word=word)
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert not {m.partition(".")[0] for m in result.stdout.split()} & set(HEAVY)

"""Thousands of wrong command lines and damaged files: one sentence and an exit code each, and never a traceback.

``pytest tests/faults/test_fuzz.py --fuzz-cases 5000`` has more of them than a run of the whole suite.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from bench import cli
from bench.data.images import read_rgb
from bench.errors import BenchError
from bench.files import read_json
from bench.weights import read_tensors

QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
KEYS = (
    "methods",
    "scale",
    "tau",
    "n",
    "limit",
    "images",
    "dataset",
    "dataset.path",
    "dataset.size",
    "dataset.split",
    "operator",
    "operator.sigma",
    "operator.range",
    "seed",
    "device",
    "out",
    "metrics",
    "variants",
    "batch",
    "methods.cvdvae.output",
    "methods.dps.steps",
    "methods.cvdvae.compute.rows",
    "compute",
    "protocol",
    "method",
    "steps",
    "lr",
    "recipe",
    "study",
    "paper",
)
VALUES = st.one_of(
    st.text(max_size=12),
    st.floats().map(str),
    st.integers(-(10**30), 10**30).map(str),
    st.sampled_from(
        [
            "null",
            "[]",
            "{}",
            "[cvdvae]",
            "[cvdvae,",
            "{a: b}",
            "${x}",
            "${oc.env:HOME}",
            "bicubic",
            "4",
            "[4,8]",
            "0:",
            ":0",
            "''",
        ]
    ),
    st.lists(st.sampled_from(["cvdvae", "dps", "nothing", "1", "-1", "nan", "4"]), max_size=3).map(
        lambda v: f"[{','.join(v)}]"
    ),
)
SETTINGS = st.builds(
    lambda mark, key, value: f"{mark}{key}={value}",
    st.sampled_from(["", "", "", "+", "~", "++"]),
    st.sampled_from(KEYS),
    VALUES,
)
WORDS = st.lists(st.one_of(SETTINGS, SETTINGS, st.text(max_size=10)), max_size=4)


class ReachedError(BenchError):
    """The configuration was read, and work would begin."""


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def reached(*_: object, **__: object) -> None:
        raise ReachedError("fuzz: would begin.")

    for name in ("bench.run.runner.run", "bench.run.check.check_method", "bench.training.trainer.Trainer.__init__"):
        monkeypatch.setattr(name, reached)
    for name in ("bench.paper.reproduce.reproduce", "bench.download.get"):
        monkeypatch.setattr(name, reached)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def cases(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--fuzz-cases"))


def no_traceback(words: list[str]) -> None:
    said, wrong = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(wrong):
        code = cli.main(words)
    assert isinstance(code, int), words
    assert "Traceback" not in wrong.getvalue(), words
    if code == 1:
        lines = [line for line in wrong.getvalue().splitlines() if line.startswith("bench: ")]
        assert lines, (words, wrong.getvalue())


@pytest.mark.parametrize(
    "command",
    [
        "run",
        "check",
        "train",
        "reproduce",
        "tables",
        "weights",
        "data",
        "methods",
        "new",
        "compare",
        "export",
        "report",
        "measure",
    ],
)
def test_command_lines(command: str, nothing_runs: None, cases: int) -> None:
    @settings(
        max_examples=max(10, cases // 9), deadline=None, suppress_health_check=QUIET, derandomize=True, database=None
    )
    @given(WORDS)
    def every(words: list[str]) -> None:
        no_traceback([command, *words])

    every()


@pytest.mark.parametrize("word", ["methods=[0]", "methods=[1.5]", "methods=[true]", "methods=[null]", "dataset=[0]"])
def test_a_group_takes_names(word: str, nothing_runs: None) -> None:
    no_traceback(["run", word])


def names_it(path: Path, error: BenchError) -> None:
    assert str(path) in str(error)


def damaged(content: bytes) -> st.SearchStrategy[bytes]:
    """A file cut, with bytes replaced, or anything at all."""

    def replace(places: list[tuple[int, int]]) -> bytes:
        changed = bytearray(content)
        for place, value in places:
            changed[place] = value
        return bytes(changed)

    bits = st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255))
    return st.one_of(
        st.integers(0, len(content)).map(lambda n: content[:n]),
        st.lists(bits, max_size=8).map(replace),
        st.binary(max_size=200),
    )


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
def test_images(kind: str, tmp_path: Path, cases: int) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 12, 3), np.uint8))
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    path = tmp_path / f"image.{kind.lower()}"

    @settings(
        max_examples=max(20, cases // 2), deadline=None, suppress_health_check=QUIET, derandomize=True, database=None
    )
    @given(damaged(buffer.getvalue()))
    def every(content: bytes) -> None:
        path.write_bytes(content)
        try:
            image = read_rgb(path)
        except BenchError as error:
            names_it(path, error)
        else:
            assert image.mode == "RGB"

    every()


@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_weights(kind: str, tmp_path: Path, cases: int) -> None:
    tensors = {"a": torch.arange(6.0).view(2, 3), "b.c": torch.ones(2, dtype=torch.float16)}
    path = tmp_path / f"weights.{kind}"
    save_file(tensors, path) if kind == "safetensors" else torch.save(tensors, path)
    content = path.read_bytes()

    @settings(
        max_examples=max(20, cases // 2), deadline=None, suppress_health_check=QUIET, derandomize=True, database=None
    )
    @given(damaged(content))
    def every(content: bytes) -> None:
        path.write_bytes(content)
        try:
            read_tensors(path)
        except BenchError as error:
            names_it(path, error)

    every()


def test_json(tmp_path: Path, cases: int) -> None:
    path = tmp_path / "facts.json"

    @settings(
        max_examples=max(20, cases // 2), deadline=None, suppress_health_check=QUIET, derandomize=True, database=None
    )
    @given(damaged(b'{"a": [1, 2.5, null], "b": {"c": "d"}}'))
    def every(content: bytes) -> None:
        path.write_bytes(content)
        try:
            read_json(path, dict)
        except BenchError as error:
            names_it(path, error)

    every()

"""`python -m bench new`: what it writes works at once, here and as a package of one's own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import bench.new
from bench.errors import BenchError
from bench.new import KINDS, command, create

ROOT = Path(__file__).parents[2]


def call(*words: str, folder: Path, path: list[Path]) -> str:
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, path)), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this repository with one method, to write into."""
    root = tmp_path_factory.mktemp("checkout")
    for folder in ("bench", "configs"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "methods/__init__.py", "methods/bicubic.py", "tests/conftest.py"):
        (root / file).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / file, root / file)
    return root


def write(*words: str, folder: Path, checkout: Path) -> list[Path]:
    """Run the command in a folder; return the files that it names."""
    code = "import sys; from bench.new import command; sys.exit(command(sys.argv[1:]))"
    printed = call("-c", code, *words, folder=folder, path=[checkout])
    return [folder / line for line in printed.partition("\n\n")[0].splitlines()]


def test_new_plugins_of_every_kind_pass_their_tests(checkout: Path, tmp_path: Path) -> None:
    files = [f for kind in KINDS for f in write(kind, f"my_{kind}", folder=tmp_path, checkout=checkout)]
    assert sorted(str(f.relative_to(checkout)) for f in files) == [
        "bench/data/my_dataset.py",
        "bench/metrics/my_metric.py",
        "bench/operators/my_operator.py",
        "configs/dataset/my_dataset.yaml",
        "configs/methods/my_method.yaml",
        "configs/operator/my_operator.yaml",
        "methods/my_method.py",
        "tests/bench/data/test_my_dataset.py",
        "tests/bench/metrics/test_my_metric.py",
        "tests/bench/operators/test_my_operator.py",
        "tests/methods/test_my_method.py",
    ]
    tests = [str(f) for f in files if f.name.startswith("test_")]
    said = call("-m", "pytest", "-p", "no:cacheprovider", *tests, folder=checkout, path=[checkout])
    assert "....." in said  # none is skipped
    python = [str(f) for f in files if f.suffix == ".py"]
    call("-m", "ruff", "check", "--no-cache", *python, folder=checkout, path=[checkout])
    call("-m", "ruff", "format", "--no-cache", "--check", *python, folder=checkout, path=[checkout])
    code = [f for f in python if not Path(f).name.startswith("test_")]
    call("-m", "mypy", "--follow-imports=silent", "--cache-dir", str(tmp_path / "mypy"), *code,
         folder=checkout, path=[checkout])  # fmt: skip


def test_a_package_of_ones_own_can_be_installed_and_used(tmp_path: Path) -> None:
    package = tmp_path / "packages" / "mine"
    files = create("method", "mine", package)
    assert sorted(str(f.relative_to(package)) for f in files) == [
        "README.md", "mine/__init__.py", "mine/configs/methods/mine.yaml", "mine/method.py", "pyproject.toml",
        "tests/test_mine.py",
    ]  # fmt: skip
    site = tmp_path / "site"
    call("-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", str(site), str(package),
         folder=tmp_path, path=[])  # fmt: skip
    said = call("-m", "pytest", "-p", "no:cacheprovider", "tests", folder=package, path=[site, ROOT])
    assert "2 passed" in said


@pytest.mark.parametrize("kind", KINDS)
def test_packages_of_every_kind_are_complete(kind: str, tmp_path: Path) -> None:
    create(kind, "mine", tmp_path / "mine")
    text = (tmp_path / "mine" / "pyproject.toml").read_text()
    assert f'[project.entry-points."{KINDS[kind].group}"]\nmine = "mine.{kind}"' in text
    readme = (tmp_path / "mine" / "README.md").read_text()
    assert "python -m bench" in readme
    assert not [p for p in (tmp_path / "mine").rglob("*") if p.is_file() and "$" in p.read_text()]


@pytest.mark.parametrize(
    ("kind", "name", "sentence"),
    [
        ("methods", "mine", "There is no kind 'methods'. Did you mean 'method'"),
        ("method", "my-method", "'my-method' cannot be a name: use small letters, digits and _"),
        ("method", "2nd", "'2nd' cannot be a name"),
        ("method", "Mine", "'Mine' cannot be a name"),
        ("method", "../mine", "'../mine' cannot be a name"),
        ("method", "m" * 300, "'mmmmmmmmmmmmmmmmmmmm...' cannot be a name: it has 300 letters, use 50 at most"),
        ("method", "null", "'null' cannot be a name: it is a value in YAML"),
        ("method", "true", "'true' cannot be a name: it is a value in YAML"),
        ("dataset", "none", "'none' cannot be a name: it is a value in YAML"),
        ("method", "lambda", "'lambda' cannot be a name: it is a word of Python"),
        ("method", "noise", "'noise' cannot be a name: it is a word of the suite"),
        ("method", "bicubic", "There is a method 'bicubic' already"),
        ("method", "diffusion", "There is a Python module 'methods.diffusion' already"),
        ("metric", "lpips_alex", "There is a metric 'lpips_alex' already"),
        ("dataset", "images", "There is a Python module 'bench.data.images' already"),
        ("operator", "average", "There is a operator 'average' already"),
    ],
)
def test_names_that_cannot_be_had_are_refused(kind: str, name: str, sentence: str) -> None:
    with pytest.raises(BenchError) as error:
        create(kind, name)
    assert sentence.replace("a operator", "an operator") in str(error.value)


def test_a_package_cannot_hide_another(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="There is a Python module 'json' already"):
        create("method", "json", tmp_path)


@pytest.mark.parametrize("below", ["", "deep/mine"])
def test_a_package_in_the_place_of_a_file(below: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(BenchError, match=f"{file} is a file: give a folder"):
        create("dataset", "d1", file / below)
    assert file.read_text() == "mine"


def test_a_package_without_a_folder() -> None:
    with pytest.raises(BenchError, match="--package has no folder"):
        command(["method", "mine", "--package", ""])


def test_existing_files_are_kept(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(BenchError, match=r"README\.md is there already"):
        create("method", "mine", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["README.md"]


def test_nothing_is_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = bench.new.write_atomic

    def full(path: Path, text: str) -> None:
        if path.suffix == ".yaml":
            path.parent.mkdir(parents=True)
            raise BenchError("the disk is full")
        real(path, text)

    monkeypatch.setattr("bench.new.write_atomic", full)
    with pytest.raises(BenchError, match="the disk is full"):
        create("method", "mine", tmp_path / "deep" / "mine")
    assert list(tmp_path.iterdir()) == []


def test_without_a_checkout_only_a_package_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.new.__file__", str(tmp_path / "bench" / "new.py"))
    with pytest.raises(BenchError, match="is no checkout of the repository: make a package of your own"):
        create("method", "mine")

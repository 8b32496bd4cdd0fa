"""The pool of training images: kept by what the images are, and never validated on."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data import DataFacts, Dataset, Numbered, SplitError, datasets, make_dataset, register_dataset
from bench.data.ffhq256 import Ffhq256
from bench.data.folder import Folder
from bench.data.portraits256 import Portraits256
from bench.data.splits import train_and_val
from bench.errors import BenchError, DiskError, ImageError
from bench.training import data
from bench.training.data import make_splits

SIZE = 32


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def plugins() -> Iterator[None]:
    """Forget the datasets that a test registers."""
    before = dict(datasets._items)
    yield
    datasets._items.clear()
    datasets._items.update(before)


def write_images(folder: Path, count: int, red: int) -> Path:
    """Uniform images: the red channel names the folder, the green one the image."""
    folder.mkdir(parents=True)
    for k in range(count):
        Image.new("RGB", (SIZE, SIZE), (red, k, 0)).save(folder / f"{k:03d}.bmp")
    return folder


def folder_config(path: Path) -> dict[str, object]:
    return {"name": "folder", "path": str(path), "size": SIZE}


def reds(images: np.ndarray) -> set[int]:
    return set(images[:, 0, 0, 0].tolist())


def test_folders_of_one_name_and_length_are_two_pools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, red in (("a", 10), ("b", 20)):
        write_images(tmp_path / place / "photos", 40, red)
        monkeypatch.chdir(tmp_path / place)
        train, val = make_splits(folder_config(Path("photos")), 100, 10)
        assert reds(train.images) == {red}
        assert reds(val.images) == {red}


@pytest.mark.parametrize("keep_date", [False, True])
def test_an_image_that_is_replaced_is_read_anew(tmp_path: Path, keep_date: bool) -> None:
    folder = write_images(tmp_path / "photos", 21, 10)
    first, _ = make_splits(folder_config(folder), 100, 10)
    new, old = tmp_path / "new.bmp", folder / "003.bmp"
    Image.new("RGB", (SIZE, SIZE), (77, 77, 77)).save(new)
    assert new.stat().st_size == old.stat().st_size
    if keep_date:
        os.utime(new, ns=(old.stat().st_atime_ns, old.stat().st_mtime_ns))
    shutil.move(new, old)
    second, _ = make_splits(folder_config(folder), 100, 10)
    assert 77 in reds(second.images)
    assert first.sha256 != second.sha256


def test_a_pool_is_made_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = folder_config(write_images(tmp_path / "photos", 21, 10))
    first = make_splits(config, 100, 10)

    def fail(*arguments: object) -> None:
        raise AssertionError("loaded again")

    monkeypatch.setattr(datasets.get("folder"), "load", fail)
    again = make_splits(config, 100, 10)
    assert [p.sha256 for p in again] == [p.sha256 for p in first]
    assert len(list((cache / "pools").glob("*.npy"))) == 2


def test_a_pool_that_another_process_has_looked_at_has_the_same_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a pool and its seal there may be a second start, which seals it first."""
    config = folder_config(write_images(tmp_path / "photos", 21, 10))
    writing = data.replacing

    @contextmanager
    def looked_at(path: Path) -> Iterator[Path]:
        with writing(path) as temporary:
            yield temporary
        assert data._known(path)

    monkeypatch.setattr(data, "replacing", looked_at)
    first = make_splits(config, 100, 10)
    monkeypatch.undo()
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    assert [p.sha256 for p in first] == [p.sha256 for p in make_splits(config, 100, 10)]
    assert all(len(p.sha256) == 64 for p in first)


def test_processes_that_begin_together_make_a_pool_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = folder_config(write_images(tmp_path / "photos", 21, 10))
    filled: list[int] = []
    fill = data._fill

    def counted(array: np.ndarray, dataset: Dataset) -> None:
        filled.append(len(array))
        time.sleep(0.2)
        fill(array, dataset)

    monkeypatch.setattr(data, "_fill", counted)
    with ThreadPoolExecutor(3) as several:
        found = list(several.map(lambda _: make_splits(config, 100, 10), range(3)))
    assert len(filled) == 2  # train and val
    assert len({tuple(p.sha256 for p in pools) for pools in found}) == 1


def test_a_cache_that_cannot_be_written_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = folder_config(write_images(tmp_path / "photos", 21, 10))
    first = make_splits(config, 100, 10)
    shutil.copytree(tmp_path / "cache", tmp_path / "copy")  # other files than those of the seals

    def refuse(path: Path, content: object) -> None:
        raise DiskError(f"Could not write {path}.")

    monkeypatch.setattr(data, "write_atomic", refuse)
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "copy"))
    assert [p.sha256 for p in first] == [p.sha256 for p in make_splits(config, 100, 10)]


def test_a_pool_that_cannot_be_locked_is_one_sentence(tmp_path: Path, cache: Path) -> None:
    config = folder_config(write_images(tmp_path / "photos", 21, 10))
    make_splits(config, 100, 10)
    pools = sorted((cache / "pools").glob("*.npy"))
    for path in list((cache / "pools").iterdir()):
        path.unlink()
    for path in pools:
        path.with_name(f"{path.name}.lock").mkdir()  # in the way, also of root
    with pytest.raises(DiskError):
        make_splits(config, 100, 10)


@pytest.mark.parametrize("file", ["*.npy", "*.sha256"])
@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "gone"])
def test_a_damaged_pool_is_made_again(file: str, damage: str, tmp_path: Path, cache: Path) -> None:
    config = folder_config(write_images(tmp_path / "photos", 21, 10))
    whole = make_splits(config, 100, 10)
    images = [np.array(pool.images) for pool in whole]
    for path in (cache / "pools").glob(file):
        content = bytearray(path.read_bytes())
        if damage == "flipped":
            content[len(content) // 2] ^= 1
        path.write_bytes(content[: {"empty": 0, "cut": len(content) // 2}.get(damage)])
        if damage == "gone":
            path.unlink()
    again = make_splits(config, 100, 10)
    assert [pool.sha256 for pool in again] == [pool.sha256 for pool in whole]
    assert all(np.array_equal(pool.images, before) for pool, before in zip(again, images, strict=True))


def test_what_could_not_be_used_is_said_at_every_start(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The pool stays as it is, so that a training goes on; without it the images are read again."""
    folder = write_images(tmp_path / "photos", 42, 10)

    def greens(images: np.ndarray) -> set[int]:
        return set(images[:, 0, 0, 1].tolist())

    with monkeypatch.context() as patch:
        real = Folder.load

        def load(self: Folder, index: int) -> np.ndarray:
            if index in (7, 9):
                raise ImageError(f"{self.files[index]} cannot be read.")
            return real(self, index)

        patch.setattr(Folder, "load", load)
        damaged, _ = make_splits(folder_config(folder), 100, 10)
        assert len(greens(damaged.images)) == len(damaged.images) - 2
        capfd.readouterr()
    again, _ = make_splits(folder_config(folder), 100, 10)
    assert again.sha256 == damaged.sha256
    said = capfd.readouterr().err
    assert f"Others stand in for 2 of {len(damaged.images)} training images" in said
    assert "delete it and train in another out=DIR" in said
    for pool in (cache / "pools").glob("*.npy"):
        pool.unlink()
    mended, _ = make_splits(folder_config(folder), 100, 10)
    assert len(greens(mended.images)) == len(mended.images)
    assert not list((cache / "pools").glob("*.stand_ins"))


def test_a_pool_of_an_earlier_version_is_kept_if_it_is_whole(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its hash is noted beside it, but not of which file."""
    config = folder_config(write_images(tmp_path / "photos", 21, 10))
    first = make_splits(config, 100, 10)
    for path in (cache / "pools").glob("*.sha256"):
        path.write_text(path.read_text().split("\n")[0])
    monkeypatch.setattr(datasets.get("folder"), "load", None)
    assert [p.sha256 for p in make_splits(config, 100, 10)] == [p.sha256 for p in first]


def test_another_size_count_or_setting_is_another_pool() -> None:
    def key(size: int, count: int, split: str) -> str:
        return make_dataset({"name": "synthfaces", "size": size, "split": split}).fingerprint(range(count))

    keys = [key(32, 4, "train"), key(40, 4, "train"), key(32, 5, "train"), key(32, 4, "val")]
    assert len(set(keys)) == 4
    assert key(32, 4, "train") == keys[0]


def test_fingerprints_of_a_mixture_follow_its_parts(tmp_path: Path) -> None:
    def key(path: Path, weight: int = 1) -> str:
        parts = {"f": {"name": "folder", "path": str(path), "weight": weight},
                 "s": {"name": "synthfaces", "weight": 1}}  # fmt: skip
        return make_dataset({"name": "mixture", "parts": parts, "size": SIZE}).fingerprint(range(400))

    a, b = write_images(tmp_path / "a" / "photos", 21, 1), write_images(tmp_path / "b" / "photos", 21, 2)
    before = key(a)
    assert before == key(a)
    assert len({before, key(b), key(a, weight=2)}) == 3
    Image.new("RGB", (SIZE, SIZE), (9, 9, 9)).save(a / "001.bmp")
    assert key(a) != before


def test_fingerprint_of_published_portraits_is_that_of_the_published_files(tmp_path: Path) -> None:
    two = [Portraits256(source=str(folder)) for folder in (tmp_path, tmp_path.parent)]
    assert two[0].fingerprint(range(3)) == two[1].fingerprint(range(3))
    assert two[0].fingerprint([0]) != two[0].fingerprint([1])


def test_fingerprint_of_ffhq_is_that_of_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ffhq256, "array", None)
    a, b = tmp_path / "a.npy", tmp_path / "b.npy"
    a.write_bytes(b"1")
    b.write_bytes(b"2")
    assert Ffhq256(str(a)).fingerprint(range(9)) != Ffhq256(str(b)).fingerprint(range(9))
    before = Ffhq256(str(a)).fingerprint(range(9))
    assert Ffhq256(str(a)).fingerprint(range(9)) == before
    assert Ffhq256(str(a), "train").fingerprint(range(9)) != before
    a.write_bytes(b"3")
    assert Ffhq256(str(a)).fingerprint(range(9)) != before


class Plain(Dataset):
    """A plugin that knows nothing of fingerprints; image i is (shade, i, 0)."""

    facts = DataFacts(title="Plain", licence="CC0", how_to_get="built in")
    size = SIZE
    shade = 50

    def __init__(self) -> None:
        self.ids = [f"{k}" for k in range(41)]

    def load(self, index: int) -> np.ndarray:
        return np.full((SIZE, SIZE, 3), (self.shade, int(self.ids[index]), 0), np.uint8)


@pytest.mark.usefixtures("plugins")
def test_a_plugin_is_known_by_its_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    register_dataset("plain")(Plain)
    assert reds(make_splits({"name": "plain"}, 100, 10)[0].images) == {50}
    monkeypatch.setattr(Plain, "shade", 60)
    assert reds(make_splits({"name": "plain"}, 100, 10)[0].images) == {60}


def test_content_tells_pixels_shape_and_type(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Plain()
    assert dataset.content(3) == dataset.content(3) != dataset.content(4)
    contents = set()
    for shape, kind in (((2, 8, 3), np.uint8), ((8, 2, 3), np.uint8), ((2, 8, 3), np.int8)):
        monkeypatch.setattr(dataset, "load", lambda i, shape=shape, kind=kind: np.zeros(shape, kind))
        contents.add(dataset.content(0))
    assert len(contents) == 3


class Same(Plain):
    """A plugin that takes the name of a split and gives the same images for all."""

    def __init__(self, split: str = "train") -> None:
        super().__init__()


class Overlapping(Plain):
    """A plugin whose val split is a part of its train split."""

    def __init__(self, split: str = "train") -> None:
        self.ids = [f"{k}" for k in (range(41) if split == "train" else range(30, 41))]


class Refusing(Plain):
    """A plugin with splits but none for validation."""

    def __init__(self, split: str = "train") -> None:
        if split == "val":
            raise SplitError("no such split")
        super().__init__()


class Real(Plain):
    """A plugin with a val split of its own."""

    def __init__(self, split: str = "train") -> None:
        self.ids = [f"{k}" for k in (range(41) if split == "train" else range(41, 50))]


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize(
    ("cls", "val"),
    [(Plain, [0, 20, 40]), (Same, [0, 20, 40]), (Overlapping, [0, 20, 40]), (Refusing, [0, 20, 40]),
     (Real, list(range(41, 50)))],
)  # fmt: skip
def test_no_plugin_is_validated_on_its_training_images(cls: type[Plain], val: list[int]) -> None:
    register_dataset("plugin")(cls)
    train, held_out = make_splits({"name": "plugin"}, 1000, 1000)
    greens = [set(p.images[:, 0, 0, 1].tolist()) for p in (train, held_out)]
    assert greens[1] == set(val)
    assert greens[0] == set(range(41)) - set(val)


def test_a_folder_holds_one_of_twenty_out(tmp_path: Path) -> None:
    train, val = make_splits(folder_config(write_images(tmp_path / "photos", 41, 1)), 1000, 1000)
    assert set(val.images[:, 0, 0, 1].tolist()) == {0, 20, 40}
    assert len(train.images) == 38


def test_portraits_without_a_val_split_hold_images_out(tmp_path: Path) -> None:
    train, val = train_and_val({"name": "portraits256", "source": str(tmp_path)})
    assert len(train) == 152
    assert len(val) == 8
    assert not set(train.ids) & set(val.ids)
    assert not set(val.ids) & set(Portraits256("test", source=str(tmp_path)).ids)


def test_ffhq_keeps_the_split_of_its_authors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ffhq256, "array", None)
    (tmp_path / "ffhq.npy").touch()
    train, val = train_and_val({"name": "ffhq256", "path": str(tmp_path / "ffhq.npy")})
    assert (len(train), len(val)) == (63000, 6000)


def test_a_million_rendered_images_are_split_by_range() -> None:
    train, val = train_and_val({"name": "synthfaces", "size": SIZE})
    assert (len(train), len(val)) == (1_000_000, 1000)
    assert not any(name in train.ids for name in val.ids)


def test_parts_of_a_mixture_are_not_validated_on_their_training_images(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "photos", 21, 1)
    parts = {"f": {"name": "folder", "path": str(folder), "weight": 1}}
    train, val = train_and_val({"name": "mixture", "parts": parts, "size": SIZE})
    assert {int(train.load(i)[0, 0, 1]) for i in range(300)} == set(range(21)) - {0, 20}
    assert {int(val.load(i)[0, 0, 1]) for i in range(30)} == {0, 20}


def test_one_image_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="folder has 1 images, too few to train on some and validate on others"):
        make_splits(folder_config(write_images(tmp_path / "photos", 1, 1)), 10, 10)


def test_numbered_names() -> None:
    names: Sequence[str] = Numbered("val", 3)
    assert list(names) == ["val-000000", "val-000001", "val-000002"]
    assert names[-1] == "val-000002"
    assert names[1:] == ["val-000001", "val-000002"]
    for known, expected in (("val-000002", True), ("val-000003", False), ("val-2", False), ("train-000001", False)):
        assert (known in names) is expected


def test_a_val_split_that_fails_is_no_missing_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """No network, a missing folder: to hold train images out instead would be another training without a word."""

    class Broken(Plain):
        def __init__(self, split: str = "train") -> None:
            if split == "val":
                raise BenchError("the folder of the val split does not exist")
            super().__init__()

    monkeypatch.setitem(datasets._items, "broken_val", Broken)
    with pytest.raises(BenchError, match="val split does not exist"):
        train_and_val({"name": "broken_val"})

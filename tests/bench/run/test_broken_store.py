"""A run directory that lost a file, or was killed or full between two of them: mended or refused, never mixed."""

from __future__ import annotations

import errno
import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from bench.cli import main
from bench.config import RunConfig
from bench.errors import BenchError, DiskError
from bench.files import disk_errors, read_json, write_atomic
from bench.operators.bicubic import Bicubic
from bench.report.figures import sample_grids
from bench.report.plots import write_plots
from bench.report.tables import write_tables
from bench.run.cell import CellKey
from bench.run.runner import run
from bench.run.samples import SampleFiles
from bench.run.store import RunDir
from tests.bench.run.noisy import Configure, Noisy, cell


def quick(configure: Configure, *overrides: str) -> RunConfig:
    return configure("limit=2", "n=2", *overrides)


# rows of one kind alone


@pytest.mark.parametrize("name", ["images", "samples"])
def test_a_deleted_file_of_rows_is_computed_again_and_never_mixed(configure: Configure, add, name: str) -> None:
    directory, _ = run(add(Noisy, quick(configure, "save_samples=none")))
    whole = cell(directory).read("samples"), cell(directory).read("images")
    (cell(directory).folder / f"{name}.parquet").unlink()
    assert cell(directory).half_done() == {0, 1}
    assert write_tables(directory).startswith("Nothing has been measured")
    with pytest.raises(BenchError, match="seed was 0, is 7"):
        run(add(Noisy, quick(configure, "save_samples=none", "seed=7")))
    directory, complete = run(add(Noisy, quick(configure, "save_samples=none")))
    assert complete
    pd.testing.assert_frame_equal(cell(directory).read("samples"), whole[0])
    pd.testing.assert_frame_equal(cell(directory).read("images"), whole[1])
    assert not cell(directory).half_done()


def test_rows_of_one_kind_are_set_aside_with_the_others(configure: Configure, add) -> None:
    directory, _ = run(add(Noisy, quick(configure)))
    (cell(directory).folder / "images.parquet").unlink()
    directory, complete = run(add(Noisy, quick(configure, "seed=7", "stale=recompute", "limit=1")))
    assert complete
    assert cell(directory).done() == {0}
    assert len(pd.read_parquet(cell(directory).folder / "superseded-1" / "samples.parquet")) == 4


def test_a_part_that_was_not_finished_does_not_count(configure: Configure, add) -> None:
    directory, _ = run(add(Noisy, quick(configure)))
    whole = cell(directory).read("samples")
    parts = cell(directory).parts
    parts.mkdir()
    (cell(directory).folder / "images.parquet").rename(parts / "000000.images.parquet")
    (cell(directory).folder / "samples.parquet").unlink()
    assert cell(directory).done() == set()
    cell(directory).compact()
    assert not list(cell(directory).folder.glob("*.parquet"))  # no frame without columns
    directory, complete = run(add(Noisy, quick(configure)))
    assert complete
    pd.testing.assert_frame_equal(cell(directory).read("samples"), whole)


def test_an_empty_frame_of_an_earlier_version_is_no_rows(configure: Configure, add) -> None:
    directory, _ = run(add(Noisy, quick(configure)))
    pd.DataFrame().to_parquet(cell(directory).folder / "samples.parquet")
    assert cell(directory).done() == set()
    assert run(add(Noisy, quick(configure)))[1]
    assert cell(directory).done() == {0, 1}


def test_a_full_disk_at_any_write_is_mended_by_the_same_command(
    configure: Configure, add, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import bench.files

    whole = cell(run(add(Noisy, quick(configure, f"out={tmp_path / 'whole'}")))[0]).read("samples")
    real = bench.files.os.fsync
    for last in (6, 10, 14, 18):
        config, count = add(Noisy, quick(configure, f"out={tmp_path / str(last)}")), iter(range(10**6))

        def fsync(fd: int, count=count, last=last) -> None:
            if next(count) >= last:
                raise OSError(errno.ENOSPC, "No space left on device")
            real(fd)

        monkeypatch.setattr(bench.files.os, "fsync", fsync)
        with pytest.raises(DiskError, match=r"the disk is full: free some space\. What is done is kept"):
            run(config)  # no failure of the method: the run ends
        monkeypatch.setattr(bench.files.os, "fsync", real)
        directory, complete = run(config)
        assert complete
        pd.testing.assert_frame_equal(cell(directory).read("samples"), whole)


# folders


def test_close_temperatures_have_cells_of_their_own(configure: Configure, add) -> None:
    directory, _ = run(add(Noisy, quick(configure, "limit=1", "tau=[0.12345671,0.12345672]")))
    assert [c.key.tau for c in directory.cells()] == [0.12345671, 0.12345672]


@pytest.mark.parametrize("tau", [None, 0.8, 1.0, 1e-5, 0.1 + 0.2, 0.12345671])
@pytest.mark.parametrize("label", ["a", "a_x8_tau0.5", "a/b_x4 c"])
def test_a_folder_tells_its_key(label: str, tau: float | None) -> None:
    key = CellKey(label, 4, tau)
    assert CellKey.of_folder(key.folder) == key
    assert CellKey.of_folder("notes") is None
    assert CellKey("a", 8, 1.0).folder == "a_x8_tau1"


def test_rows_without_their_record_are_not_dropped(configure: Configure, add) -> None:
    directory, _ = run(add(Noisy, quick(configure), "bicubic"))
    (cell(directory).folder / "cell.json").unlink()
    with pytest.raises(BenchError, match=r"misfit_x8_tau0\.8 holds rows, but nothing tells what they depend on"):
        write_tables(directory)
    with pytest.raises(BenchError, match=r"misfit_x8_tau0\.8 holds rows of something else: nothing tells"):
        run(quick(configure))  # bicubic alone: its table would stand beside them
    assert run(add(Noisy, quick(configure, "stale=recompute"), "bicubic"))[1]
    assert len(directory.cells()) == 2


def test_other_folders_are_left_alone(configure: Configure, add) -> None:
    directory, _ = run(add(Noisy, quick(configure)))
    (cell(directory).folder / "superseded-old").mkdir()
    (directory.path / "cells" / "notes").mkdir()
    (directory.path / "cells" / "notes" / "cell.json").write_text("{}")
    assert run(add(Noisy, quick(configure, "seed=7", "stale=recompute")))[1]
    assert (cell(directory).folder / "superseded-1" / "samples.parquet").is_file()


# records


@pytest.mark.parametrize("name", ["facts", "files"])
def test_a_deleted_record_is_written_again(configure: Configure, add, tmp_path: Path, name: str) -> None:
    weights = tmp_path / "weights"
    weights.write_text("one")

    class Weighted(Noisy):
        def files(self):
            return {"prior": weights}

    directory, _ = run(add(Weighted, quick(configure)))
    path = cell(directory).folder / f"{name}.json"
    path.unlink()
    assert run(add(Weighted, quick(configure)))[1]
    assert path.is_file()
    path.unlink()
    weights.write_text("two")
    with pytest.raises(BenchError, match="the weights 'prior' were"):
        run(add(Weighted, quick(configure)))


@pytest.mark.parametrize(
    ("name", "content", "mend"),
    [
        ("cell.json", '{"version": 1}', "stale=recompute"),
        ("cell.json", "[]", "stale=recompute"),
        ("cell.json", "{", "stale=recompute"),
        ("facts.json", "{}", "writes it again"),
        ("files.json", '{"a": []}', "writes it again"),
        ("files.json", '{"a": [1]}', "writes it again"),
        ("timing.json", '{"seconds": "x"}', "measures again"),
        ("drawn.json", "[1]", "stale=recompute"),
        ("../../perceptual.json", "[]", "delete it"),
        ("../../images.json", "[]", "delete it"),
        ("../../images.json", '{"a": 1}', "delete it"),
        ("../../environment.json", "{}", "delete it"),
    ],
)
def test_a_record_of_another_shape_is_one_sentence(
    configure: Configure, add, image_folder: Path, name: str, content: str, mend: str
) -> None:
    images = ["dataset=folder", f"dataset.path={image_folder}", "dataset.size=64"]
    config = add(Noisy, quick(configure, "metrics=[psnr,perceptual,seconds]", "limit=1", *images))
    directory = RunDir(config.out)
    path = cell(directory).folder / name
    write_atomic(path.resolve(), content)
    if name.startswith("..") or name == "cell.json":
        with pytest.raises(BenchError, match=rf"{path.name} (is not what a run writes|cannot be read).*{mend}"):
            run(config)
        return
    reads = {"facts.json": "facts", "files.json": "files", "timing.json": "timing", "drawn.json": "is_empty"}
    with pytest.raises(BenchError, match=rf"{path.name} is not what a run writes.*{mend}"):
        getattr(cell(directory), reads[path.name])


@pytest.mark.parametrize("content", ["", "metrics: 3", "- 1", "methods: [a]\nmetrics: [psnr]"])
def test_a_configuration_of_another_shape_is_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(BenchError, match=r"config\.yaml is no configuration of a run"):
        write_tables(RunDir(tmp_path))


def test_records_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "any.json"
    content = {"3": ["a", "b"]}
    path.write_text(json.dumps(content))
    assert read_json(path, dict[int, tuple[str, str]]) == content
    path.write_text('{"seconds": NaN}')
    assert np.isnan(read_json(path, dict[str, float])["seconds"])


def test_only_a_disk_with_room_again_lets_the_same_command_go_on(tmp_path: Path) -> None:
    def sentence(code: int) -> str:
        with pytest.raises(DiskError) as caught, disk_errors(tmp_path):
            raise OSError(code, "why")
        return str(caught.value)

    assert sentence(errno.ENOSPC).endswith("free some space. What is done is kept; the same command goes on.")
    assert sentence(errno.EEXIST).endswith("move it away, or choose another out=DIR.")


# pictures and samples


def test_no_old_picture_stands_beside_new_rows(configure: Configure, add) -> None:
    config = add(Noisy, quick(configure, "operator.sigma=0.1"))
    directory, _ = run(config)
    figures = directory.path / "figures"
    sample_grids(directory)
    (figures / "pareto_x8.png").write_bytes(b"")
    assert (figures / "samples_x8.png").is_file()
    old = (directory.image_folder(8, 0) / "lr.png").read_bytes()
    more = ["operator.sigma=0.1", "seed=5", "stale=recompute", "save_samples=none"]
    run(add(Noisy, quick(configure, *more)))
    assert sample_grids(directory) == []
    write_plots(directory)
    assert {p.stem for p in figures.iterdir()} == {"distributions_x8"}
    assert not directory.has_image(8, 0)
    run(add(Noisy, quick(configure, *more[:2], "resample=true", "save_samples=all")))
    assert (directory.image_folder(8, 0) / "lr.png").read_bytes() != old
    assert len(sample_grids(directory)) == 2


def test_a_lost_picture_is_made_again(configure: Configure, add) -> None:
    directory, _ = run(add(Noisy, quick(configure)))
    first = [path.read_bytes() for path in sample_grids(directory)]
    for name in ("lr", "hr"):
        (directory.image_folder(8, 0) / f"{name}.png").unlink()
        with pytest.raises(BenchError, match=rf"{name}\.png is gone: the same run makes it again"):
            sample_grids(directory)
        Noisy.drawn = 0
        assert run(add(Noisy, quick(configure)))[1]
        assert Noisy.drawn == 0
        assert [path.read_bytes() for path in sample_grids(directory)] == first


@pytest.mark.parametrize("side", [32, 64])
@pytest.mark.parametrize("kind", ["png", "npy"])
def test_a_replaced_sample_is_never_taken(configure: Configure, add, kind: str, side: int) -> None:
    settings = [f"quantise={'true' if kind == 'png' else 'false'}"]
    directory, _ = run(add(Noisy, quick(configure, *settings)))
    path = cell(directory).folder / "samples" / f"000001_1.{kind}"
    whole = path.read_bytes()
    if kind == "png":
        Image.fromarray(np.zeros((side, side, 3), np.uint8)).save(path)
    else:
        np.save(path, np.zeros((3, side, side), np.float32))
    with pytest.raises(BenchError, match=rf"{path.name} is damaged \(its pixels are not those that were drawn\)"):
        sample_grids(directory)
    more = [*settings, "metrics=[psnr,ssim]"]
    directory, complete = run(add(Noisy, quick(configure, *more)))
    assert not complete
    assert f"{path.name} is damaged" in directory.failures[0]["reason"]
    path.unlink()
    assert run(add(Noisy, quick(configure, *more, "resample=true")))[1]
    assert path.read_bytes() == whole
    assert cell(directory).read("samples")["ssim"].notna().all()


def test_samples_of_an_earlier_version_are_checked_by_their_size(tmp_path: Path) -> None:
    operator = Bicubic(64, 8)
    files = SampleFiles(tmp_path / "samples")
    files.write(0, torch.rand(2, 3, 64, 64), operator, rounded=True)
    for path in files.hashes_of([0]):
        path.unlink()
    assert files.read(0, 2, operator).shape == (2, 3, 64, 64)
    Image.new("RGB", (32, 32)).save(tmp_path / "samples" / "000000_1.png")
    with pytest.raises(BenchError, match=r"000000_1\.png is damaged \(it has 32x32 pixels, not 64x64\)"):
        files.read(0, 2, operator)


def test_written_samples_have_their_hashes(tmp_path: Path) -> None:
    files = SampleFiles(tmp_path / "samples")
    x = torch.rand(2, 3, 64, 64)
    files.write(3, x, Bicubic(64, 8), rounded=False)
    (hashes,) = files.hashes_of([1, 3])
    assert json.loads(hashes.read_text()) == [
        hashlib.sha256(b"(3, 64, 64) <f4" + s.numpy().tobytes()).hexdigest() for s in x
    ]


# what is said


def test_where_nothing_was_measured_no_tables_are_promised(
    configure: Configure, tmp_path: Path, image_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in image_folder.iterdir():
        path.write_bytes(b"broken")
    words = ["run", "methods=[bicubic]", "dataset=folder", f"dataset.path={image_folder}", "limit=1", "scale=8"]
    assert main([*words, "metrics=[psnr]", "device=cpu", f"out={tmp_path / 'run'}"]) == 1
    out = capsys.readouterr().out
    assert "Nothing has been measured" in out
    assert "Tables and figures" not in out


def test_tables_say_what_they_leave_out(configure: Configure, capsys: pytest.CaptureFixture[str]) -> None:
    directory, _ = run(quick(configure, "methods=[bicubic]"))
    (directory.path / "cells" / "bicubic_x8" / "images.parquet").unlink()
    assert main(["tables", str(directory.path)]) == 0
    assert "bicubic_x8: 2 images have rows of one kind alone, which the same run" in capsys.readouterr().err

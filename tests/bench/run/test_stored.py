"""Rows and samples are never mixed: they belong to the settings, weights, version and images that made them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from bench.config import MethodConfig, RunConfig
from bench.contract import Facts, methods, register_method
from bench.data import DataFacts, Dataset, datasets, register_dataset
from bench.errors import BenchError
from bench.files import file_identity, sha256
from bench.metrics.distortion import Ssim
from bench.network import NetworkMethod
from bench.operators.bicubic import enlarge
from bench.report.tables import write_tables
from bench.run.cell import Cell, CellKey
from bench.run.runner import run
from bench.run.store import RunDir
from bench.weights import find_weights
from tests.bench.run.noisy import KEY, Configure, Noisy, cell


def table(directory: RunDir) -> pd.DataFrame:
    write_tables(directory)
    return pd.read_csv(directory.path / "table.csv")


# weights, settings, versions


def test_a_source_that_changed_is_said(
    configure: Configure, add, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(add(Noisy, configure("limit=1")))
    run(add(Noisy, configure("limit=2")))
    assert "The source of" not in capsys.readouterr().err
    edited = {"noisy.py": "1" * 64, "distortion.py": "2" * 64, "bicubic.py": "3" * 64}
    monkeypatch.setattr("bench.run.sources.sha256", lambda path: edited.get(path.name, sha256(path)))
    for _ in range(2):  # as long as the old rows are there
        run(add(Noisy, configure("limit=2")))
        said = capsys.readouterr().err
        assert "The source of method misfit and operator bicubic and metric psnr has changed since the first" in said
        assert "use another out=DIR, or raise the method's version" in said

    class Raised(Noisy):
        facts = Facts(title="Noisy", version=2)

    methods._items.pop("misfit")
    for _ in range(2):
        run(add(Raised, configure("limit=1", "stale=recompute")))
        assert "The source of" not in capsys.readouterr().err


@pytest.fixture
def weighted(tmp_path: Path) -> type[Noisy]:
    """A method that loads two files of one name from two folders."""
    for role in ("prior", "encoder"):
        (tmp_path / role).mkdir()
        (tmp_path / role / "weights.safetensors").write_text(role)

    class Weighted(Noisy):
        def files(self):
            return {role: tmp_path / role / "weights.safetensors" for role in ("prior", "encoder")}

    return Weighted


@pytest.mark.parametrize("role", ["prior", "encoder"])
@pytest.mark.parametrize("limit", [1, 2])
def test_weights_are_known_by_role_and_content(configure: Configure, add, weighted, tmp_path, role, limit) -> None:
    run(add(weighted, configure("limit=1")))
    (tmp_path / role / "weights.safetensors").write_text("retrained")
    with pytest.raises(BenchError, match=f"the weights '{role}' were .*, are .*: add stale=recompute"):
        run(add(weighted, configure(f"limit={limit}")))  # 1: finished, nothing to sample
    assert Noisy.drawn == 0


@pytest.mark.parametrize("limit", [1, 2])
def test_a_relative_path_is_followed_from_where_one_is(
    configure: Configure, add, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    class Named(Noisy):
        def __init__(self, weights: str = "") -> None:
            self.weights = weights

        def files(self):
            return {"network": Path(self.weights)}

    def of(words: str) -> RunConfig:
        entries = (MethodConfig("misfit", "misfit", {"weights": "network.safetensors"}),)
        return add(Named, configure(words)).model_copy(update={"methods": entries})

    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "network.safetensors").write_text(folder)
    monkeypatch.chdir(tmp_path / "one")
    run(of("limit=1"))
    run(of("limit=1"))
    monkeypatch.chdir(tmp_path / "two")
    with pytest.raises(BenchError, match="the weights 'network' were"):
        run(of(f"limit={limit}"))


def test_finished_rows_stay_where_their_method_cannot_be_loaded(
    configure: Configure, add, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    class Absent(Noisy):
        def prepare(self, *args, **kwargs):
            if not file.is_file():
                raise BenchError("network.safetensors is not there.")
            return super().prepare(*args, **kwargs)

        def files(self):
            return {"network": file}

    file = tmp_path / "network.safetensors"
    file.write_text("network")
    run(add(Absent, configure("limit=1")))
    file.unlink()
    assert run(add(Absent, configure("limit=1")))[1]
    assert "cannot be loaded here, so that its finished rows stay" in capsys.readouterr().err
    file.write_text("another")
    with pytest.raises(BenchError, match="the weights 'network' were"):
        run(add(Absent, configure("limit=1")))


def test_a_file_here_goes_before_one_that_comes_with_the_method(
    configure: Configure, add, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Named(Noisy):
        def __init__(self, weights: str = "") -> None:
            self.weights = weights

        def files(self):
            return {"network": find_weights(self.weights, tmp_path / "shipped")}

    entries = (MethodConfig("misfit", "misfit", {"weights": "network.safetensors"}),)
    for folder in ("shipped", "here"):
        (tmp_path / folder).mkdir()
    (tmp_path / "shipped" / "network.safetensors").write_text("shipped")
    monkeypatch.chdir(tmp_path / "here")
    run(add(Named, configure("limit=1")).model_copy(update={"methods": entries}))
    (tmp_path / "here" / "network.safetensors").write_text("here")
    with pytest.raises(BenchError, match="the weights 'network' were"):
        run(add(Named, configure("limit=1")).model_copy(update={"methods": entries}))


def test_a_link_to_other_weights_is_seen(configure: Configure, add, weighted, tmp_path: Path) -> None:
    file = tmp_path / "prior" / "weights.safetensors"
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    file.unlink()
    file.symlink_to(tmp_path / "one")
    run(add(weighted, configure("limit=1")))
    file.unlink()
    file.symlink_to(tmp_path / "two")
    with pytest.raises(BenchError, match="the weights 'prior' were"):
        run(add(weighted, configure("limit=1")))


def test_weights_of_this_installation_count(configure: Configure, tmp_path: Path) -> None:
    """Of a run that another installation made, which is still there and had other weights."""
    words = ("methods=[hcflow]", "scale=8", "limit=1", "n=1")
    directory, _ = run(configure(*words))
    folder = directory.cell(CellKey("hcflow", 8, 0.8)).folder
    other = tmp_path / "old" / "methods" / "hcflow" / "shipped" / "flow64_x8.safetensors"
    other.parent.mkdir(parents=True)
    other.write_text("of an earlier version")
    record = json.loads((folder / "cell.json").read_text())
    (role,) = record["weights"]
    (folder / "files.json").write_text(json.dumps({role: [str(other), *file_identity(other)[1:]]}))
    (folder / "cell.json").write_text(json.dumps(record | {"weights": {role: sha256(other)}}))
    with pytest.raises(BenchError, match=f"the weights '{role}' were"):
        run(configure(*words))
    run(configure(*words, "stale=recompute"))
    assert json.loads((folder / "cell.json").read_text())["weights"] == record["weights"]
    assert (folder / "superseded-1").is_dir()


def test_the_same_weights_in_another_file_are_the_same(configure: Configure, add, weighted, tmp_path) -> None:
    run(add(weighted, configure("limit=1")))
    file = tmp_path / "prior" / "weights.safetensors"
    file.unlink()
    file.write_text("prior")
    assert run(add(weighted, configure("limit=2")))[1]


def test_recomputing_sets_the_old_rows_aside(configure: Configure, add, weighted, tmp_path) -> None:
    directory, _ = run(add(weighted, configure("limit=2")))
    old = cell(directory).read("samples")
    (tmp_path / "prior" / "weights.safetensors").write_text("retrained")
    weighted.drawn = 0
    directory, complete = run(add(weighted, configure("limit=1", "stale=recompute")))
    assert complete
    assert weighted.drawn == 5
    assert cell(directory).done() == {0}
    aside = Cell(cell(directory).folder / "superseded-1", KEY)
    pd.testing.assert_frame_equal(aside.read("samples"), old)
    assert aside.samples.count(1) == 5
    assert aside.identity is not None
    assert aside.identity["weights"]["prior"] != cell(directory).identity["weights"]["prior"]
    assert run(add(weighted, configure("limit=1")))[1]  # the new rows are those of now


def test_another_version_of_a_method_is_refused(configure: Configure, add) -> None:
    run(add(Noisy, configure("limit=1")))

    class Mended(Noisy):
        facts = Facts(title="Noisy", version=2)

    methods._items.pop("misfit")
    with pytest.raises(BenchError, match="the method was version 1, is 2"):
        run(add(Mended, configure("limit=1")))


def test_a_cell_without_rows_may_change(configure: Configure, add) -> None:
    class Broken(Noisy):
        facts = Facts(title="Noisy", version=2)

        def draw(self, y, n, tau, noise):
            raise ValueError("no such luck")

    run(add(Broken, configure("limit=1")))
    methods._items.pop("misfit")
    directory, complete = run(add(Noisy, configure("limit=1")))
    assert complete
    assert cell(directory).identity["version"] == 1


def test_settings_at_any_depth_are_named(configure: Configure) -> None:
    run(configure("limit=1"))
    with pytest.raises(BenchError, match=r"operator\.sigma was 0\.0, is 0\.1"):
        run(configure("limit=1", "operator.sigma=0.1"))
    with pytest.raises(BenchError, match=r"dataset\.split was test, is val"):
        run(configure("limit=1", "dataset.split=val"))


def test_rows_of_methods_left_out_now_must_fit_too(configure: Configure, add) -> None:
    run(configure("limit=1"))
    with pytest.raises(BenchError, match=r"bicubic_x8 holds rows of something else: n was 5, is 2"):
        run(add(Noisy, configure("limit=1", "n=2")))
    directory, _ = run(add(Noisy, configure("limit=1", "n=2", "stale=recompute")))
    assert table(directory)["method"].tolist() == ["misfit"]


def test_everything_is_claimed_before_anything_is_sampled(configure: Configure, add, weighted, tmp_path) -> None:
    register_method("second")(weighted)
    try:
        entry = MethodConfig("second", "second", {})
        run(configure("limit=1").model_copy(update={"methods": (entry,)}))
        (tmp_path / "prior" / "weights.safetensors").write_text("retrained")
        weighted.drawn = 0
        config = add(Noisy, configure("limit=1"))
        with pytest.raises(BenchError, match="the weights 'prior' were"):
            run(config.model_copy(update={"methods": (*config.methods, entry)}))
        assert Noisy.drawn == weighted.drawn == 0
        assert not cell(RunDir(config.out)).folder.exists()
    finally:
        methods._items.pop("second")


# options of computing


class Networked(NetworkMethod):
    facts = Facts(title="Networked")
    rows_seen: ClassVar[list[int]] = []

    def draw(self, y, n, tau, noise):
        self.rows_seen.append(self.rows)
        return enlarge(y, self.operator.size)[:, None].repeat(1, n, 1, 1, 1).clamp(0, 1)


def networked(config: RunConfig, add, **compute) -> RunConfig:
    config = add(Networked, config)
    return config.model_copy(update={"methods": (MethodConfig("misfit", "misfit", {"compute": compute}),)})


def test_options_of_computing_are_recorded_but_no_identity(configure: Configure, add) -> None:
    config = configure("limit=1", "metrics=[psnr,seconds]")
    directory, _ = run(networked(config, add, precision="32"))
    first = cell(directory).timing
    directory, complete = run(networked(config, add, precision="bf16"))
    assert complete
    assert first["compute"] == {"precision": "32"}
    assert cell(directory).timing["compute"] == {"precision": "bf16"}  # times are of the options of now
    starts = json.loads((directory.path / "environment.json").read_text())
    assert [s["compute"]["misfit"] for s in starts] == [{"precision": "32"}, {"precision": "bf16"}]
    assert all(s["threads"] == s["launch"]["threads"] == torch.get_num_threads() for s in starts)


def test_rows_together_are_chosen_once_and_kept(configure: Configure, add, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = []
    monkeypatch.setattr("bench.run.loaded.choose_rows", lambda *a: chosen.append(a[-1]) or 3)
    Networked.rows_seen.clear()
    run(networked(configure("limit=1", "batch=2"), add, rows="auto"))
    run(networked(configure("limit=2", "batch=2"), add, rows="auto"))
    assert chosen == [10]  # the largest draw: two images, five samples
    assert set(Networked.rows_seen) == {3}
    run(networked(configure("limit=3"), add, rows=7))
    assert Networked.rows_seen[-1] == 7


def test_threads_and_batch_are_recorded(configure: Configure) -> None:
    directory, _ = run(configure("batch=2", "launch.cpus=1"))
    record = json.loads((directory.path / "environment.json").read_text())[0]
    assert (record["launch"], record["batch"]) == ({"name": "local", "workers": None, "threads": 1}, 2)


# images


def folder(configure: Configure, path: Path, *overrides: str) -> RunConfig:
    return configure("dataset=folder", f"dataset.path={path}", "dataset.size=64", *overrides)


def test_a_replaced_image_is_refused_by_name(configure: Configure, add, image_folder: Path) -> None:
    run(add(Noisy, folder(configure, image_folder)))
    Image.new("RGB", (80, 80)).save(image_folder / "1.png")
    Noisy.drawn = 0
    with pytest.raises(BenchError, match=r"holds rows of another image: 1\.png is no longer what it was"):
        run(add(Noisy, folder(configure, image_folder)))
    assert Noisy.drawn == 0
    directory, complete = run(add(Noisy, folder(configure, image_folder, "stale=recompute")))
    assert complete
    assert Noisy.drawn == 5  # of the one image
    frame = cell(directory).read("samples")
    assert frame["image"].unique().tolist() == ["0.png", "1.png", "2.png"]
    assert frame["image"].value_counts().tolist() == [5, 5, 5]
    aside = Cell(cell(directory).folder / "superseded-1", KEY)
    assert aside.done() == {1}
    assert aside.samples.count(1) == 5
    assert run(add(Noisy, folder(configure, image_folder)))[1]


def test_a_file_that_is_written_again_with_the_same_pixels_is_the_same(configure: Configure, image_folder) -> None:
    run(folder(configure, image_folder))
    picture = Image.open(image_folder / "1.png").copy()
    (image_folder / "1.png").unlink()
    picture.save(image_folder / "1.png", compress_level=1)
    assert run(folder(configure, image_folder))[1]


def test_an_image_that_moves_the_others_is_noticed(configure: Configure, image_folder: Path) -> None:
    run(folder(configure, image_folder))
    Image.new("RGB", (80, 80)).save(image_folder / "00.png")
    with pytest.raises(BenchError, match=r"1\.png \(and 1 more\) is no longer what it was"):
        run(folder(configure, image_folder))


def test_an_image_replaced_during_the_run_fails_alone(configure: Configure, add, image_folder: Path) -> None:
    class Replacing(Noisy):
        def draw(self, y, n, tau, noise):
            if noise.ids[0] == "0.png" and tau == 0.5:
                Image.new("RGB", (80, 80)).save(image_folder / "1.png")
            return super().draw(y, n, tau, noise)

    directory, complete = run(add(Replacing, folder(configure, image_folder, "tau=[0.8,0.5]")))
    assert not complete
    assert [f["image"] for f in directory.failures] == ["1.png"]
    assert "replaced while the run went on" in directory.failures[0]["reason"]
    assert directory.cell(CellKey("misfit", 8, 0.5)).done() == {0, 2}


def test_unchanged_files_are_not_read_again(configure: Configure, image_folder, monkeypatch) -> None:
    from bench.data.folder import Folder

    run(folder(configure, image_folder))
    monkeypatch.setattr(Folder, "load", lambda *a: pytest.fail("read again"))
    assert run(folder(configure, image_folder))[1]


def test_a_range_of_images_keeps_their_numbers(configure: Configure, add, tmp_path: Path) -> None:
    whole, _ = run(add(Noisy, configure("limit=5")))
    some, _ = run(add(Noisy, configure("limit=null", "images=2:4", f"out={tmp_path / 'some'}")))
    rows = cell(whole).read("samples")
    pd.testing.assert_frame_equal(cell(some).read("samples"), rows[rows["index"].isin([2, 3])].reset_index(drop=True))
    more, _ = run(add(Noisy, configure("limit=1", "images='3:'", f"out={tmp_path / 'more'}")))
    assert cell(more).done() == {3}
    with pytest.raises(BenchError, match=r"images=2000:2001 holds none of the 1000 images"):
        run(configure("images=2000:2001"))


# samples, and metrics that come later


def test_samples_are_kept_without_loss(configure: Configure, add, tmp_path: Path) -> None:
    for name, more in (("png", []), ("npy", ["quantise=false"])):
        directory, _ = run(add(Noisy, configure("limit=1", f"out={tmp_path / name}", *more)))
        assert len(list((cell(directory).folder / "samples").glob(f"*.{name}"))) == 5
        fresh, _ = run(add(Noisy, configure("limit=1", "metrics=[psnr,ssim]", f"out={tmp_path / name}-2", *more)))
        Noisy.drawn = 0
        later, complete = run(add(Noisy, configure("limit=1", "metrics=[psnr,ssim]", f"out={tmp_path / name}", *more)))
        assert complete
        assert Noisy.drawn == 0
        pd.testing.assert_frame_equal(cell(fresh).read("samples"), cell(later).read("samples"), check_like=True)


def test_a_metric_can_be_added_twice_and_to_some_images(configure: Configure, add) -> None:
    run(add(Noisy, configure("limit=2")))
    run(add(Noisy, configure("limit=2", "metrics=[psnr,apd_mse]")))
    directory, _ = run(add(Noisy, configure("limit=4", "metrics=[psnr,apd_mse,ssim]")))
    frame = cell(directory).read("samples")
    assert len(frame) == 20
    assert frame[["psnr", "ssim"]].notna().all(axis=None)
    assert cell(directory).read("images")["apd_mse"].notna().all()
    assert set(frame["metrics"]) == {"apd_mse psnr ssim"}


def test_a_metric_without_samples_is_refused_or_drawn_again(configure: Configure, add) -> None:
    run(add(Noisy, configure("save_samples=none")))
    with pytest.raises(BenchError, match=r"ssim cannot be added to .*: the samples of 3 images are not kept; add"):
        run(add(Noisy, configure("save_samples=none", "metrics=[psnr,ssim]")))
    directory, complete = run(add(Noisy, configure("save_samples=none", "metrics=[psnr,ssim]", "resample=true")))
    assert complete
    assert cell(directory).read("samples")["ssim"].notna().all()


def test_samples_are_kept_while_they_fit_the_budget(configure: Configure, add) -> None:
    one = 5 * 64 * 64 * 3
    directory, _ = run(add(Noisy, configure("batch=2", f"save_budget={2 * one + 1}")))
    assert [cell(directory).samples.count(i) for i in range(3)] == [5, 5, 0]
    kept = sum(p.stat().st_size for p in (cell(directory).folder / "samples").iterdir())
    assert kept <= 2 * one


def test_perceptual_auto_stays_what_it_was(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    directory, _ = run(configure("metrics=[psnr,perceptual]", "limit=1"))
    assert "stlpips_alex" in table(directory)
    monkeypatch.setattr("bench.metrics.perceptual.lpips_weights_missing", lambda backbone: None)
    directory, complete = run(configure("metrics=[psnr,perceptual]", "limit=1"))
    assert complete
    assert "lpips_alex" not in table(directory)


# metrics that fail


def test_a_metric_that_fails_costs_its_value_only_and_is_tried_again(configure: Configure, add, monkeypatch) -> None:
    real = Ssim.__call__

    def moody(self, e):
        if (e.hr - hr).abs().amax((1, 2, 3)).min() == 0:
            raise RuntimeError("no such luck")
        return real(self, e)

    from bench.data import make_dataset

    config = configure("batch=3", "metrics=[psnr,ssim]")
    hr = torch.from_numpy(make_dataset(config.dataset).load(1)).permute(2, 0, 1).float() / 255
    monkeypatch.setattr(Ssim, "__call__", moody)
    directory, complete = run(add(Noisy, config))
    assert not complete
    assert [(f["image"], f["reason"]) for f in directory.failures] == [
        ("test-000001", "ssim failed: RuntimeError: no such luck")
    ]
    frame = cell(directory).read("samples")
    assert frame["psnr"].notna().all()
    assert set(frame[frame["ssim"].isna()]["index"]) == {1}
    assert not run(add(Noisy, config))[1]  # it still fails, and the second start says so too
    monkeypatch.setattr(Ssim, "__call__", real)
    Noisy.drawn = 0
    directory, complete = run(add(Noisy, config))
    assert complete
    assert Noisy.drawn == 0
    assert cell(directory).read("samples")["ssim"].notna().all()


def test_a_failed_metric_without_samples_stays_a_failure(configure: Configure, add, monkeypatch) -> None:
    real = Ssim.__call__
    config = configure("limit=1", "metrics=[psnr,ssim]", "save_samples=none")
    monkeypatch.setattr(Ssim, "__call__", lambda self, e: 1 / 0)
    run(add(Noisy, config))
    monkeypatch.setattr(Ssim, "__call__", real)
    directory, complete = run(add(Noisy, config))
    assert not complete
    assert "ssim failed in an earlier start" in directory.failures[0]["reason"]


def test_images_too_small_for_a_metric_cost_that_metric_alone(
    configure: Configure, image_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configure(
        "dataset=folder", f"dataset.path={image_folder}", "dataset.size=8", "scale=4", "metrics=[psnr,ssim]"
    )
    directory, complete = run(config)
    assert complete
    said = capsys.readouterr().err
    assert said.index("ssim is n/a for images of 8x8 pixels") < said.index("bicubic_x4")
    frame = table(directory)
    assert frame["psnr"].notna().all()
    assert frame["ssim"].isna().all()
    row = (directory.path / "table.md").read_text().splitlines()[2]
    assert [c.strip() for c in row.strip("|").split("|")][-1] == "n/a"
    assert "& n/a" in (directory.path / "table.tex").read_text()


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_bad_value_fails_its_image_only(configure: Configure, add, value: float) -> None:
    class Bad(Noisy):
        def draw(self, y, n, tau, noise):
            x = super().draw(y, n, tau, noise)
            if "test-000001" in noise.ids:
                x[noise.ids.index("test-000001"), 0, 0, 0, 0] = value
            return x

    directory, complete = run(add(Bad, configure("batch=3")))
    assert not complete
    assert cell(directory).done() == {0, 2}
    assert [f["image"] for f in directory.failures] == ["test-000001"]


def test_a_bad_value_does_not_hide_that_another_image_is_out_of_range(configure: Configure, add) -> None:
    class Worse(Noisy):
        def draw(self, y, n, tau, noise):
            x = super().draw(y, n, tau, noise)
            x[0, 0, 0, 0, 0] = torch.nan
            x[1, 0, 0, 0, 0] = 7
            return x

    directory, _ = run(add(Worse, configure("batch=3")))
    assert "returned values from" in directory.failures[0]["reason"]
    assert not cell(directory).done()


# images that are no photographs


def test_without_a_range_nothing_is_clipped(configure: Configure, add) -> None:
    @register_dataset("waves")
    class Waves(Dataset):
        facts = DataFacts(title="Waves", licence="CC0", how_to_get="built in", default_limit=3)
        size, ids, range = 64, ("a", "b", "c"), None

        def __init__(self) -> None:
            pass

        def load(self, index: int) -> np.ndarray:
            x = np.linspace(-3, 3 + index, 64)
            return np.repeat(np.add.outer(x, x)[..., None], 3, 2)

    class Free(Noisy):
        def draw(self, y, n, tau, noise):
            return enlarge(y, self.operator.size)[:, None] + 0.1 * noise.normal(3, *self.operator.size)

    try:
        config = add(Free, configure("metrics=[psnr,ssim]")).model_copy(update={"dataset": {"name": "waves"}})
        directory, complete = run(config)
        assert complete
        frame = table(directory)
        assert frame["ssim"].isna().all()
        kept = cell(directory).samples.read(0, 5, config_operator(config))
        x = np.linspace(-3, 3, 64)
        hr = np.repeat(np.add.outer(x, x)[None], 3, 0)
        expected = [10 * np.log10(1 / np.mean((s.double().numpy() - hr) ** 2)) for s in kept]
        np.testing.assert_allclose(cell(directory).read("samples")["psnr"][:5], expected, atol=1e-3)
        assert float(kept.min()) < -3
    finally:
        datasets._items.pop("waves")


def config_operator(config: RunConfig):
    from bench.data import make_dataset
    from bench.run.selection import dataset_operator

    return dataset_operator(config, make_dataset(config.dataset), 8)


# names and files


def test_any_label_can_be_a_folder(configure: Configure, add) -> None:
    odd = r"a/b|c_$x$ 50%"
    config = add(Noisy, configure("limit=1")).model_copy(update={"methods": (MethodConfig(odd, "misfit", {}),)})
    directory, complete = run(config)
    assert complete
    assert [c.key.label for c in directory.cells()] == [odd]
    assert table(directory)["method"].tolist() == [odd]
    assert r"a/b\|c" in (directory.path / "table.md").read_text()
    assert r"a/b|c\_\$x\$ 50\%" in (directory.path / "table.tex").read_text()


@pytest.mark.parametrize("name", ["samples.parquet", "images.parquet"])
def test_a_damaged_file_is_named(configure: Configure, name: str) -> None:
    directory, _ = run(configure("limit=1"))
    path = directory.path / "cells" / "bicubic_x8" / name
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BenchError, match=rf"bicubic_x8/{name} is damaged"):
        write_tables(directory)


def test_old_directories_are_refused(configure: Configure, tmp_path: Path) -> None:
    directory, _ = run(configure("limit=1"))
    path = directory.path / "cells" / "bicubic_x8" / "cell.json"
    old = {k: v for k, v in json.loads(path.read_text()).items() if k not in ("version", "weights")}
    path.write_text(json.dumps(old))
    with pytest.raises(BenchError, match="made by an earlier version"):
        run(configure("limit=1"))


def test_lr_psnr_exact_needs_samples_that_are_not_kept(configure: Configure, tmp_path: Path) -> None:
    """It is of what the method returned: it is computed while sampling, or after sampling again."""
    more = ["metrics=[psnr,lr_psnr,lr_psnr_exact]", "methods=[cvdvae]", "limit=2", "n=2"]
    more += ["methods.cvdvae.compute.rows=2"]  # `auto` measures, and may choose another for each directory
    together, complete = run(configure(*more, f"out={tmp_path / 'together'}"))
    assert complete
    key = CellKey("cvdvae", 8, 0.8)
    rows = together.cell(key).read("samples")
    assert (rows["lr_psnr_exact"] > rows["lr_psnr"]).all()
    first = [*more, "metrics=[psnr,lr_psnr]", f"out={tmp_path / 'later'}"]
    run(configure(*first))
    later = [*first, "metrics=[psnr,lr_psnr,lr_psnr_exact]"]
    with pytest.raises(BenchError, match="not kept as the method returned them"):
        run(configure(*later))
    directory, complete = run(configure(*later, "resample=true"))
    assert complete
    pd.testing.assert_frame_equal(directory.cell(key).read("samples"), rows, check_like=True)


@pytest.mark.parametrize("name", ["mask.png", "mask"])
def test_a_mask_that_is_another_one_is_not_mixed_in(name: str, configure: Configure, tmp_path: Path) -> None:
    mask = np.full((64, 64), 255, np.uint8)
    mask[:20] = 0
    path = tmp_path / name
    Image.fromarray(mask).save(path, format="PNG")
    words = ("methods=[bicubic]", "limit=1", "operator=inpainting", f"operator.mask={path}", "metrics=[psnr]")
    run(configure(*words))
    run(configure(*words, "limit=2"))
    Image.fromarray(255 - mask).save(path, format="PNG")
    with pytest.raises(BenchError, match=r"operator\.mask \(content\) was"):
        run(configure(*words, "limit=3"))

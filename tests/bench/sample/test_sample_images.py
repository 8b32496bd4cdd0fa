"""`python -m bench sample`: one's own images, and what is said where they do not fit."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from bench import load_method
from bench.cli import main
from bench.contract import Facts, Method, Noise, methods, register_method
from bench.operators import to_uint8
from bench.operators.bicubic import Bicubic, enlarge
from bench.sample.fitting import places

FACE = skimage.data.astronaut()[30:158, 170:298]


def save(path: Path, side: int, height: int | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(FACE).resize((side, height or side), Image.Resampling.BOX).save(path)
    return path


def pixels(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


def sample(*words: object, code: int = 0) -> None:
    assert main(["sample", *map(str, words), "device=cpu"]) == code


@pytest.fixture
def grainy(tmp_path: Path):
    """A method of any size with a temperature, as `bench sample grainy`, which counts its calls."""

    class Grainy(Method):
        facts = Facts(title="Grainy & co", scales=(2, 4))
        calls = 0

        def draw(self, y, n, tau, noise):
            type(self).calls += 1
            grain = 0.1 * tau * noise.normal(3, *self.operator.size)
            return self.operator.clip(enlarge(y, self.operator.size)[:, None] + grain)

    register_method("grainy")(Grainy)
    (tmp_path / "own" / "methods").mkdir(parents=True)
    (tmp_path / "own" / "methods" / "grainy.yaml").write_text("# @package methods.grainy\n{}\n")
    yield Grainy
    methods._items.pop("grainy")


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.pictures: list[dict[str, str | None]] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.pictures.append(dict(attrs))
        if tag == "a":
            self.links.append(dict(attrs)["href"])
        assert tag not in ("script", "link", "iframe")


def test_samples_are_those_of_python(tmp_path: Path) -> None:
    face = save(tmp_path / "face16.png", 16)
    sample("cvdvae", face, "n=2", "tau=0.8", "seed=3", f"out={tmp_path / 'out'}")
    y = torch.from_numpy(pixels(face)).permute(2, 0, 1)[None].float() / 255
    x = load_method("cvdvae", 4, device="cpu").sample(y, 2, 0.8, Noise.of_content(y, 2, seed=3))[0]
    folder = tmp_path / "out" / "face16"
    for j in range(2):
        assert (pixels(folder / f"sample{j}.png") == to_uint8(x[j]).permute(1, 2, 0).numpy()).all()
    assert (pixels(folder / "mean.png") == to_uint8(x.mean(0)).permute(1, 2, 0).numpy()).all()
    assert (pixels(folder / "lr.png") == pixels(face)).all()
    record = json.loads((folder / "done.json").read_text())
    assert record["deviation"] == pytest.approx(float(x.var(0).mean(0).sqrt().mean()), rel=1e-5)
    page = Page((tmp_path / "out" / "index.html").read_text())
    assert [p["alt"] for p in page.pictures] == [
        f"{name} of face16.png" for name in ("input", "sample 0", "sample 1", "mean", "standard deviation")
    ]
    assert all(p["src"].startswith("data:image/png;base64,") for p in page.pictures)
    assert all((tmp_path / "out" / link).is_file() for link in page.links)


@pytest.mark.parametrize("side", [8, 16])
def test_the_scale_follows_from_the_size(side: int, tmp_path: Path) -> None:
    sample("cvdvae", save(tmp_path / "face.png", side), "n=1", f"out={tmp_path / 'out'}")
    assert json.loads((tmp_path / "out/face/done.json").read_text())["scale"] == 64 // side
    assert pixels(tmp_path / "out/face/sample0.png").shape == (64, 64, 3)
    assert not (tmp_path / "out/face/deviation.png").exists()


def test_a_folder_is_gone_through_and_goes_on(grainy, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    photos = tmp_path / "photos"
    for name in ("a.png", "a.jpg", "b <i>/it's [x]=1.png", "last.png"):
        save(photos / name, 12, 10)
    (photos / "bad.png").write_text("no image")
    words = ["grainy", photos, "scale=2", "n=2", f"out={photos / 'out'}", "--config-dir", tmp_path / "own"]
    sample(*words, code=1)
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("bench: ")]
    assert len(errors) == 1
    assert "bad.png cannot be decoded" in errors[0]
    out = photos / "out"
    done = sorted(str(p.parent.relative_to(out)) for p in out.rglob("done.json"))
    assert done == ["a.jpg", "a.png", "b <i>/it's [x]=1", "last"]
    page = (out / "index.html").read_text()
    assert "Samples of Grainy &amp; co" in page
    assert "b &lt;i&gt;/it&#39;s [x]=1.png" in page
    assert "<i>" not in page
    assert "bad.png cannot be decoded" in page
    before, calls = {p: p.stat().st_mtime_ns for p in out.rglob("sample*.png")}, grainy.calls
    assert calls == 4
    (out / "last" / "sample1.png").unlink()
    save(photos / "a.png", 14, 10)  # replaced
    (photos / "bad.png").unlink()
    sample(*words)
    assert grainy.calls == calls + 2
    changed = {p.parent.name for p in before if p.stat().st_mtime_ns != before[p]}
    assert changed == {"a.png", "last"}
    sample(*words, "tau=0.5", code=1)
    assert f"{out} holds samples of something else: tau was 0.8, is 0.5: use another out=DIR" in capfd.readouterr().err


def test_a_bug_of_the_method_costs_its_image_alone(grainy, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    photos = tmp_path / "photos"
    for name in ("a.png", "b.png", "c.png"):
        save(photos / name, 12, 10)
    good = grainy.draw

    def bad(self, *arguments):
        if type(self).calls == 1:
            type(self).calls += 1
            raise IndexError("no such\nplace")
        return good(self, *arguments)

    grainy.draw = bad
    out = tmp_path / "out"
    sample("grainy", photos, "scale=2", "n=2", f"out={out}", "--config-dir", tmp_path / "own", code=1)
    said = capfd.readouterr().err
    assert f"b.png: IndexError: no such place (traceback in {out / 'errors'}" in said
    assert "Traceback" not in said
    assert "in bad" in next((out / "errors").iterdir()).read_text()
    assert sorted(p.parent.name for p in out.rglob("done.json")) == ["a", "c"]
    assert "no such place" in (out / "index.html").read_text()


def test_an_operator_that_keeps_the_size_has_no_scale(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    photo = save(tmp_path / "photo.png", 64)
    for words in ([], ["scale=4"]):
        out = tmp_path / f"out{len(words)}"
        sample("bicubic", photo, "operator=inpainting", "--degrade", *words, f"out={out}")
        assert json.loads((out / "photo" / "done.json").read_text())["scale"] == 1


def test_a_high_resolution_image_is_degraded(grainy, tmp_path: Path) -> None:
    photo = save(tmp_path / "photo.png", 42, 33)
    common = ["grainy", photo, "scale=4", "n=3", "--degrade", "--config-dir", tmp_path / "own"]
    sample(*common, f"out={tmp_path / 'out'}", code=1)  # 33 rows
    sample(*common, f"out={tmp_path / 'out'}", "fit=crop")
    folder = tmp_path / "out" / "photo"
    truth = pixels(photo)[0:32, 1:41]
    assert (pixels(folder / "hr.png") == truth).all()
    x = torch.from_numpy(truth).permute(2, 0, 1)[None].double() / 255
    y = Bicubic((32, 40), 4, dtype=torch.float64).observe(x)
    assert (pixels(folder / "lr.png") == to_uint8(y[0]).permute(1, 2, 0).numpy()).all()
    record = json.loads((folder / "done.json").read_text())
    errors = [((pixels(folder / f"sample{j}.png") / 255 - truth / 255) ** 2).mean() for j in range(3)]
    assert record["psnr_sample"] == pytest.approx(np.mean([-10 * np.log10(e + 1e-8) for e in errors]))
    assert record["psnr_mean"] > record["psnr_sample"]  # less noise
    assert "the central 40x32 of 42x33 pixels" in (tmp_path / "out" / "index.html").read_text()


@pytest.mark.parametrize(
    ("words", "size", "sentence"),
    [
        (["cvdvae"], 20, "face.png has 20x20 pixels: CVDVAE takes 16x16 (scale=4) or 8x8 (scale=8) with this network"),
        (["cvdvae", "scale=4"], 20, "CVDVAE takes 16x16 at scale=4 with this network; give such an image, or fit=crop"),
        (["cvdvae", "scale=4", "fit=crop"], 12, "face.png has 12x12 pixels, fewer than the 16x16 that CVDVAE takes"),
        (["cvdvae", "scale=4", "fit=tile"], 12, "face.png has 12x12 pixels, fewer than one tile at scale=4"),
        (["cvdvae", "scale=2"], 16, "CVDVAE does not do scale=2: it does bicubic x4, x8 without noise."),
        (["cvdvae", "operator=average"], 16, "CVDVAE does not do operator=average"),
        (["cvdvae", "operator.range=[0,2]"], 16, "operator.range=[0,2] is wrong: image files have intensities in"),
        (["bicubic"], 16, "face.png does not tell the scale, and Bicubic does any scale: add scale=4."),
        (["bicubic", "scale=4", "--degrade"], 18, "face.png has 18x18 pixels, which scale=4 does not divide"),
        (["bicubic", "scale=4", "--degrade", "fit=crop"], 5, "face.png has 5x5 pixels, too few for scale=4"),
        (["oracle"], 16, "needs images whose posterior is known, and that of your own is not"),
        (["cvdvae", "n=0"], 16, "n=0 is wrong: it should be at least 1."),
        (["cvdvae", "fit=stretch"], 16, "fit=stretch is wrong"),
        (["cvdvae", "tua=1"], 16, "There is no setting 'tua'. Did you mean 'tau'?"),
        (["cvdvea"], 16, "There is no method 'cvdvea'. Did you mean 'cvdvae'"),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    words: list[str], size: int, sentence: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    method, *settings = words
    sample(method, save(tmp_path / "face.png", size), *settings, f"out={tmp_path / 'out'}", code=1)
    errors = capfd.readouterr().err.strip().splitlines()
    assert len(errors) == 1
    assert sentence in errors[0]


@pytest.mark.parametrize("words", [[], ["cvdvae"], ["cvdvae", "a.png", "b.png"]])
def test_the_usage_is_told(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    sample(*words, code=1)
    assert "python -m bench sample METHOD IMAGE_OR_FOLDER" in capfd.readouterr().err


def test_nothing_to_sample_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    sample("bicubic", tmp_path / "empty", code=1)
    assert "There are no images" in capfd.readouterr().err
    sample("bicubic", tmp_path / "nowhere", code=1)
    assert "nowhere is neither an image nor a folder" in capfd.readouterr().err


def test_tiles_are_sampled_alone_and_cover_the_image(tmp_path: Path) -> None:
    photo = save(tmp_path / "photo.png", 20, 16)
    out = tmp_path / "out"
    sample("cvdvae", photo, "scale=4", "fit=tile", "n=1", f"out={out}")
    whole = pixels(out / "photo" / "sample0.png")
    assert whole.shape == (64, 80, 3)
    Image.fromarray(pixels(photo)[:, 4:]).save(tmp_path / "right.png")
    sample("cvdvae", tmp_path / "right.png", "n=1", f"out={tmp_path / 'alone'}")
    alone = pixels(tmp_path / "alone" / "right" / "sample0.png").astype(int)
    assert np.abs(whole[:, 16:] - alone).max() <= 1
    assert "2 tiles, each sampled alone: seams can be seen" in (out / "index.html").read_text()


@pytest.mark.parametrize(("size", "tile"), [((16, 16), (16, 16)), ((17, 40), (8, 16)), ((9, 8), (8, 8))])
def test_places_cover_every_pixel(size: tuple[int, int], tile: tuple[int, int]) -> None:
    seen = np.zeros(size, bool)
    for i, j in places(size, tile):
        assert i + tile[0] <= size[0]
        assert j + tile[1] <= size[1]
        seen[i : i + tile[0], j : j + tile[1]] = True
    assert seen.all()


def test_pictures_of_many_images_are_beside_the_page(grainy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.sample.page.EMBEDDED", 0)
    photo = save(tmp_path / "a #1.png", 8)
    sample("grainy", photo, "scale=2", "n=1", f"out={tmp_path / 'out'}", "--config-dir", tmp_path / "own")
    page = Page((tmp_path / "out" / "index.html").read_text())
    assert [p["src"] for p in page.pictures] == page.links
    assert re.fullmatch(r"a%20%231/lr\.png", page.links[0])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["scale=4", "fit=crop"], "holds samples at scale=2: use another out=DIR, or move it away."),
        (["scale=2", "fit=refuse"], ""),  # the image fits: it is the same
    ],
)
def test_samples_are_not_lost_to_other_settings(
    grainy, words: list[str], sentence: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    common = ["grainy", save(tmp_path / "a.png", 18), "n=1", "--degrade", f"out={tmp_path / 'out'}"]
    common += ["--config-dir", tmp_path / "own"]
    sample(*common, "scale=2", "fit=crop")
    before = (tmp_path / "out" / "a" / "sample0.png").read_bytes()
    sample(*common, *words, code=1 if sentence else 0)
    assert sentence in capfd.readouterr().err
    assert (tmp_path / "out" / "a" / "sample0.png").read_bytes() == before


def test_another_image_of_the_same_name_is_told(grainy, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for folder, side in (("one", 8), ("two", 12)):
        words = ["scale=2", "n=1", f"out={tmp_path / 'out'}", "--config-dir", tmp_path / "own"]
        sample("grainy", save(tmp_path / folder / "a.png", side), *words)
        assert ("its former samples are replaced" in capfd.readouterr().err) == (folder == "two")


def test_samples_and_runs_are_never_in_one_folder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    face, out = save(tmp_path / "photos" / "face.png", 16), tmp_path / "out"
    sample("bicubic", face, "scale=2", f"out={out}")
    assert main(["run", "methods=[bicubic]", "dataset=folder", f"dataset.path={face.parent}", f"out={out}"]) == 1
    assert f"{out} holds samples of one's own images: use another out=DIR." in capfd.readouterr().err
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("methods: {bicubic: {}}\nmetrics: [psnr]\n")
    sample("bicubic", face, "scale=2", f"out={tmp_path / 'run'}", code=1)
    assert "is a run directory, where samples would be mixed in" in capfd.readouterr().err
    assert not (tmp_path / "run" / "sample.json").exists()


def test_an_image_of_one_pixel_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sample("bicubic", save(tmp_path / "a.png", 1), "scale=4", f"out={tmp_path / 'out'}", code=1)
    assert "a.png has 1x1 pixels, too few for scale=4: use a larger image." in capfd.readouterr().err

"""Datasets that are read from files: every kind of file, and every way they are broken."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data import make_dataset
from bench.data.ffhq256 import split_indices
from bench.data.images import centre_square, read_rgb
from bench.data.portraits256 import crop_quad
from bench.errors import BenchError, ImageError

GREY = np.linspace(0, 255, 32 * 32).astype(np.uint8).reshape(32, 32)


def rgb(image: Image.Image) -> np.ndarray:
    return np.asarray(image)


def test_grey_is_repeated(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png")
    assert (rgb(read_rgb(tmp_path / "a.png")) == GREY[..., None]).all()


def test_sixteen_bits_are_scaled(tmp_path: Path) -> None:
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / "a.png")
    assert (rgb(read_rgb(tmp_path / "a.png")) == GREY[..., None]).all()


def test_transparency_is_over_white(tmp_path: Path) -> None:
    image = np.zeros((8, 8, 4), np.uint8)
    image[:4, :, 3] = 255
    Image.fromarray(image).save(tmp_path / "a.png")
    read = rgb(read_rgb(tmp_path / "a.png"))
    assert (read[:4] == 0).all()
    assert (read[4:] == 255).all()


def test_palette_and_cmyk(tmp_path: Path) -> None:
    Image.fromarray(GREY).convert("P").save(tmp_path / "a.png")
    Image.fromarray(GREY).convert("CMYK").save(tmp_path / "b.jpg")
    assert read_rgb(tmp_path / "a.png").mode == read_rgb(tmp_path / "b.jpg").mode == "RGB"


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    image = Image.fromarray(np.dstack([GREY[:16]] * 3))
    exif = image.getexif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    image.save(tmp_path / "a.png", exif=exif)
    read = read_rgb(tmp_path / "a.png")
    assert read.size == (16, 32)
    assert (rgb(read)[..., 0] == np.rot90(GREY[:16], -1)).all()


@pytest.mark.parametrize("content", [b"", b"no image at all", None])
def test_broken_files_are_one_sentence(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.png"
    if content is None:  # cut off in the middle
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
        content = path.read_bytes()[:3000]
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"a\.png cannot be decoded"):
        read_rgb(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="does not exist"):
        read_rgb(tmp_path / "a.png")


def test_centre_square_crops_the_centre() -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, 10:50] = 200
    out = centre_square(Image.fromarray(image), 40, Image.Resampling.LANCZOS, "x")
    assert (out == 200).all()


def test_too_small_is_refused() -> None:
    with pytest.raises(ImageError, match="60x40 pixels, too few for 64x64"):
        centre_square(Image.new("RGB", (60, 40)), 64, Image.Resampling.LANCZOS, "x")


def test_folder_order_and_ids(image_folder: Path) -> None:
    (image_folder / "sub").mkdir()
    (image_folder / "0.png").rename(image_folder / "sub" / "0.png")
    (image_folder / "notes.txt").write_text("no image")
    dataset = make_dataset({"name": "folder", "path": str(image_folder), "size": 64})
    assert list(dataset.ids) == ["1.png", "2.png", "3.png", "sub/0.png"]
    assert dataset.load(0).shape == (64, 64, 3)


def test_empty_and_missing_folders(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no images"):
        make_dataset({"name": "folder", "path": str(tmp_path)})
    with pytest.raises(BenchError, match="is no folder"):
        make_dataset({"name": "folder", "path": str(tmp_path / "x")})


def test_unknown_setting_gets_near_matches(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="Did you mean 'path'"):
        make_dataset({"name": "folder", "pth": str(tmp_path)})


def test_ffhq_split_is_vdvaes() -> None:
    """The seed-5 permutation of 70000, its last 7000 held out (github:openai/vdvae data.py)."""
    np.random.seed(5)
    order = np.random.permutation(70000)
    assert (split_indices("test") == order[63000:64000]).all()
    assert (split_indices("val") == order[64000:]).all()
    assert (split_indices("train") == order[:63000]).all()


def test_ffhq_from_a_memory_mapped_file(tmp_path: Path) -> None:
    path = tmp_path / "ffhq-256.npy"
    array = np.lib.format.open_memmap(path, "w+", np.uint8, (70000, 256, 256, 3))  # sparse on disk
    first = int(split_indices("test")[0])
    array[first] = 7
    array.flush()
    dataset = make_dataset({"name": "ffhq256", "path": str(path)})
    assert len(dataset) == 1000
    assert dataset.ids[0] == f"{first:05d}"
    assert (dataset.load(0) == 7).all()
    assert (dataset.load(1) == 0).all()


def test_ffhq_wrong_files(tmp_path: Path, image_folder: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, 8, 8, 3), np.uint8))
    (tmp_path / "b.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:100])
    np.save(tmp_path / "c.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    for name, words in (
        ("a", "expected uint8"),
        ("b", "no complete npy"),
        ("c", "no complete npy"),
        ("d", "does not exist"),
    ):
        with pytest.raises(BenchError, match=words):
            make_dataset({"name": "ffhq256", "path": str(tmp_path / f"{name}.npy")})
    with pytest.raises(BenchError, match="holds 4 images, FFHQ has 70000"):
        make_dataset({"name": "ffhq256", "path": str(image_folder)})


def test_portraits_come_from_a_checkout_and_are_verified(tmp_path: Path) -> None:
    dataset = make_dataset({"name": "portraits256", "source": str(tmp_path)})
    assert len(dataset) == 40
    assert len(make_dataset({"name": "portraits256", "split": "train", "source": str(tmp_path)})) == 160
    with pytest.raises(ImageError, match="does not exist"):
        dataset.load(0)
    path = tmp_path / dataset.rows[0]["source"]
    path.parent.mkdir(parents=True)
    Image.new("RGB", (1024, 1024)).save(path)
    with pytest.raises(ImageError, match="sha256 differs"):
        dataset.load(0)


def test_portraits_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))

    def offline(*a: object, **k: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    with pytest.raises(BenchError, match=r"could not be downloaded.*dataset\.source=CHECKOUT"):
        make_dataset({"name": "portraits256"})


def test_quad_crop_of_an_upright_square_is_a_crop() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    quad = np.array([[8, 8], [8, 24], [24, 24], [24, 8]], float) - 0.5
    out = crop_quad(Image.fromarray(image), quad, side=16, size=16)
    assert (out == image[8:24, 8:24]).all()


def test_quad_outside_of_the_image_is_mirrored() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    quad = np.array([[-4, 8], [-4, 24], [12, 24], [12, 8]], float) - 0.5
    out = crop_quad(Image.fromarray(image), quad, side=16, size=16)
    assert (out[:, 3] == image[8:24, 1]).all()
    assert (out[:, 4:] == image[8:24, :12]).all()

"""Datasets that are read from files: every kind of file, and every way they are broken."""

import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from bench.data import make_dataset
from bench.data.ffhq256 import SPLITS, split_indices
from bench.data.images import centre_square, list_images, read_rgb
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


COLOURS = np.stack([GREY, GREY[::-1], GREY.T], 2)


FORMATS = {
    "a.png": ["1", "L", "LA", "P", "RGB", "RGBA"],
    "a.tif": ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"],
    "a.bmp": ["1", "L", "P", "RGB", "RGBA"],
}


@pytest.mark.parametrize(("name", "mode"), [(name, mode) for name, modes in FORMATS.items() for mode in modes])
def test_every_format_of_eight_bits_has_its_colours(tmp_path: Path, name: str, mode: str) -> None:
    written = Image.fromarray(COLOURS).convert(mode)
    written.save(tmp_path / name)
    read = rgb(read_rgb(tmp_path / name))
    assert read.shape == (32, 32, 3)
    if mode in ("RGB", "RGBA", "RGBX", "CMYK"):
        assert (read == COLOURS).all()
    elif mode == "YCbCr":
        assert np.abs(read.astype(int) - COLOURS).max() <= 3  # of its 8 bits
    else:
        assert (read == rgb(written.convert("RGB"))).all()


def test_cmyk_of_jpeg_is_not_inverted(tmp_path: Path) -> None:
    Image.fromarray(COLOURS).convert("CMYK").save(tmp_path / "a.jpg", quality=100, subsampling=0)
    assert np.abs(rgb(read_rgb(tmp_path / "a.jpg")).astype(int) - COLOURS).max() <= 4


def test_white_may_be_zero_in_eight_bits(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY, photometric="miniswhite")
    assert (rgb(read_rgb(tmp_path / "a.tif")) == 255 - GREY[..., None]).all()


@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bits_of_either_byte_order_are_scaled(tmp_path: Path, order: str) -> None:
    deep = np.linspace(0, 65535, 32 * 32).astype(np.uint16).reshape(32, 32)
    tifffile.imwrite(tmp_path / "a.tif", deep, byteorder=order)
    assert (rgb(read_rgb(tmp_path / "a.tif")) == (deep / 257).round()[..., None]).all()
    tifffile.imwrite(tmp_path / "b.tif", np.stack([deep, deep, deep], 2), byteorder=order, photometric="rgb")
    assert (rgb(read_rgb(tmp_path / "b.tif")) == deep[..., None] >> 8).all()  # Pillow keeps the high byte


UNKNOWN = "cannot be decoded"  # Pillow does not know this kind
UNCLEAR = [
    ("<", np.float32, "floating-point"),
    (">", np.float32, "floating-point"),
    ("<", np.float64, UNKNOWN),
    ("<", np.float16, UNKNOWN),
    ("<", np.int32, "32-bit or signed"),
    (">", np.int32, "32-bit or signed"),
    ("<", np.uint32, "32-bit or signed"),
    (">", np.uint32, UNKNOWN),
    ("<", np.int16, "32-bit or signed"),
    (">", np.int16, "32-bit or signed"),
    ("<", np.int8, "no unsigned integers"),
]


@pytest.mark.parametrize(("order", "dtype", "words"), UNCLEAR)
def test_pixels_of_unknown_range_are_refused(tmp_path: Path, order: str, dtype: type, words: str) -> None:
    array = GREY / 255 if np.issubdtype(dtype, np.floating) else GREY
    tifffile.imwrite(tmp_path / "a.tif", array.astype(dtype), byteorder=order)
    with pytest.raises(ImageError, match=rf"^[^\n]*a\.tif [^\n]*{words}[^\n]*\.$"):
        read_rgb(tmp_path / "a.tif")


def test_floating_point_colours_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", COLOURS.astype(np.float32) / 255, photometric="rgb")
    with pytest.raises(ImageError, match=UNKNOWN):
        read_rgb(tmp_path / "a.tif")


def test_sixteen_bits_with_white_as_zero_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY.astype(np.uint16), photometric="miniswhite")
    with pytest.raises(ImageError, match="0 for white"):
        read_rgb(tmp_path / "a.tif")


def test_twelve_bits_are_refused(tmp_path: Path) -> None:
    """Pillow reads them as 16 bits that end at 4095: black."""
    entries = [(256, 2), (257, 2), (258, 12), (259, 1), (262, 1), (273, 122), (277, 1), (278, 2), (279, 6)]
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    head = struct.pack("<2sHIH", b"II", 42, 8, len(entries))
    (tmp_path / "a.tif").write_bytes(head + directory + bytes(4) + b"\xff" * 6)
    with pytest.raises(ImageError, match="neither 8 nor 16 bits"):
        read_rgb(tmp_path / "a.tif")


def test_lab_is_refused(tmp_path: Path) -> None:
    Image.new("LAB", (8, 8)).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match="format LAB: save it as RGB"):
        read_rgb(tmp_path / "a.tif")


def test_a_transparent_colour(tmp_path: Path) -> None:
    Image.fromarray(COLOURS).save(tmp_path / "a.png", transparency=tuple(int(v) for v in COLOURS[3, 4]))
    expected = COLOURS.copy()
    expected[(COLOURS[3, 4] == COLOURS).all(2)] = 255
    assert (rgb(read_rgb(tmp_path / "a.png")) == expected).all()
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / "b.png", transparency=257)
    with pytest.raises(ImageError, match="16 bits and a transparent colour"):
        read_rgb(tmp_path / "b.png")


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.webp", "gif.png"])
def test_several_frames_are_refused(tmp_path: Path, name: str) -> None:
    first, second = Image.fromarray(COLOURS), Image.fromarray(COLOURS[::-1])
    kind = "GIF" if name == "gif.png" else None
    first.save(tmp_path / name, kind, save_all=True, append_images=[second])
    with pytest.raises(ImageError, match="has 2 frames: save the one that you mean"):
        read_rgb(tmp_path / name)
    first.save(tmp_path / name, kind, save_all=True)  # one frame in a file for several
    assert read_rgb(tmp_path / name).size == (32, 32)


def test_the_previews_of_a_jpeg_are_no_frames(tmp_path: Path) -> None:
    first = Image.fromarray(COLOURS)
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[first.resize((8, 8))], quality=100)
    assert read_rgb(tmp_path / "a.jpg").size == (32, 32)


def test_hidden_files_are_no_images(image_folder: Path) -> None:
    (image_folder / "._0.JPG").write_bytes(b"a resource file of macOS")
    (image_folder / ".cache").mkdir()
    (image_folder / "0.png").rename(image_folder / ".cache" / "0.png")
    assert [p.name for p in list_images(image_folder)] == ["1.png", "2.png", "3.png"]
    assert [p.name for p in list_images(image_folder / ".cache")] == ["0.png"]  # asked for by name


@pytest.mark.filterwarnings("ignore")
def test_damaged_directories_are_one_sentence(tmp_path: Path) -> None:
    """Bytes changed at random: whatever error Pillow reports them by."""
    tifffile.imwrite(tmp_path / "whole.tif", GREY)
    whole = (tmp_path / "whole.tif").read_bytes()
    random = np.random.default_rng(0)
    path = tmp_path / "a.tif"
    refused = 0
    for _ in range(200):
        damaged = bytearray(whole)
        for _ in range(4):
            damaged[random.integers(0, 300)] = random.integers(0, 256)
        path.write_bytes(damaged)
        try:
            read_rgb(path)
        except ImageError:
            refused += 1
    assert refused > 50


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


def test_a_damaged_portrait_of_the_cache_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", lambda url, path, *_, **__: Path(path).touch())
    dataset = make_dataset({"name": "portraits256"})
    sentence = rf"{dataset.rows[0]['source']} is not the published file .*: delete it, and the next start downloads it"
    with pytest.raises(ImageError, match=sentence):
        dataset.load(0)


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


def test_which_images_of_ffhq_a_checkpoint_has_seen() -> None:
    """The figures of docs/data.md."""
    held_out = set(split_indices("dps_held_out").tolist())
    assert held_out == set(range(1000))
    assert [len(held_out & set(split_indices(s).tolist())) for s in SPLITS] == [902, 89, 9, 1000]
    test = split_indices("test")
    assert ((test >= 1000) & (test < 50000)).sum() == 685
    with pytest.raises(BenchError, match="use train, val, test, dps_held_out"):
        split_indices("held_out")

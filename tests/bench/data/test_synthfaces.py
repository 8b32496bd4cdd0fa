import time
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from bench.data import make_dataset
from bench.data.synthfaces import RANGES
from bench.data.synthfaces.renderer import render
from bench.data.synthfaces.scene import HAIR_STYLES, Scene
from bench.errors import BenchError
from bench.metrics.brisque import brisque
from scripts.compare_statistics import spectrum_slope

# python -m scripts.compare_statistics portraits256, on the 160 train portraits: size, slope, BRISQUE
PHOTOGRAPHS = {64: (-2.97, 34.1), 256: (-2.89, 3.8)}


def test_deterministic_by_index() -> None:
    batch = render([5, 2_000_000, 17], 64)
    assert torch.equal(batch[1], render([2_000_000], 64)[0])
    assert torch.equal(batch, render([5, 2_000_000, 17], 64))
    assert not torch.equal(batch[0], batch[2])


@pytest.mark.parametrize("size", [64, 96])
def test_images_do_not_depend_on_what_is_rendered_beside_them(size: int) -> None:
    dataset = make_dataset({"name": "synthfaces", "size": size})
    assert dataset.together
    alone = np.stack([dataset.load(i) for i in range(16)])
    for batch in (16, 7, 2):
        beside = [dataset.load_many(range(i, min(i + batch, 16))) for i in range(0, 16, batch)]
        assert np.array_equal(np.concatenate(beside), alone)


def test_a_batch_is_rendered_in_parts_that_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = make_dataset({"name": "synthfaces", "size": 64})
    whole = dataset.load_many(range(5))
    sizes: list[int] = []

    def counted(indices: Sequence[int], size: int) -> torch.Tensor:
        sizes.append(len(indices))
        return render(indices, size)

    monkeypatch.setattr("bench.data.synthfaces.TOGETHER", 2 * 64**2)
    monkeypatch.setattr("bench.data.synthfaces.renderer.render", counted)
    assert np.array_equal(dataset.load_many(range(5)), whole)
    assert sizes == [2, 2, 1]


def test_resolutions_show_the_same_scene() -> None:
    large, small = render([3, 4], 256).float(), render([3, 4], 64).float()
    shrunk = torch.nn.functional.avg_pool2d(large.permute(0, 3, 1, 2), 4).permute(0, 2, 3, 1)
    assert (shrunk - small).abs().mean() < 6  # of 255
    assert render([3], 128).shape == (1, 128, 128, 3)


@pytest.mark.parametrize(("size", "count"), [(64, 128), (256, 32)])
def test_statistics_are_those_of_photographs(size: int, count: int) -> None:
    images = torch.cat([render(range(k, k + 16), size) for k in range(0, count, 16)]).permute(0, 3, 1, 2).float() / 255
    slope, quality = PHOTOGRAPHS[size]
    assert spectrum_slope(images) == pytest.approx(slope, abs=0.3)
    assert torch.cat([brisque(x) for x in images.split(16)]).nanmean().item() == pytest.approx(quality, abs=15)


def test_spectrum_slope_of_known_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    white = torch.rand(32, 1, 64, 64, generator=generator).expand(-1, 3, -1, -1)
    assert spectrum_slope(white) == pytest.approx(0, abs=0.1)
    frequency = torch.fft.fftfreq(64) * 64
    radius = (frequency.square()[:, None] + frequency.square()).sqrt().clamp(min=1)
    natural = torch.fft.ifft2(torch.fft.fft2(white) / radius).real  # power 1 / f^2
    assert spectrum_slope(natural) == pytest.approx(-2, abs=0.15)


def test_splits_are_disjoint() -> None:
    train, val, test = (set(r) for r in RANGES.values())
    assert not train & val
    assert not train & test
    assert not val & test


def test_attributes_vary_and_describe_the_scene() -> None:
    drawn = Scene.draw(range(400)).attributes()
    assert {a["hair"] for a in drawn} == set(HAIR_STYLES)
    for key, low, high in (("glasses", 0.1, 0.5), ("earrings", 0.05, 0.5), ("freckles", 0.02, 0.4)):
        assert low < np.mean([bool(a[key]) for a in drawn]) < high
    assert {a["beard"] for a in drawn} == {"none", "stubble", "moustache", "goatee", "full"}
    dataset = make_dataset({"name": "synthfaces", "split": "val"})
    assert dataset.attributes(3) == Scene.draw([1_000_003]).attributes()[0]


def test_glasses_are_drawn_where_the_attributes_say() -> None:
    drawn = Scene.draw(range(300))
    worn = [i for i, a in enumerate(drawn.attributes()) if a["glasses"]][:40]
    bare = Scene({k: v[worn].copy() for k, v in drawn.values.items()})
    bare.values["glasses"][:] = 0
    from unittest import mock

    with mock.patch.object(Scene, "draw", return_value=bare):
        without = render(worn, 64).float()
    changed = (render(worn, 64).float() - without).abs().mean((1, 2, 3))
    assert (changed > 0.2).all()


def test_dataset() -> None:
    dataset = make_dataset({"name": "synthfaces"})
    assert dataset.load(0).shape == (64, 64, 3)
    assert dataset.load(0).dtype == np.uint8
    assert len(dataset) == 1000
    assert dataset.ids[7] == "test-000007"
    assert len(set(dataset.ids)) == 1000


@pytest.mark.parametrize("arguments", [{"size": 60}, {"size": 16}, {"split": "tst"}])
def test_impossible_settings(arguments: dict[str, object]) -> None:
    with pytest.raises(BenchError, match="dataset"):
        make_dataset({"name": "synthfaces", **arguments})


def test_fast_enough_to_train_on() -> None:
    """The aim is 150 images per second of one free core; seconds of the processor, since machines may be busy."""
    render(range(16), 64)
    begun = time.process_time()
    for k in range(0, 64, 16):
        render(range(k, k + 16), 64)
    assert 64 / (time.process_time() - begun) > 30

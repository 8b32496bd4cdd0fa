"""Known checkpoints: the list, where they are found, local files."""

import hashlib
from pathlib import Path

import pytest
import torch

from bench import download, weights
from bench.cli import main
from bench.errors import BenchError
from bench.weights import find_weights, read_tensors


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))


def test_a_known_file_that_has_changed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    c = weights.Checkpoint("mine", "mine.pt", "nothing", "a page", "MIT")
    monkeypatch.setattr(weights, "CHECKPOINTS", (c,))
    (tmp_path / "mine").write_bytes(b"content")
    path = download.add(c, tmp_path / "mine")
    assert find_weights("mine.pt", tmp_path / "shipped") == path
    path.write_bytes(b"something else")
    with pytest.raises(BenchError, match="is not mine"):
        find_weights("mine.pt", tmp_path / "shipped")


def test_hcflows_release_is_known_by_its_addresses() -> None:
    """Names and folder as in the repository's download-weights and test options."""
    found = {c.name: c for c in weights.CHECKPOINTS if c.name.startswith("hcflow")}
    assert len(found) == 6
    plus = found["hcflow_celeba_x8_plusplus"]
    release = "https://github.com/JingyunLiang/HCFlow/releases/download/v0.0/"
    assert plus.url == f"{release}SR_CelebA_X8_HCFlow++.pth"
    assert found["hcflow_df2k_x4"].url == f"{release}SR_DF2K_X4_HCFlow.pth"
    assert weights.by_file("SR_DF2K_X4_HCFlow+.pth") is found["hcflow_df2k_x4_plus"]
    for c in found.values():
        assert c.sha256 is None  # nobody has published one: pinned when it arrives
        assert c.pins == weights.folder_of_weights() / "pins.json"


def test_torchs_files_are_kept_where_torch_looks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    vgg = weights.find("lpips_vgg")
    assert vgg.path == tmp_path / "torch" / "hub" / "checkpoints" / "vgg16-397923af.pth"
    vgg.path.parent.mkdir(parents=True)
    vgg.path.write_bytes(b"no network")
    with pytest.raises(BenchError, match="expected 397923af"):
        download.get(vgg)
    assert hashlib.sha256(b"no network").hexdigest()[:8] != vgg.sha256


def test_a_missing_known_file_tells_the_command(tmp_path: Path) -> None:
    path = find_weights("ffhq256-iter-1700000-model-ema.th", tmp_path)
    with pytest.raises(BenchError, match="python -m bench weights get vdvae_ffhq256"):
        read_tensors(path)
    by_hand = r"get the file from github:Janspiry/.*, then python -m bench weights add sr3_16_128 FILE"
    with pytest.raises(BenchError, match=by_hand):
        read_tensors(find_weights("I640000_E37_gen.pth", tmp_path))


def test_the_list_and_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights"]) == 0
    listed = capsys.readouterr().out
    for name in ("vdvae_ffhq256", "dps_ffhq256", "lpips_vgg", "cvdvae/prior64", "shipped", "missing"):
        assert name in listed
    torch.save({"a": torch.zeros(1)}, tmp_path / "x.pt")
    assert main(["weights", "add", "dps_ffhq256", str(tmp_path / "x.pt")]) == 0
    assert weights.find("dps_ffhq256").path.is_file()
    assert main(["weights", "get", "dps_ffhq"]) == 1
    assert "Did you mean 'dps_ffhq256'" in capsys.readouterr().err


def test_shipped_files_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights"]) == 0
    said = capsys.readouterr().out
    for name in ("brisque_live", "cvdvae/prior64", "diffusion/prior64", "hcflow/flow64_x4", "sr3/unet64_x8"):
        assert name in said


@pytest.mark.parametrize(
    "content", [b"", b"<html>Quota exceeded</html>", b"version https://git-lfs.github.com/spec/v1"]
)
def test_what_is_no_checkpoint_is_not_taken_for_a_pickle_with_code(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "downloaded.pt"
    path.write_bytes(content)
    with pytest.raises(BenchError, match=r"truncated or no checkpoint \(it is neither .*\): fetch it again"):
        read_tensors(path)

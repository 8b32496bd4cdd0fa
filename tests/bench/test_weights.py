"""Known checkpoints: downloads from a local server that break off, hashes, pins, local files."""

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from bench import weights
from bench.cli import main
from bench.errors import BenchError
from bench.weights import find_weights, read_tensors

CONTENT = bytes(range(256)) * 4000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT with ranges; breaks off after `stop` bytes of an answer."""

    stop: int | None = None
    ranges: list[str | None] = []  # noqa: RUF012 -- shared with the test by intention

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        Handler.ranges.append(asked)
        first = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(CONTENT) - first))
        self.end_headers()
        self.wfile.write(CONTENT[first:][: Handler.stop])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    Handler.stop, Handler.ranges = None, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/file"
    server.shutdown()


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))


def checkpoint(url: str | None, **known) -> weights.Checkpoint:
    return weights.Checkpoint("mine", "mine.pt", "nothing", "a page", "MIT", url=url, **known)


def test_a_download_that_broke_off_goes_on(address: str) -> None:
    c = checkpoint(address, sha256=DIGEST, size=len(CONTENT))
    Handler.stop = 300_000
    with pytest.raises(BenchError, match="repeat the command, which goes on where it ended"):
        weights.get(c)
    assert weights.state(c) == "0 MB of it"
    Handler.stop = None
    assert weights.get(c).read_bytes() == CONTENT
    assert Handler.ranges == [None, "bytes=300000-"]
    assert weights.state(c) == "here"


def test_a_wrong_hash_leaves_nothing(address: str) -> None:
    c = checkpoint(address, sha256="0" * 64)
    with pytest.raises(BenchError, match="is not mine: its sha256 is"):
        weights.get(c)
    assert weights.state(c) == "missing"


def test_what_has_no_hash_is_pinned(address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    c = checkpoint(address)
    monkeypatch.setattr(weights, "CHECKPOINTS", (c,))
    path = weights.get(c)
    assert find_weights("mine.pt", tmp_path) == path
    path.write_bytes(b"something else")
    with pytest.raises(BenchError, match="is not mine"):
        find_weights("mine.pt", tmp_path)


def test_a_local_file(address: str, tmp_path: Path) -> None:
    source = tmp_path / "from_a_friend.pt"
    source.write_bytes(CONTENT)
    c = checkpoint(None, sha256=DIGEST)
    with pytest.raises(BenchError, match="from a page, then python -m bench weights add mine FILE"):
        weights.get(c)
    assert weights.add(c, source).read_bytes() == CONTENT
    with pytest.raises(BenchError, match="has 1024000 bytes, mine has 5"):
        weights.add(replace(c, size=5), source)
    with pytest.raises(BenchError, match="does not exist"):
        weights.add(c, tmp_path / "nothing")


@pytest.mark.parametrize("published", [True, False])
def test_a_wrong_local_file_is_the_persons_own(tmp_path: Path, published: bool) -> None:
    good, wrong = tmp_path / "good", tmp_path / "wrong"
    good.write_bytes(CONTENT)
    wrong.write_bytes(b"another")
    c = checkpoint(None, **({"sha256": DIGEST} if published else {}))
    weights.add(c, good)
    with pytest.raises(BenchError) as error:
        weights.add(c, wrong)
    assert f"{wrong} is not mine: its sha256 is " in str(error.value)
    assert "give the file mine.pt of a page" in str(error.value)
    assert "delete" not in str(error.value)
    assert ("pins.json" in str(error.value)) is not published  # what is published is in no list of ours
    assert wrong.is_file()
    assert c.path.read_bytes() == CONTENT
    c.path.write_bytes(b"damaged")
    with pytest.raises(BenchError, match="delete it and fetch it again"):
        weights.get(c)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x", "missing"])
def test_no_network_is_one_sentence(url: str, address: str) -> None:
    with pytest.raises(BenchError, match=r"could not be downloaded from .*check the network"):
        weights.get(checkpoint(address.replace("file", "missing") if url == "missing" else url))


def test_a_missing_known_file_tells_the_command(tmp_path: Path) -> None:
    path = find_weights("ffhq256-iter-1700000-model-ema.th", tmp_path)
    with pytest.raises(BenchError, match="python -m bench weights get vdvae_ffhq256"):
        read_tensors(path)


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

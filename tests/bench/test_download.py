"""Downloads from a local server: broken connections, wrong lengths, restarts, no ranges, full disks, hashes."""

import hashlib
import shutil
import threading
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from bench import download
from bench.cli import main
from bench.data import ffhq256, make_dataset
from bench.download import KnownFile, add, describe, get, remote_size, state, verify
from bench.errors import BenchError
from bench.files import cache_dir

CONTENT = bytes(range(256)) * 4000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class File(KnownFile):
    @property
    def folder(self) -> Path:
        return cache_dir() / "files"

    @property
    def by_hand(self) -> str:
        return f"python -m bench weights add {self.name} FILE"


@dataclass
class Server:
    """What the server does, and what it was asked."""

    url: str = ""
    content: bytes = CONTENT
    stops: list[int] = field(default_factory=list)  # bytes after which one answer after the other breaks off
    ranges: bool = True
    tag: str | None = '"first"'
    conditions: bool = True  # whether it knows If-Range
    length: int | None = None  # another one than the content's
    status: list[int] = field(default_factory=list)  # of the next answers
    asked: list[tuple[str | None, str | None]] = field(default_factory=list)

    def first(self, asked: str | None, condition: str | None) -> int | None:
        """The first byte of a partial answer; None for a whole one."""
        changed = self.conditions and condition is not None and condition != self.tag
        if asked is None or not self.ranges or changed:
            return None
        return int(asked.removeprefix("bytes=").rstrip("-"))


@pytest.fixture
def server() -> Iterator[Server]:
    s = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(s.content)))
            self.end_headers()

        def do_GET(self) -> None:
            asked, condition = self.headers.get("Range"), self.headers.get("If-Range")
            s.asked.append((asked, condition))
            if s.status:
                self.send_error(s.status.pop(0))
                return
            first = s.first(asked, condition)
            if first is not None and first >= len(s.content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(s.content)}")
                self.end_headers()
                return
            self.send_response(200 if first is None else 206)
            if first is not None:
                self.send_header("Content-Range", f"bytes {first}-{len(s.content) - 1}/{len(s.content)}")
            if s.tag:
                self.send_header("ETag", s.tag)
            self.send_header("Content-Length", str(s.length or len(s.content) - (first or 0)))
            self.end_headers()
            rest = s.content[first or 0 :]
            self.wfile.write(rest[: s.stops.pop(0)] if s.stops else rest)

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    s.url = f"http://127.0.0.1:{http.server_port}/file"
    yield s
    http.shutdown()


@pytest.fixture(autouse=True)
def _quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "PAUSES", (0.0, 0.0))


def known(url: str | None, **more) -> KnownFile:
    return File("mine", "mine.pt", "nothing", "a page", "MIT", url=url, **more)


def begin(file: KnownFile, content: bytes, version: str | None = None) -> None:
    """As a command left it that was stopped."""
    file.folder.mkdir(parents=True)
    file.part.write_bytes(content)
    if version:
        file.validator.write_text(version)


def test_a_broken_connection_is_taken_up_again_at_once(server: Server) -> None:
    server.stops = [300_000, 1, 500_000]
    file = known(server.url, sha256=DIGEST, size=len(CONTENT))
    assert get(file).read_bytes() == CONTENT
    assert server.asked == [
        (None, None), ("bytes=300000-", '"first"'), ("bytes=300001-", '"first"'), ("bytes=800001-", '"first"'),
    ]  # fmt: skip
    assert state(file) == "here"
    assert sorted(p.name for p in file.folder.iterdir()) == ["mine.pt", "mine.pt.lock"]


def test_a_later_command_goes_on(server: Server) -> None:
    file = known(server.url, sha256=DIGEST)
    server.stops = [300_000, 0, 0]
    with pytest.raises(BenchError, match=r"ended after 300000 of 1024000 bytes.*goes on where it ended"):
        get(file)
    assert len(server.asked) == 3  # nothing arrived in the last two
    assert state(file) == "0 MB of it"
    assert get(file).read_bytes() == CONTENT
    assert server.asked[-1] == ("bytes=300000-", '"first"')


def test_a_server_without_ranges_begins_anew(server: Server) -> None:
    server.ranges, server.stops = False, [300_000]
    assert get(known(server.url, sha256=DIGEST)).read_bytes() == CONTENT
    assert server.asked == [(None, None), ("bytes=300000-", '"first"')]


@pytest.mark.parametrize("conditions", [True, False])
def test_another_file_on_the_server_is_not_joined_to_the_old_one(server: Server, conditions: bool) -> None:
    server.conditions = conditions
    file = known(server.url)
    begin(file, b"old" * 100, '"zeroth"')
    assert get(file).read_bytes() == CONTENT
    assert server.asked == [("bytes=300-", '"zeroth"')] + ([] if conditions else [(None, None)])


@pytest.mark.parametrize("tag", [None, 'W/"weak"'])
def test_without_a_tag_the_hash_decides(server: Server, tag: str | None) -> None:
    server.tag, server.stops = tag, [1000]
    file = known(server.url, sha256=DIGEST)
    assert get(file).read_bytes() == CONTENT
    assert server.asked == [(None, None), ("bytes=1000-", None)]
    file.path.unlink()
    begun = file.part
    begun.write_bytes(b"of another file")
    with pytest.raises(BenchError, match="is not mine: its sha256 is"):
        get(file)
    assert state(file) == "missing"


def test_all_of_it_had_arrived(server: Server) -> None:
    file = known(server.url, sha256=DIGEST)
    begin(file, CONTENT)
    assert get(file).read_bytes() == CONTENT
    assert server.asked == [("bytes=1024000-", None)]


def test_more_than_there_is_begins_anew(server: Server) -> None:
    file = known(server.url, sha256=DIGEST)
    begin(file, CONTENT + b"more")
    assert get(file).read_bytes() == CONTENT
    assert server.asked == [("bytes=1024004-", None), (None, None)]


def test_a_server_with_another_length_is_refused_before_anything_is_fetched(server: Server) -> None:
    file = known(server.url, size=5)
    with pytest.raises(BenchError, match="has 1024000 bytes, mine has 5: its publisher has replaced it"):
        get(file)
    assert state(file) == "missing"


def test_a_server_that_announces_more_than_it_sends(server: Server) -> None:
    server.length = len(CONTENT) + 10
    server.ranges = False
    with pytest.raises(BenchError, match="ended after 1024000 of 1024010 bytes"):
        get(known(server.url))


def test_a_wrong_hash_leaves_nothing(server: Server) -> None:
    file = known(server.url, sha256="0" * 64)
    with pytest.raises(BenchError, match="is not mine: its sha256 is"):
        get(file)
    assert state(file) == "missing"
    assert not file.validator.exists()


def test_too_small_a_disk_is_said_before_it_begins(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = namedtuple("disk", "total used free")
    free = len(CONTENT) + download.MARGIN - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda path: disk(0, 0, free))
    file = known(server.url)
    with pytest.raises(BenchError, match=r"mine needs 101 MB in .*, 101 MB are free: free some, or set BENCH_CACHE"):
        get(file)
    assert state(file) == "missing"
    begin_size = 1000  # what has arrived needs no room any more
    file.part.write_bytes(CONTENT[:begin_size])
    file.validator.write_text('"first"')
    assert get(file).read_bytes() == CONTENT


@pytest.mark.parametrize("code", [500, 503])
def test_a_server_that_is_busy_on_the_way(server: Server, code: int) -> None:
    server.stops = [1000]
    file = known(server.url, sha256=DIGEST)

    class Later(list):  # the error comes after the first answer
        def __bool__(self) -> bool:
            return len(server.asked) == 2 and len(self) > 0

    server.status = Later([code])
    assert get(file).read_bytes() == CONTENT
    assert len(server.asked) == 3


def test_no_network_is_one_sentence_at_once(server: Server) -> None:
    for url in ("http://127.0.0.1:9/x", server.url):
        server.status = [404]
        with pytest.raises(BenchError, match=r"could not be downloaded from .*check the network"):
            get(known(url))
    assert len(server.asked) == 1


def test_what_has_no_hash_is_pinned(server: Server) -> None:
    file = known(server.url)
    path = get(file)
    assert DIGEST in file.pins.read_text()
    path.write_bytes(b"something else")
    with pytest.raises(BenchError, match=r"is not mine.*or remove its line in .*pins\.json"):
        get(file)


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"mine.pt": 1}', '"abc"'])
def test_damaged_pins_are_told_of_and_cost_no_download(content: str, server: Server) -> None:
    file = known(server.url)
    begin(file, CONTENT[:1000], '"first"')
    file.pins.write_text(content)
    with pytest.raises(BenchError, match=r"pins\.json .*: delete it, and files are pinned anew\.$"):
        get(file)
    assert file.part.read_bytes() == CONTENT[:1000]
    assert not server.asked


@pytest.mark.parametrize("version", [b"", b'"fir\nst"', b'"fi\xffst"'])
def test_a_damaged_version_of_a_part_costs_the_part(version: bytes, server: Server) -> None:
    file = known(server.url)
    begin(file, b"another file's", "x")
    file.validator.write_bytes(version)
    assert get(file).read_bytes() == CONTENT
    assert server.asked == [(None, None)]


def test_the_plans_line(server: Server) -> None:
    assert remote_size(known(server.url)) == len(CONTENT)
    assert describe(known(server.url)) == f"mine.pt: missing; to be downloaded from {server.url} (1 MB)"
    assert "get it from a page, then python -m bench weights add mine FILE" in describe(known(None))
    assert "size unknown" in describe(known("http://127.0.0.1:9/x"))
    get(known(server.url))
    assert describe(known(server.url)) == "mine.pt: here"


def test_a_local_file(tmp_path: Path) -> None:
    source = tmp_path / "from_a_friend.pt"
    source.write_bytes(CONTENT)
    c = known(None, sha256=DIGEST)
    with pytest.raises(BenchError, match="from a page, then python -m bench weights add mine FILE"):
        get(c)
    assert add(c, source).read_bytes() == CONTENT
    with pytest.raises(BenchError, match="has 1024000 bytes, mine has 5"):
        add(replace(c, size=5), source)
    with pytest.raises(BenchError, match="does not exist"):
        add(c, tmp_path / "nothing")


@pytest.mark.parametrize("published", [True, False])
def test_a_wrong_local_file_is_the_persons_own(tmp_path: Path, published: bool) -> None:
    good, wrong = tmp_path / "good", tmp_path / "wrong"
    good.write_bytes(CONTENT)
    wrong.write_bytes(b"another")
    c = known(None, **({"sha256": DIGEST} if published else {}))
    add(c, good)
    with pytest.raises(BenchError) as error:
        add(c, wrong)
    assert f"{wrong} is not mine: its sha256 is " in str(error.value)
    assert "give the file mine.pt of a page" in str(error.value)
    assert "delete" not in str(error.value)
    assert ("pins.json" in str(error.value)) is not published  # what is published is in no list of ours
    assert wrong.is_file()
    assert c.path.read_bytes() == CONTENT
    c.path.write_bytes(b"damaged")
    with pytest.raises(BenchError, match="delete it and fetch it again"):
        verify(c, c.path)


@pytest.fixture
def few(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> np.ndarray:
    """An FFHQ of 12 images on the local server."""
    images = np.random.default_rng(0).integers(0, 256, (12, 256, 256, 3), np.uint8)
    np.save(tmp_path / "few.npy", images)
    server.content = (tmp_path / "few.npy").read_bytes()
    monkeypatch.setattr(ffhq256, "COUNT", 12)
    monkeypatch.setattr(ffhq256, "VALIDATION", 6)
    monkeypatch.setattr(ffhq256, "TEST", 4)
    monkeypatch.setattr(ffhq256, "FILE", replace(ffhq256.FILE, url=server.url))
    return images


def test_ffhq_is_downloaded_and_found(
    server: Server, few: np.ndarray, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(BenchError, match=r"FFHQ-256 file is not here.*python -m bench data get ffhq256 \(13.8 GB\)"):
        make_dataset({"name": "ffhq256", "path": None})
    server.stops = [400_000]
    assert main(["data", "get", "ffhq256"]) == 0
    path = tmp_path / "cache" / "ffhq256" / "ffhq-256.npy"
    assert capsys.readouterr().out.strip() == str(path)
    assert len(server.asked) == 2
    dataset = make_dataset({"name": "ffhq256", "path": None, "split": "val"})
    order = np.random.RandomState(5).permutation(12)
    assert np.array_equal(dataset.load(1), few[order[-6:][5]])
    assert hashlib.sha256(server.content).hexdigest() in (path.parent / "pins.json").read_text()


@pytest.mark.parametrize("broken", ["cut", "longer", "shape"])
def test_what_is_no_ffhq_is_not_kept(server: Server, few: np.ndarray, broken: str, tmp_path: Path) -> None:
    """A server whose own file is not whole: its length and hash say nothing, its header does."""
    if broken == "shape":
        np.save(tmp_path / "few.npy", few[:11])
        server.content = (tmp_path / "few.npy").read_bytes()
    else:
        server.content = server.content[:-5] if broken == "cut" else server.content + bytes(200)
    with pytest.raises(BenchError, match=r"no complete npy file|bytes beside its pixels|expected uint8"):
        get(ffhq256.FILE)
    assert state(ffhq256.FILE) == "missing"


def test_commands_say_what_cannot_be_had(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "get", "folder"]) == 1
    assert "is not downloaded by a command" in capsys.readouterr().err
    assert main(["data", "get", "ffhq25"]) == 1
    assert "Did you mean 'ffhq256'" in capsys.readouterr().err

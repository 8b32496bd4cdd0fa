"""Damage in the cache: pools of training images, files that were downloaded, their pins, and half a download."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from tests.faults.campaign import TRAIN, Campaign, Outcome, damage
from tests.faults.process import Started

CONTENT = random.Random(0).randbytes(200_000)
KINDS = ("pools/*.npy", "pools/*.sha256", "weights/here.pt", "weights/pins.json", "weights/half.pt.part",
         "weights/half.pt.part.version")  # fmt: skip


def damaged_cache(campaign: Campaign, times: int) -> Outcome:
    """One file of the cache cut, emptied or with a bit flipped; then what uses it.

    A training must have the weights that it has without the damage, and a download must end with the server's file. One
    has no published hash and is pinned. The half download's hash is published: without one, nothing could tell that the
    part that is here is damaged.
    """
    outcome = Outcome("cache: damaged file")
    campaign.whole(TRAIN)
    cache = Path(os.environ["BENCH_CACHE"])
    with server() as url:
        for i in range(times):
            rng, kind = campaign.rng(outcome.fault, i), KINDS[i % len(KINDS)]
            if kind.startswith("weights"):
                shutil.rmtree(cache / "weights", ignore_errors=True)
                downloads(campaign, outcome, url, cache / kind, rng)
            else:
                kept = campaign.fresh("pools")
                shutil.copytree(cache / "pools", kept, dirs_exist_ok=True)
                damage(rng.choice(sorted(cache.glob(kind))), rng)
                out = campaign.fresh("damaged")
                outcome.note(campaign.start(TRAIN, out).wait())
                campaign.finish(outcome, TRAIN, out)
                changed = [
                    p.name for p in kept.glob("*.npy") if p.read_bytes() != (cache / "pools" / p.name).read_bytes()
                ]
                outcome.wrong += [f"{kind}: not made again: {changed}"] if changed else []
    return outcome


def downloads(campaign: Campaign, outcome: Outcome, url: str, damaged: Path, rng: random.Random) -> None:
    """Download two files, the second from its middle on; damage something, and ask for both."""

    def known() -> None:
        from bench import download, weights

        download.PAUSES = ()
        half = hashlib.sha256(CONTENT).hexdigest()
        weights.CHECKPOINTS = (
            weights.Checkpoint("here", "here.pt", "nothing", "a page", "MIT", url=f"{url}/here"),
            weights.Checkpoint("half", "half.pt", "nothing", "a page", "MIT", url=f"{url}/half", sha256=half),
        )

    def get(name: str) -> Started:
        return Started(["weights", "get", name], campaign.folder / "log.txt", known)

    folder = damaged.parent
    assert get("here").wait().code == 0
    (folder / "half.pt.part").write_bytes(CONTENT[: len(CONTENT) // 2])
    (folder / "half.pt.part.version").write_text('"first"')
    damage(damaged, rng)
    for name in ("here", "half"):
        for start in range(4):
            ended = get(name).wait()
            if start == 0:
                outcome.note(ended)
                outcome.times -= name == "half"  # it is one damage
            if ended.code == 0:
                break
            if ended.sentence is None:
                if start:  # the first one's is noted above
                    outcome.wrong.append(f"started again: {ended.text[-400:]}")
                return
            campaign.obey(ended.sentence, folder)
        if not (folder / f"{name}.pt").exists() or (folder / f"{name}.pt").read_bytes() != CONTENT:
            outcome.wrong.append(f"{damaged.name}: {name}.pt is not what the server has: {ended.text[-300:]}")


@contextmanager
def server() -> Iterator[str]:
    """A server of `CONTENT` in a process of its own, which knows parts and versions; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked, condition = self.headers.get("Range"), self.headers.get("If-Range")
            part = asked is not None and condition in (None, '"first"')
            first = int(asked.removeprefix("bytes=").rstrip("-")) if asked and part else 0
            self.send_response(206 if part else 200)
            if part:
                self.send_header("Content-Range", f"bytes {first}-{len(CONTENT) - 1}/{len(CONTENT)}")
            self.send_header("ETag", '"first"')
            self.send_header("Content-Length", str(len(CONTENT) - first))
            self.end_headers()
            self.wfile.write(CONTENT[first:])

        def log_message(self, *_: object) -> None:
            pass

    http = HTTPServer(("127.0.0.1", 0), Handler)
    pid = os.fork()
    if pid == 0:
        try:
            http.serve_forever()
        finally:
            os._exit(0)
    http.socket.close()
    try:
        yield f"http://127.0.0.1:{http.server_port}"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

"""Measure everything that only a GPU can tell, in pieces that resume.

    scripts/gpu FOLDER [--minutes 9] [--wheels WHEELS] [--public FOLDER] [--only tests equal ...]

does as many pieces as fit into the minutes and exits with 75 while there are more; the same command goes on. What is
done is in FOLDER/pieces, all of it in FOLDER/gpu.json and gpu.md. A piece that fails, or takes over three times what it
was planned for, is written down with its reason; the exit code of the last call is 1 where there is one, where a test
fails, or where float32 samples differ from the CPU's by more than 1e-4. Delete a piece's file to try it again.

- `tests`: the tests that need a GPU (tests/test_gpu.py) and those of mixed devices.
- `equal`: every method with shipped weights, samples on the GPU against the CPU's with the same noise: float32 without
  TF32 (at most 1e-4 of intensities in [0, 1]), with TF32, and in bf16.
- `speed`: the four full-size networks with random weights: at x8 every option of `compute` alone, TF32, and all options
  together; at x4 none and all.
- `memory`: seconds a sample and peak memory with 1, 2, 4, ... samples together.
- `public`: the public code and ours in one process. `--public` names a folder with checkouts of
  github:jprost76/srvdvae, JingyunLiang/HCFlow, Janspiry/Image-Super-Resolution-via-Iterative-Refinement and
  DPS2022/diffusion-posterior-sampling under the last part of their names.
- `noise`: streams drawn on the CPU and moved, against the same number drawn on the device (scripts/philox.py).

TF32 is off everywhere but where a row names it.

A machine without a network: `python -m scripts.train_shipped --make-wheels WHEELS --python 3.12` brings the few
packages that PyTorch's image lacks. `--device cpu --small` tries the pieces where there is no GPU; its figures mean
nothing.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

AGAIN = 75
"""Exit code of a piece that ended before the work did (EX_TEMPFAIL)."""
KINDS = ("tests", "equal", "speed", "memory", "public", "noise")
FULL = ("cvdvae_ffhq256", "hcflow_ffhq256", "sr3_ffhq256", "dps_ffhq256")
SMALL = ("cvdvae", "hcflow", "sr3", "dps")
STEPS = {"sr3": 20, "dps": 20}
"""Steps of a network's trajectory that are timed; a sample of the protocol has 2000 and 1000 of the same."""
SAMPLES = 8
ROWS = (1, 2, 4, 8, 16, 32)
SAME = 1e-4
"""Largest difference that float32 samples may have from the CPU's."""
PATIENCE = 3
"""Times its planned minutes that a piece may take."""
PUBLIC = {
    "cvdvae": ("srvdvae", ["scripts.compare_vdvae", "--cvdvae", "{}", "--samples", "5"]),
    "hcflow": ("HCFlow", ["scripts.compare_hcflow", "{}", "--samples", "5"]),
    "sr3": ("Image-Super-Resolution-via-Iterative-Refinement", ["scripts.compare_sr3", "{}", "--steps", "20"]),
    "dps": ("diffusion-posterior-sampling", ["scripts.compare_dps", "{}", "--steps", "20", "--channels-last"]),
}


@dataclass(frozen=True)
class Piece:
    """One measurement that is done in one go.

    Attributes:
        kind: one of :data:`KINDS`.
        name: of its row in the table.
        minutes: what it may take; it is not begun with less left.
        measure: does it and returns what JSON can hold.

    """

    kind: str
    name: str
    minutes: float
    measure: Callable[[], Any]

    @property
    def file(self) -> str:
        """Its file in FOLDER/pieces."""
        return f"{self.kind}-{re.sub('[^A-Za-z0-9_]+', '-', self.name)}.json"


class Measurement:
    """All pieces, for one device.

    Args:
        device: "cuda" or "cpu".
        small: shipped weights at 64 pixels and few steps in place of full-size networks.
        folder: where random weights go.
        public: folder of checkouts, or None.

    """

    def __init__(self, device: str, small: bool, folder: Path, public: Path | None) -> None:
        self.device, self.small, self.folder, self.public = device, small, folder, public
        self.labels = SMALL if small else FULL
        self._weights: list[str] | None = None

    def pieces(self) -> Iterator[Piece]:
        """In the order of their worth."""
        yield Piece("tests", "device", 2, self.tests)
        for label in shipped_methods():
            yield Piece("equal", label, 0.15, partial(self.equal, label))
        for label in self.labels:
            for scale, name, settings in self.options():
                minutes = 0.75 if settings["compile"] else 0.2
                measure = partial(self.speed, label, scale, name, settings)
                yield Piece("speed", f"{label}/x{scale}/{name}", minutes, measure)
        for label in self.labels:
            yield Piece("memory", f"{label}/x8", 0.5, partial(self.memory, label))
        for name in PUBLIC:
            yield Piece("public", name, 0.5, partial(self.beside_public, name))
        yield Piece("noise", "streams", 0.3, self.noise)

    def options(self) -> Iterator[tuple[int, str, dict[str, Any]]]:
        """Scale, name and settings of the rows of a network's table of speed; what is compiled comes last."""
        from scripts.speed_options import OFF, cases

        found = cases(SAMPLES if not self.small else 2) | {"TF32": OFF}
        rows = [(8, name, s) for name, s in found.items()] + [(4, name, found[name]) for name in ("none", "all")]
        yield from sorted(rows, key=lambda row: bool(row[2]["compile"]))

    def tests(self) -> dict[str, Any]:
        """Run the tests that need a device; their closing line."""
        words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_gpu.py", "tests/test_devices.py"]
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)  # ended by `limit`
        lines = (done.stdout + done.stderr).strip().splitlines() or ["nothing printed"]
        return {"passed": done.returncode == 0, "line": lines[-1], "tail": lines[-30:]}

    def equal(self, label: str) -> dict[str, float]:
        """Largest difference of samples from the CPU's, per precision."""
        words = [f"methods=[{label}]", *self._steps(label, 10)]
        expected = self._draw(words, "cpu")[0]
        found = {}
        for name, precision in (("float32", "32"), ("TF32", "32"), ("bf16", "bf16")):
            if precision != "32" and not has_network(label):
                continue
            settings = {"precision": precision} if has_network(label) else None
            with tf32(name == "TF32"):
                found[name] = float((self._draw(words, self.device, settings)[0] - expected).abs().max())
        return found

    def speed(self, label: str, scale: int, name: str, settings: Mapping[str, Any]) -> dict[str, float | None]:
        """One option: seconds a sample, memory, change of the images from those without any."""
        import numpy as np

        with tf32(name == "TF32"):
            x, seconds, memory = self._draw([*self._words(label), f"scale={scale}"], self.device, settings)
        kept = self.folder / "expected" / f"{label}-x{scale}.npy"
        if name == "none":
            kept.parent.mkdir(exist_ok=True)
            np.save(kept, x.numpy())
        change = float(np.abs(x.numpy() - np.load(kept)).max()) if kept.is_file() else None
        return {"seconds": seconds, "memory_gb": memory, "change": change}

    def memory(self, label: str) -> list[dict[str, Any]]:
        """Seconds a sample and peak memory by the number of samples together, as they come from the configuration."""
        import torch

        rows: list[dict[str, Any]] = []
        for count in ROWS if not self.small else ROWS[:2]:
            words = [*self._words(label, n=count), "scale=8"]
            try:
                _, seconds, memory = self._draw(words, self.device, {"rows": count})
            except torch.OutOfMemoryError:
                rows.append({"rows": count, "failed": "out of memory"})
                break
            rows.append({"rows": count, "seconds": seconds, "memory_gb": memory})
        return rows

    def beside_public(self, name: str) -> dict[str, Any]:
        """The lines of the script that runs both."""
        checkout, words = PUBLIC[name]
        if self.public is None or not (self.public / checkout).is_dir():
            return {"missing": f"--public has no checkout {checkout}"}
        size = "small" if self.small else "full"
        command = [w.format(self.public / checkout) for w in words]
        done = subprocess.run(
            [sys.executable, "-m", *command, "--size", size, "--device", self.device],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError((done.stderr.strip().splitlines() or ["it printed no reason"])[-1])
        return {"lines": done.stdout.strip().splitlines()}

    def noise(self) -> dict[str, float]:
        """Milliseconds for the noise of five full-size samples of CVDVAE and of one step of DPS, three ways."""
        import torch

        from bench.contract import Noise
        from scripts import philox

        latents = 16 * sum(resolution**2 * blocks for resolution, blocks in ((64, 12), (128, 10), (256, 5)))
        found = {}
        for name, count in (("CVDVAE, a sample", latents), ("DPS, a step", 3 * 256**2)):
            streams = Noise(0, ["image"], range(5), self.device)
            keys = torch.randint(0, 2**32, (5, 2)).to(self.device)

            def on_device(count: int = count) -> torch.Tensor:
                return torch.randn(5, count, device=self.device)

            ways: dict[str, Callable[[], Any]] = {
                "CPU streams, moved": partial(streams.normal, count),
                "Philox on the device": partial(philox.normal, keys, count),
                "device's own, not reproducible": on_device,
            }
            for way, draw in ways.items():
                found[f"{name}: {way}"] = 1000 * self._seconds(draw) / 5
        return found

    def _seconds(self, call: Callable[[], Any], repeats: int = 5) -> float:
        times = []
        for _ in range(repeats):
            self._wait()
            begun = time.perf_counter()
            call()
            self._wait()
            times.append(time.perf_counter() - begun)
        return min(times[1:])

    def _wait(self) -> None:
        import torch

        if self.device != "cpu":
            torch.cuda.synchronize()

    def _draw(self, words: Sequence[str], device: str, compute: Mapping[str, Any] | None = None) -> tuple[Any, ...]:
        import torch

        from bench.config import compose, read_config
        from bench.machine import release_memory
        from scripts.speed_options import OFF, Task

        config = read_config(compose("run", [*words, f"device={device}"]))
        settings = None if compute is None else {**OFF, **compute}
        try:
            return Task(config, config.methods[0]).draw(settings, repeats=1 if device == "cpu" else 2)
        finally:  # nothing of this one stays on the device while the next is measured
            torch._dynamo.reset()
            release_memory()

    def _words(self, label: str, n: int | None = None) -> list[str]:
        n = n or (SAMPLES if not self.small else 2)
        words = [f"methods=[{label}]", f"n={n}", "dataset=synthfaces", *self._steps(label, 2 if self.small else 20)]
        if label.startswith("cvdvae"):
            words.append(f"methods.{label}.output=mean")  # equal noise gives equal images whatever the rounding
        if self.small:
            return words
        if self._weights is None:
            from scripts.random_weights import write_weights

            self._weights = write_weights(self.folder / "weights")
        return [*words, "dataset.size=256", *(w for w in self._weights if w.startswith(f"methods.{label}."))]

    def _steps(self, label: str, steps: int) -> list[str]:
        return [f"methods.{label}.steps={steps}"] if label.split("_")[0] not in ("cvdvae", "hcflow", "bicubic") else []


@contextmanager
def tf32(on: bool) -> Iterator[None]:
    """Let matrix products and convolutions of float32 be in TF32, or not."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = on
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


@contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in what takes longer."""

    def ring(*_: Any) -> None:
        raise TimeoutError(f"it took longer than {seconds / 60:.1f} minutes")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def wrong(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A sentence on everything that did not go as it must."""
    found = [
        f"{kind} {name}: {result['failed']}"
        for kind, group in results.items()
        for name, result in group.items()
        if isinstance(result, dict) and "failed" in result
    ]
    for name, result in results.get("tests", {}).items():
        if result.get("passed") is False:
            found.append(f"tests {name}: {result['line']}")
    for name, result in results.get("equal", {}).items():
        if "float32" in result and not result["float32"] <= SAME:  # NaN, too
            found.append(f"equal {name}: float32 samples differ from the CPU's by {result['float32']:.1e} ({SAME:g})")
    return found


def shipped_methods() -> list[str]:
    """The methods whose weights are shipped, by the names of their configurations."""
    return ["bicubic", *SMALL, "ddrm", "ddnm", "pigdm", "diffpir", "daps", "reddiff", "pnpdm"]


def has_network(label: str) -> bool:
    """Whether a method has options of computing."""
    return label != "bicubic"


def as_markdown(results: Mapping[str, Any], device: Mapping[str, Any]) -> str:
    """All results for reading; results by kind and name."""
    from tabulate import tabulate

    lines = [
        f"Measured on {device['name']}, torch {device['torch']}, CUDA {device['cuda']}, commit {device['commit']}.",
        "",
    ]

    def table(title: str, heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        if rows:
            lines.extend([f"## {title}", "", tabulate(rows, headers=heads, tablefmt="pipe", floatfmt=".3g"), ""])

    if sentences := wrong(results):
        lines.extend(["## Wrong", "", *(f"- {sentence}" for sentence in sentences), ""])
    of = {
        kind: {n: r for n, r in results.get(kind, {}).items() if not (isinstance(r, dict) and "failed" in r)}
        for kind in KINDS
    }
    table("Tests", ["", "closing line"], [(n, r["line"]) for n, r in of["tests"].items()])
    precisions = ("float32", "TF32", "bf16")
    table(
        "Samples against the CPU's, largest difference (images in [0, 1])", ["method", *precisions],
        [(n, *(r.get(p) for p in precisions)) for n, r in of["equal"].items()],
    )  # fmt: skip
    heads = ["options", "s a sample", "memory (GB)", "largest change"]
    keys = ("seconds", "memory_gb", "change")
    networks: dict[str, list[tuple[Any, ...]]] = {}
    for name, r in of["speed"].items():
        network, option = name.rsplit("/", 1)
        networks.setdefault(network, []).append((option, *(r[k] for k in keys)))
    for network, options in networks.items():
        table(f"Options of {network}", heads, options)
    for name, rows in of["memory"].items():
        table(
            f"Samples together, {name}", ["samples", "s a sample", "memory (GB)"],
            [(r["rows"], *(r.get(k, r.get("failed")) for k in ("seconds", "memory_gb"))) for r in rows],
        )  # fmt: skip
    for name, r in of["public"].items():
        text = r.get("lines", [r.get("missing")])
        lines.extend([f"## The public code beside ours: {name}", "", *(f"    {line}" for line in text), ""])
    table("Noise (ms)", ["", "ms"], [(k, v) for r in of["noise"].values() for k, v in r.items()])
    return "\n".join(lines)


def describe(device: str) -> dict[str, Any]:
    """What was measured on."""
    import torch

    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "name": torch.cuda.get_device_name() if device != "cpu" else "a CPU",
        "torch": torch.__version__, "cuda": torch.version.cuda, "commit": commit.stdout.strip() or "unknown",
    }  # fmt: skip


def measure_all(measurement: Measurement, folder: Path, minutes: float, only: Sequence[str]) -> int:
    """Do what fits into the minutes; return the exit code."""
    from bench.files import write_atomic

    begun = time.monotonic()
    done = folder / "pieces"
    done.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict[str, Any]] = {}
    code = 0
    for piece in measurement.pieces():
        if piece.kind not in only:
            continue
        path = done / piece.file
        if not path.is_file():
            if (time.monotonic() - begun) / 60 + piece.minutes > minutes:
                code = AGAIN
                continue  # a shorter one may fit
            print(f"{piece.kind} {piece.name}", flush=True)
            left = 60 * minutes - (time.monotonic() - begun)
            seconds = 60 * PATIENCE * piece.minutes
            try:
                with tf32(False), limit(min(seconds, left)):
                    result = piece.measure()
            except TimeoutError as reason:
                if left < seconds:  # the call is over; the next one has more time for it
                    code = AGAIN
                    continue
                result = {"failed": str(reason)}
            except Exception as reason:  # noqa: BLE001 -- written down; the other pieces go on
                traceback.print_exc()
                result = {
                    "failed": f"{type(reason).__name__}: {str(reason).splitlines()[0] if str(reason) else ''}"[:300]
                }
            if "missing" in result:  # to be measured once it is there
                results.setdefault(piece.kind, {})[piece.name] = result
                continue
            write_atomic(path, json.dumps(result, indent=1))
        results.setdefault(piece.kind, {})[piece.name] = json.loads(path.read_text())
    device = describe(measurement.device)
    write_atomic(folder / "gpu.json", json.dumps({"device": device, "results": results}, indent=1))
    write_atomic(folder / "gpu.md", as_markdown(results, device))
    for sentence in wrong(results):
        print(f"scripts/gpu: {sentence}", file=sys.stderr)
    return code or int(bool(wrong(results)))


def main(given: Sequence[str] | None = None) -> int:
    """Measure; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="scripts/gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", default=Path("results/runs/gpu"))
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--public", type=Path, metavar="FOLDER")
    parser.add_argument("--wheels", type=Path)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--small", action="store_true")
    a = parser.parse_args(given)
    folder: Path = a.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if a.wheels:
        from scripts.train_shipped import install_wheels

        install_wheels(a.wheels, folder / "site")
    import torch

    if a.device == "cuda" and not torch.cuda.is_available():
        print("scripts/gpu: torch sees no GPU here; --device cpu --small only tries the pieces.", file=sys.stderr)
        return 2
    return measure_all(Measurement(a.device, a.small, folder, a.public), folder, a.minutes, a.only)


if __name__ == "__main__":
    sys.exit(main())

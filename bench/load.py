"""A method ready for use from Python: built from its configuration, prepared for what it is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bench.config import MethodConfig, compose, merge, method_config, plain, resolve_device
from bench.contract import Facts, Method, Noise, is_whole, methods
from bench.errors import BenchError, near_matches
from bench.operators import Operator, make_operator, operator_kind
from bench.settings import build


def load_method(
    name: str,
    scale: int,
    *,
    operator: str | Mapping[str, Any] = "bicubic",
    sigma: float | None = None,
    device: str = "auto",
    **settings: Any,
) -> LoadedMethod:
    """Load a method with the settings that it has on the command line.

    Args:
        name: of its configuration, ``configs/methods/NAME.yaml``, as in ``methods=[NAME]``.
        scale: scale factor; 1 for an operator that keeps the size.
        operator: name of its configuration, or a mapping with "name" and further settings.
        sigma: standard deviation of the noise in y; None for the operator's own (0).
        device: auto, cpu, cuda or cuda:N.
        **settings: of the method, groups as mappings: ``load_method("dps", 8, steps=50, compute={"rows": 8})``.

    Raises:
        BenchError: an unknown name or setting, an operator that the method does not do, missing or mismatching
            weights, in one sentence.

    """
    if not isinstance(name, str):
        raise BenchError(f"The method's name is {name!r}: give that of its configuration, as load_method('cvdvae', 8).")
    if not isinstance(device, str):
        raise BenchError(f"device={device!r} is wrong: give text, as 'auto', 'cpu' or 'cuda:0'.")
    config = method_config(name, settings)
    method = make_method(config)
    return LoadedMethod(method, _operator_config(operator, sigma), scale, resolve_device(device))


def make_method(config: MethodConfig) -> Method:
    """Build a method from its settings; BenchError for unknown names or settings."""
    return build(methods.get(config.name), config.parameters, f"{config.place}.{config.label}", config.name)


class LoadedMethod:
    """A method that takes observations of any size that it can do.

    One whose network fixes the size is prepared at once, any other when it sees the size of y.

    Attributes:
        method: what does the work.
        device: where it computes.

    Raises:
        BenchError: an operator that the method does not do, or missing or mismatching weights.

    """

    def __init__(self, method: Method, operator: Mapping[str, Any], scale: int, device: str) -> None:
        if not is_whole(scale) or scale < 1:
            raise BenchError(f"scale={scale} is wrong: give a whole number, as 4 or 8.")
        scale = int(scale)
        self.method = method
        self.device = torch.device(device)
        self._config = operator
        self._scale = scale
        if reason := self.facts.refuses(operator_kind(operator, scale), scale, float(operator.get("sigma", 0.0))):
            raise BenchError(f"{reason}.")
        self._prepared: Operator | None = None
        if method.size is not None:
            self._prepare(self._operator(method.size))

    @property
    def facts(self) -> Facts:
        """What the method declares."""
        return self.method.facts

    def sample(self, y: Tensor, n: int, tau: float | None = None, noise: Noise | None = None) -> Tensor:
        """Draw `n` high-resolution images for each low-resolution one; see :meth:`bench.contract.Method.sample`.

        Args:
            y: float32 [B, 3, h, w] in [0, 1], on any device.
            n: samples per image.
            tau: temperature in (0, 1]; None for 1. A method without a temperature ignores it.
            noise: the source of randomness for [B, n], on `device`; None keys it by the content of y, so that equal
                calls give equal samples.

        Returns:
            float32 [B, n, 3, H, W] in [0, 1] on `device`; NaN or infinite where the method failed for an image.

        Raises:
            BenchError: y is no batch of images, or of a size that the method cannot do; the sentence says how to
                convert it.

        Warns:
            bench.contract.UnusableSamples: the method failed for some images; the text names their places in y.

        """
        _check_images(y)
        return self.prepared(y.shape[-2], y.shape[-1]).sample(y.to(self.device), n, tau, noise)

    def prepared(self, height: int, width: int) -> Method:
        """The method, prepared for observations of this size where its network does not fix another.

        Raises:
            BenchError: missing or mismatching weights, or a size that it cannot do.

        """
        if self.method.size is None and (self._prepared is None or self._prepared.low_size != (height, width)):
            self._prepare(self._operator((height * self._scale, width * self._scale)))
        return self.method

    def _operator(self, size: tuple[int, int]) -> Operator:
        return make_operator(self._config, self._scale, size)

    def _prepare(self, operator: Operator) -> None:
        self._prepared = None  # in case it fails
        self.method.prepare(operator, self.device)
        self._prepared = operator


def _operator_config(operator: str | Mapping[str, Any], sigma: float | None) -> dict[str, Any]:
    """``name`` and settings of an operator, from its file and what is given."""
    from hydra.errors import MissingConfigException

    if not isinstance(operator, str | Mapping):
        raise BenchError(
            f"operator={operator!r} is wrong: give a name or settings, as 'bicubic' or {{'name': 'bicubic'}}."
        )
    given = {"name": operator} if isinstance(operator, str) else dict(operator)
    if "name" not in given:
        raise BenchError("operator has no name: give one, as operator='bicubic' or operator={'name': 'bicubic'}.")
    name = str(given.pop("name"))
    try:
        cfg = compose(None, [f"+operator={name}"])
    except MissingConfigException as error:
        raise BenchError(f"There is no operator '{name}'.{near_matches(name, error.options or [])}") from None
    return merge(plain(cfg)["operator"], given if sigma is None else {**given, "sigma": sigma})


def _check_images(y: Any) -> None:
    """Say how to convert what is no batch of images."""
    if not isinstance(y, Tensor):
        kind = f"{type(y).__module__}.{type(y).__name__}".removeprefix("builtins.")
        raise BenchError(
            f"y is a {kind}, not a tensor: for an 8-bit image [h, w, 3] give "
            "torch.from_numpy(numpy.array(y)).permute(2, 0, 1)[None].float() / 255."
        )
    if y.is_meta:
        raise BenchError("y is on the device meta, which holds no values: give a tensor on the CPU or a GPU.")
    if y.dtype != torch.float32:
        how = "y.float() / 255" if y.dtype == torch.uint8 else "y.float()"
        raise BenchError(f"y is {y.dtype}: give float32 in [0, 1], as {how}.")
    if y.dim() == 4 and y.shape[1] == 3:
        return
    how = "give [B, 3, h, w]"
    if y.dim() == 3 and y.shape[0] == 3:
        how = "for one image give y[None]"
    elif y.shape[-1:] == (3,) and y.dim() in (3, 4):
        how = "give y.movedim(-1, -3)" + ("[None]" if y.dim() == 3 else "")
    raise BenchError(f"y has the shape {list(y.shape)}, not [B, 3, h, w]: {how}.")

"""Run the official HCFlow code beside ours, with the same random weights (after initialisation) and the same noise.

    python -m scripts.compare_hcflow CHECKOUT [--size full] [--scale 4] [--samples 5] [--repeats 3] [--device cuda]

CHECKOUT is one of github:JingyunLiang/HCFlow. Prints the largest relative error of the likelihood, the flow's
observation and samples at temperature 0.8, float32, and the seconds that the samples of one image take.
"""

from __future__ import annotations

import argparse
import math
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from methods.hcflow.flow import Hcflow, HcflowConfig
from scripts.side_by_side import add_device, compare_speed, error, use_device

TAU = 0.8


def make_config(scale: int, size: str) -> HcflowConfig:
    """The official configuration, or a small one."""
    levels, quant = {4: (2, 64), 8: (3, 256)}[scale]
    if size == "full":
        return HcflowConfig(levels=levels, blocks=(7, 7) if scale == 4 else (5, 5), quant=quant)
    return HcflowConfig(
        levels=levels, steps=4, conditional=2, hidden=16, features=16, growth=8, blocks=(1, 1), quant=quant
    )


def their_options(scale: int, c: HcflowConfig) -> dict[str, Any]:
    """What the official network reads of its option file."""
    common = {
        "flow_permutation": "invconv", "flow_coupling": "Affine", "nn_module": "FCN", "hidden_channels": c.hidden,
    }  # fmt: skip
    split = {
        "enable": True, "after_flowstep": [c.conditional] * c.levels, "RRDB_nb": list(c.blocks),
        "RRDB_nf": c.features, "RRDB_gc": c.growth, **common,
    }  # fmt: skip
    flow = {"K": c.steps, "L": c.levels, "cond_channels": None, "splitOff": split, **common}
    return {"quant": c.quant, "scale": scale, "network_G": {"in_nc": 3, "flowDownsampler": flow}}


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--size", choices=("small", "full"), default="small")
    parser.add_argument("--scale", type=int, choices=(4, 8), default=8)
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=1, help="runs of each, in turn; the fastest counts")
    add_device(parser)
    arguments = parser.parse_args()
    use_device(arguments.device)

    utilities: Any = types.ModuleType("utils.util")  # the module itself needs packages of its own

    def get(options: Any, keys: list[str], default: Any = None) -> Any:
        for key in keys:
            options = (options or {}).get(key)
        return default if options is None else options

    utilities.opt_get = get
    utilities.register_hook = utilities.trunc_normal_ = None
    sys.modules["utils.util"] = utilities
    sys.path.insert(0, str(arguments.checkout / "codes"))
    from models.modules.HCFlowNet_SR_arch import HCFlowNet_SR  # type: ignore[import-not-found]

    scale, size = arguments.scale, 256 if arguments.size == "full" else 32
    config = make_config(scale, arguments.size)
    torch.manual_seed(0)
    np.random.seed(0)
    theirs, ours = HCFlowNet_SR(their_options(scale, config)), Hcflow(config).eval()
    x, y = torch.rand(1, 3, size, size), torch.rand(1, 3, size // scale, size // scale)
    with torch.no_grad():
        theirs.train()
        theirs(hr=x, lr=y)  # sets every ActNorm
        theirs.eval()
        for name, p in theirs.named_parameters():  # what begins at zero
            if "conv3" in name or name.endswith("f.weight"):
                p.add_(0.002 * torch.randn(p.shape))
        ours.load_state_dict(theirs.state_dict())
        ours.freeze()
        torch.manual_seed(1)
        their_y, their_nll = theirs(hr=x, lr=y)
        torch.manual_seed(1)
        log_prob, observed = ours.log_prob(x + torch.rand(x.shape) / config.quant, y)
        pixels = size**2  # the official figure is per pixel, and counts the dequantisation once per pixel
        nll = (math.log(config.quant) * pixels - log_prob) / (math.log(2) * pixels)
        print(f"x{scale} {arguments.size}: likelihood {error(nll, their_nll):.1e}, y {error(observed, their_y):.1e}")

        ours.to(memory_format=torch.channels_last)

        def reference() -> Tensor:
            torch.manual_seed(2)
            return torch.cat([theirs(lr=y, eps_std=TAU, reverse=True) for _ in range(arguments.samples)])

        def mine() -> Tensor:
            torch.manual_seed(2)
            coarse, drawn = ours.coarse_features(y), []
            for _ in range(arguments.samples):
                drawn.append(ours.generate(y, [TAU * torch.randn(1, *s) for s in ours.shapes((size, size))], coarse))
            return torch.cat(drawn).clamp(0, 1)

        print(f"{arguments.samples} samples of one image, together")
        print(compare_speed(reference, mine, arguments.repeats))


if __name__ == "__main__":
    main()

"""Run the published DPS code beside ours, with the same random weights and the same noise.

    python -m scripts.compare_dps CHECKOUT [--size full|imagenet] [--steps 50] [--repeats 3]

CHECKOUT is one of github:DPS2022/diffusion-posterior-sampling. Prints the largest relative error of the U-Net's output
and of a whole guided trajectory with our operator, float32, and the seconds per step of both.
"""

from __future__ import annotations

import argparse
import sys
import types
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.operators.bicubic import Bicubic
from methods.diffusion.checkpoints import from_guided_diffusion
from methods.diffusion.prior import DiffusionPrior
from methods.diffusion.sampler import Task
from methods.diffusion.schedule import TRAIN_STEPS, linear
from methods.diffusion.unet import PriorNetwork, UnetConfig
from methods.dps import Dps
from scripts.side_by_side import add_device, compare_speed, error, use_device

SIZES = {
    "small": UnetConfig(size=32, channels=32, multipliers=(1, 2, 2), blocks=1, attention=(16,), head_channels=16),
    # the published networks of FFHQ, and of ImageNet with an eighth of its channels and a quarter of its side
    "full": UnetConfig(),
    "imagenet": UnetConfig(
        size=64, channels=32, multipliers=(1, 1, 2, 2, 4, 4), blocks=2, attention=(8, 4, 2), head_channels=8
    ),
}


def fill(module: nn.Module) -> None:
    """Random weights everywhere (the published initialisation is zero in many places), small enough to be stable."""
    for i, (name, p) in enumerate(sorted(module.named_parameters())):
        drawn = torch.randn(p.shape, generator=torch.Generator().manual_seed(i), device="cpu")
        with torch.no_grad():
            if p.ndim > 1:
                p.copy_(0.5 * p[0].numel() ** -0.5 * drawn)
            else:  # norms keep a gain of about 1
                p.copy_(0.05 * drawn + float(name.endswith("weight")))


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=1, help="runs of each loop, in turn; the fastest counts")
    parser.add_argument("--channels-last", action="store_true", help="our network in this memory format")
    add_device(parser)
    arguments = parser.parse_args()
    use_device(arguments.device)
    device = torch.device(arguments.device)
    sys.path.insert(0, str(arguments.checkout))
    images = types.ModuleType("util.img_utils")  # only used to save pictures; needs packages of its own
    images.clear_color = None  # type: ignore[attr-defined]
    images.dynamic_thresholding = None  # type: ignore[attr-defined]
    sys.modules["util.img_utils"] = images
    from guided_diffusion.gaussian_diffusion import create_sampler  # type: ignore[import-not-found]
    from guided_diffusion.unet import create_model  # type: ignore[import-not-found]

    config = SIZES[arguments.size]
    theirs = create_model(
        image_size=config.size, num_channels=config.channels, num_res_blocks=config.blocks,
        channel_mult=",".join(map(str, config.multipliers)), learn_sigma=True,
        attention_resolutions=",".join(map(str, config.attention)),
        num_heads=4, num_head_channels=config.head_channels, use_scale_shift_norm=True, resblock_updown=True,
    )  # fmt: skip
    fill(theirs)
    theirs.eval()
    ours = PriorNetwork(config).eval()
    ours.unet.load_state_dict(from_guided_diffusion(theirs.state_dict(), config))
    if arguments.channels_last:
        ours.to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, config.size, config.size, generator=torch.Generator(device).manual_seed(0))
    t = torch.tensor([700, 3])
    with torch.no_grad():
        print(f"U-Net {arguments.size}: {error(ours(x, t), theirs(x, t)):.1e}")

    operator = Bicubic(config.size, 4).to(device)
    y = operator.observe(torch.rand(1, 3, config.size, config.size, generator=torch.Generator(device).manual_seed(1)))
    sampler = create_sampler(
        "ddpm", TRAIN_STEPS, "linear", "epsilon", "learned_range", False, True, False, str(arguments.steps)
    )
    noise = torch.Generator(device).manual_seed(3)
    real = torch.randn_like

    def condition(x_t: Tensor, measurement: Tensor, noisy_measurement: Tensor, x_prev: Tensor, x_0_hat: Tensor) -> Any:
        distance = torch.linalg.norm(measurement - operator.forward(x_0_hat))
        return x_t - 0.3 * torch.autograd.grad(distance, x_prev)[0], distance

    def drawn(like: Tensor) -> Tensor:
        if like.shape[-1] != config.size:
            return torch.zeros_like(like)  # the noisy measurement, which the method does not use
        return torch.randn(like.shape, generator=noise)

    def reference() -> Tensor:
        noise.manual_seed(3)
        torch.randn_like = drawn  # type: ignore[assignment]
        try:
            return sampler.p_sample_loop(theirs, x[:1].clone(), 2 * y - 1, condition, False, "")
        finally:
            torch.randn_like = real

    method = Dps(unet=config, weights="", steps=arguments.steps, guidance=0.3)
    method.prior = DiffusionPrior(ours, linear())

    def mine() -> Tensor:
        generator = torch.Generator(device).manual_seed(3)
        draws = chain([x[:1]], (torch.randn(x[:1].shape, generator=generator) for _ in range(arguments.steps)))
        return method.trajectory(Task(operator, y), lambda: next(draws))

    print(f"trajectory of {arguments.steps} steps, {arguments.size}, per step at batch 1")
    print(compare_speed(reference, mine, arguments.repeats, arguments.steps))


if __name__ == "__main__":
    main()

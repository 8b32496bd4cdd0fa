"""Run the public SR3 code beside ours, with the same random weights and the same noise.

    python -m scripts.compare_sr3 CHECKOUT [--size public128|full] [--steps 2000] [--repeats 3]

CHECKOUT is one of github:Janspiry/Image-Super-Resolution-via-Iterative-Refinement. Prints the largest relative error of
the network's output and of a whole trajectory, float32, and the seconds per step of both.
"""

from __future__ import annotations

import argparse
import sys
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from methods.sr3.sampler import BETAS, TRAIN_STEPS, moves_of, sample
from methods.sr3.unet import Sr3Config, Sr3Unet
from scripts.side_by_side import add_device, compare_speed, error, use_device

SIZES = {
    "small": Sr3Config(size=32, channels=32, multipliers=(1, 2, 4), blocks=2, attention=(16,), groups=16),
    "public128": Sr3Config(size=128, multipliers=(1, 2, 4, 8, 8), blocks=2, attention=(16,), groups=32),
    "full": Sr3Config(),
}


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--size", choices=tuple(SIZES), default="small")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=1, help="runs of each loop, in turn; the fastest counts")
    add_device(parser)
    arguments = parser.parse_args()
    use_device(arguments.device)
    sys.path.insert(0, str(arguments.checkout))
    from model.sr3_modules.diffusion import GaussianDiffusion  # type: ignore[import-not-found]
    from model.sr3_modules.unet import UNet  # type: ignore[import-not-found]

    config = SIZES[arguments.size]
    torch.manual_seed(0)
    theirs = UNet(
        inner_channel=config.channels, norm_groups=config.groups, channel_mults=config.multipliers,
        attn_res=config.attention, res_blocks=config.blocks, image_size=config.size,
    ).eval()  # fmt: skip
    ours = Sr3Unet(config).eval()
    ours.load_state_dict(theirs.state_dict())
    x, condition = torch.randn(2, 3, config.size, config.size), torch.rand(2, 3, config.size, config.size) * 2 - 1
    level = torch.tensor([0.1, 0.9])
    with torch.no_grad():
        their_noise = theirs(torch.cat([condition, x], 1), level[:, None])
        print(f"network {arguments.size}: {error(ours(x, condition, level), their_noise):.1e}")

    diffusion = GaussianDiffusion(theirs, config.size)
    schedule = {"schedule": "linear", "n_timestep": 2000, "linear_start": BETAS[0], "linear_end": BETAS[1]}
    diffusion.set_new_noise_schedule(schedule, torch.device(arguments.device))
    moves = moves_of(TRAIN_STEPS)[: arguments.steps]  # the first steps, where there is no time for all
    noise = torch.Generator(arguments.device)
    real = torch.randn_like

    def reference() -> Tensor:
        noise.manual_seed(3)
        torch.randn_like = lambda like: torch.randn(like.shape, generator=noise)  # type: ignore[assignment]
        image = x[:1].clone()
        try:
            for t in range(TRAIN_STEPS - 1, TRAIN_STEPS - 1 - arguments.steps, -1):
                image = diffusion.p_sample(image, t, condition_x=condition[:1])
        finally:
            torch.randn_like = real
        return image

    def mine() -> Tensor:
        generator = torch.Generator(arguments.device).manual_seed(3)
        draws = chain([x[:1]], (torch.randn(x[:1].shape, generator=generator) for _ in moves))
        return sample(ours, moves, condition[:1], lambda: next(draws))

    print(f"trajectory of {arguments.steps} steps, {arguments.size}, per step at batch 1")
    print(compare_speed(reference, mine, arguments.repeats, arguments.steps))


if __name__ == "__main__":
    main()

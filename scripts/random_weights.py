"""Write random weights for the five methods at FFHQ-256 size, to time them where trained ones are not at hand.

    python -m scripts.random_weights FOLDER [--run] [--fast]

prints the command that times all five on rendered faces; `--run` runs it, `--fast` adds bf16, torch.compile and CUDA
graphs where they are options. The images mean nothing; the times do.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from bench import cli
from bench.config import compose, plain
from methods.cvdvae.vdvae import LowResolutionConfig, Vdvae, VdvaeConfig
from methods.diffusion.unet import PriorNetwork, UnetConfig
from methods.hcflow.flow import Hcflow, HcflowConfig
from methods.sr3.unet import Sr3Config, Sr3Unet
from scripts.compare_vdvae import fill

LABELS = ("cvdvae_ffhq256", "hcflow_ffhq256", "sr3_ffhq256", "dps_ffhq256")


def write_weights(folder: Path) -> list[str]:
    """Write the files into a folder; return the settings that name them."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    cfg = plain(compose("run", [f"methods=[{','.join(LABELS)}]"]))["methods"]
    low = plain(compose(None, ["+network/vdvae_low=ffhq256"]))["network"]["vdvae_low"]  # with the k of training
    words = []

    def write(name: str, setting: str, module: nn.Module) -> None:
        path = folder / f"{name}.safetensors"
        save_file({k: v.contiguous() for k, v in module.state_dict().items()}, path)
        words.append(f"methods.{setting}={path}")

    for scale in ("x4", "x8"):
        c = cfg["cvdvae_ffhq256"]
        model = Vdvae(VdvaeConfig(**c["prior"]), LowResolutionConfig(**low[scale]))
        fill(model)  # PyTorch's initialisation overflows at this depth
        write(f"cvdvae_{scale}", f"cvdvae_ffhq256.low_weights.{scale}", model)
        write(
            f"hcflow_{scale}",
            f"hcflow_ffhq256.weights.{scale}",
            Hcflow(HcflowConfig(**cfg["hcflow_ffhq256"]["flow"][scale])),
        )
        write("sr3", f"sr3_ffhq256.weights.{scale}", Sr3Unet(Sr3Config(**cfg["sr3_ffhq256"]["unet"])))
    prior = Vdvae(VdvaeConfig(**cfg["cvdvae_ffhq256"]["prior"]))
    fill(prior)
    write("vdvae", "cvdvae_ffhq256.prior_weights", prior)
    write("dps", "dps_ffhq256.weights", PriorNetwork(UnetConfig(**cfg["dps_ffhq256"]["unet"])).unet)
    return words


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--run", action="store_true")
    parser.add_argument("--fast", action="store_true")
    arguments = parser.parse_args()
    words = write_weights(arguments.folder)
    out = "results/runs/times"
    if arguments.fast:
        out += "-fast"
        words += [f"methods.{m}.compute.precision=bf16" for m in ("cvdvae_ffhq256", "dps_ffhq256")]
        words += ["methods.cvdvae_ffhq256.compute.compile=reduce-overhead"]
        words += ["methods.dps_ffhq256.compute.compile=default"]
    words = [
        "run", f"methods=[bicubic,{','.join(LABELS)}]", "scale=[4,8]", "dataset=synthfaces", "dataset.size=256",
        "limit=1", "n=1", "metrics=[seconds,noise_seconds,throughput]", f"out={out}", *words,
    ]  # fmt: skip
    print("python -m bench", *words)
    if arguments.run:
        sys.exit(cli.main(words))


if __name__ == "__main__":
    main()

"""Seconds and peak memory of pruning with everything on: selection by reconstruction, a budget, sequential refit.

    python -m tests.bench.compensation_cost [--models residual,resnet50] [--threads 2]

The residual net learns from 2,048 images of Fashion-MNIST at a quarter of its MACs, ResNet-50 from 512 images of
224 x 224 at half of them (random weights and smooth noise: time and memory do not depend on what it sees). Each model
has a process of its own. Memory is what is resident at the highest point above the loaded model and its images.
"""

import argparse
import json
import subprocess
import sys
import time
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.bench import zoo_ops  # noqa: F401  (before torchvision)
from tests.bench.engine_speed import resident
from tests.bench.training import load_images, trained

FACTORS = {"residual": "4.0x", "resnet50": "2.0x"}
IMAGES = {"residual": 2048, "resnet50": 512}
LIMITS = {"residual": (30, 1024), "resnet50": (180, 1024)}  # seconds, MiB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(FACTORS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--alone", action="store_true", help="measure the one model in this process, and print JSON")
    options = parser.parse_args()
    if options.alone:
        print(json.dumps(measured(options.models, options.threads)))
        return
    head = ["model", "images", "fewer MACs", "s", "processor s", "limit, s", "MiB above the model", "limit, MiB"]
    print(f"torch {torch.__version__}, {options.threads} threads, pruning with compensation\n")
    for row in (head, ["---"] * len(head)):
        print("| " + " | ".join(row) + " |")
    for name in options.models.split(","):
        command = [sys.executable, "-m", "tests.bench.compensation_cost", "--alone", "--models", name]
        command += ["--threads", str(options.threads)]
        run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(run.stdout.splitlines()[-1])
        seconds, memory = LIMITS[name]
        cells = [name, str(IMAGES[name]), f"{found['factor']:.2f}x", f"{found['seconds']:.0f}"]
        cells += [f"{found['processor']:.0f}", str(seconds), f"{found['mib']:.0f}", str(memory)]
        print("| " + " | ".join(cells) + " |", flush=True)


def measured(name: str, threads: int) -> dict[str, float]:
    import pruning_core as pc

    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")
    model, images = residual() if name == "residual" else resnet50()
    spec = pc.PruningSpec(budget={"macs": FACTORS[name]})
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the highest point counts from here
    start, processor = time.perf_counter(), time.process_time()
    report = pc.prune(model, images[:1], spec, images).report
    return {
        "seconds": time.perf_counter() - start,
        "processor": time.process_time() - processor,
        "mib": resident("VmHWM") - before,
        "factor": report.before.macs / report.after.macs,
    }


def residual() -> tuple[nn.Module, Tensor]:
    images = load_images()
    return trained("residual", 0, images, Path(".cache/accuracy")), images.x[: IMAGES["residual"]].clone()


def resnet50() -> tuple[nn.Module, Tensor]:
    """Random weights, with BatchNorm statistics that fit the images."""
    from torchvision import models

    torch.manual_seed(0)
    model = models.resnet50(weights=None)
    images = torch.empty(IMAGES["resnet50"], 3, 224, 224)
    for part in images.split(32):
        smooth = F.interpolate(torch.randn(len(part), 3, 14, 14), size=(224, 224), mode="bilinear")
        part.copy_(smooth + 0.3 * torch.randn(part.shape))
    with torch.no_grad():
        for part in images[:48].split(16):
            model(part)
    return model.eval(), images


if __name__ == "__main__":
    main()

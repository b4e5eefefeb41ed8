"""What the training step adds to a bare PyTorch loop of the same training, in one process, in the order A B A B.

    python -m tests.bench.pipeline [--rounds 5] [--epochs 2] [--width 32] [--batch 64] [--check 1.05]

Both train the same pruned digits model with a teacher, on the same samples in the same order, and validate after every
epoch; at the end their weights are compared. Seconds are those of the processor (one thread), which other programs on
the machine disturb less than the clock; the clock's are printed beside them. Ours writes its checkpoints and reports
every batch. The weights differ a little, because ours steps with torch's fused optimizer.
"""

import argparse
import copy
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

import pruning_core as pc
from pipelines.config import Data as DataSection
from pipelines.config import Finetune
from pipelines.data import Data, load_data
from pipelines.models import digits_resnet
from pipelines.steps.finetune import finetune
from pipelines.steps.finetune.batches import Batches
from pipelines.tasks import Task, task_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--check", type=float, help="exit with status 1 where ours takes more than this many times as long")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    data = load_data(DataSection())
    torch.manual_seed(0)
    teacher = digits_resnet(width=options.width).eval()
    student = pc.prune(teacher, torch.from_numpy(data.train.x[:2]), pc.PruningSpec(ratio=0.3, criterion="l2_norm")).model  # type: ignore[attr-defined]
    training = Finetune(
        epochs=options.epochs, learning_rate=0.003, batch_size=options.batch, hardware={"accelerator": "cpu"}
    )  # type: ignore[arg-type]
    runs: dict[str, Callable[[nn.Module], None]] = {
        "bare": lambda module: bare(module, teacher, data, task_of(data), training),
        "ours": lambda module: ours(module, teacher, data, training),
    }
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    ends: dict[str, nn.Module] = {}
    for number in range(options.rounds + 1):
        for name, run in runs.items():
            ends[name] = copy.deepcopy(student)
            processor, clock = time.process_time(), time.perf_counter()
            run(ends[name])
            if number:  # the first warms up
                took[name].append((time.process_time() - processor, time.perf_counter() - clock))
    batches = len(Batches(data.train, options.batch, 0)) * options.epochs
    print(f"torch {torch.__version__}, one thread, {batches} batches of {options.batch}, {options.rounds} rounds, medians")
    for name, pairs in took.items():
        processor, clock = (statistics.median(values) for values in zip(*pairs, strict=True))
        print(
            f"{name}: {processor:.2f} s of the processor, {1e3 * processor / batches:.2f} ms per batch,",
            f"{clock:.2f} s by the clock",
        )
    ratios = [mine[0] / its[0] for mine, its in zip(took["ours"], took["bare"], strict=True)]
    ratio = statistics.median(ratios)
    print(f"ours / bare: {ratio:.3f} (rounds: {', '.join(f'{r:.3f}' for r in ratios)})")
    apart = max(
        float((a - b).abs().max()) for a, b in zip(ends["ours"].parameters(), ends["bare"].parameters(), strict=True)
    )
    print(f"largest difference of a weight: {apart:g}")
    if apart > 0.01 or (options.check and ratio > options.check):
        sys.exit(1)


def ours(module: nn.Module, teacher: nn.Module, data: Data, training: Finetune) -> None:
    with tempfile.TemporaryDirectory() as folder:
        finetune(module, data, task_of(data), training, Path(folder), teacher=teacher)


def bare(module: nn.Module, teacher: nn.Module, data: Data, task: Task, training: Finetune) -> None:
    """As anyone would write it."""
    steps = training.epochs * len(Batches(data.train, training.batch_size, training.seed))
    optimizer = torch.optim.AdamW(module.parameters(), training.learning_rate, weight_decay=training.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    weight, temperature = training.distillation.weight, training.distillation.temperature
    for epoch in range(training.epochs):
        module.train()
        total = 0.0
        for x, y in Batches(data.train, training.batch_size, training.seed, epoch=epoch):
            with torch.no_grad():
                answers = teacher(x)
            output = module(x)
            loss = (1 - weight) * task.loss(output, y) + weight * task.distillation_loss(output, answers, temperature)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(y)
        module.eval()
        metrics = task.metrics()
        with torch.no_grad():
            for x, y in data.validation.batches(256):
                metrics.update(module(x), y)
        metrics.compute()


if __name__ == "__main__":
    main()

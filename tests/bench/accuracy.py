"""Accuracy after pruning, side by side with Torch-Pruning: real images, small nets, the same cost, the same training.

    python -m tests.bench.accuracy --nets residual --factors 2.5,4 --stages cut,steps100
    python -m tests.bench.accuracy --report --markdown --plot accuracy.png

What the results file already has is skipped: stop and start at will. Several runs may share the file if they differ in
`--nets`, `--seeds` or `--factors`. Test images only measure. `tp-best` in `--methods` stands for that of Torch-Pruning's
six variants which the results call best after the most training that they have, which is more than a user could know.
"""

import argparse
import copy
import fcntl
import json
import subprocess
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.bench import (
    accuracy_tables,
    zoo_ops,  # noqa: F401  (before anything that imports torchvision)
)
from tests.bench.pruners import PEERS, PRUNERS, Pruned
from tests.bench.small_nets import NETS
from tests.bench.training import STEPS_PER_EPOCH, Images, Teacher, accuracy, load_images, train, trained

FOLDER = Path(".cache/accuracy")
STAGES = {"cut": 0, "steps100": 100, "epoch1": STEPS_PER_EPOCH, "epoch5": 5 * STEPS_PER_EPOCH}
TAUGHT = "ours-taught"  # ours, trained with the source's answers too
METHODS = (*PRUNERS, TAUGHT)
RATE = 0.02  # of 0.01 to 0.1 the best for the mean of Torch-Pruning and of ours, on training images held out, 100 steps, 4x
Record = dict[str, Any]
Key = tuple[str, int, float, str, str]


@dataclass(frozen=True, eq=False)
class Source:
    net: str
    seed: int
    model: nn.Module
    accuracy: float
    images: Images  # for pruning, which is always on the CPU
    placed: Images  # where training and testing are

    @property
    def device(self) -> torch.device:
        return self.placed.x.device

    @cached_property
    def teacher(self) -> Teacher:
        """Its answers, computed once for all factors and stages."""
        return Teacher.of(copy.deepcopy(self.model).to(self.device), self.placed.x)


def main() -> None:
    options = _options()
    if not options.report:
        torch.set_num_threads(1)
        torch.backends.cudnn.allow_tf32 = False  # the same arithmetic as on a CPU
        warnings.simplefilter("ignore")
        _measure(options)
    records = [r for r in read(options.out) if r["net"] in options.nets.split(",")]
    print(accuracy_tables.render(records, markdown=options.markdown))
    if options.plot:
        accuracy_tables.plot(records, options.plot)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", default=",".join(NETS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--factors", default="1.8,2.5,4,7", help="how many times fewer MACs")
    parser.add_argument("--methods", default=",".join(METHODS), help="also tp-best")
    parser.add_argument("--stages", default="cut,steps100,epoch1", help=", ".join(STAGES))
    parser.add_argument("--device", default="cpu", help="where to train and test; pruning is on the CPU")
    parser.add_argument("--again", action="store_true", help="measure what the results file has already, too")
    parser.add_argument("--out", type=Path, default=Path(".cache/accuracy.jsonl"))
    parser.add_argument("--report", action="store_true", help="only print the table of the results file")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--plot", type=Path, help="write accuracy against MACs to this image")
    return parser.parse_args()


def read(path: Path) -> list[Record]:
    """The last record of each net, seed, factor, method and stage."""
    records = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return list({_key(record): record for record in records}.values())


def _key(record: Mapping[str, Any]) -> Key:
    return record["net"], record["seed"], record["factor"], record["method"], record["stage"]


def _measure(options: argparse.Namespace) -> None:
    images, commit = load_images(), _commit()
    placed = images.to(options.device)
    for net in options.nets.split(","):
        for seed in map(int, options.seeds.split(",")):
            model = trained(net, seed, placed, FOLDER)
            source = Source(net, seed, model, accuracy(model, images.test_x, images.test_y), images, placed)
            for factor in map(float, options.factors.split(",")):
                for record in _records(source, factor, options):
                    record |= {"source": source.accuracy, "commit": commit, "device": options.device}
                    _append(options.out, record)
                    print(_line(record), flush=True)


def _records(source: Source, factor: float, options: argparse.Namespace) -> Iterator[Record]:
    """One per method and stage that is asked for and not there yet. A method that fails leaves a record of that."""
    pruned: dict[str, Pruned] = {}
    stages = [stage for stage in STAGES if stage in options.stages.split(",")]
    known = read(options.out)
    done = set() if options.again else {_key(r) for r in known if "error" not in r}
    for method in _expand(options.methods, source, factor, known):
        for stage in stages:
            base = {"net": source.net, "seed": source.seed, "factor": factor, "method": method, "stage": stage}
            if _key(base) in done or (method == TAUGHT and stage == "cut"):  # the cut is that of `ours`
                continue
            name = "ours" if method == TAUGHT else method
            try:
                if name not in pruned:
                    pruned[name] = PRUNERS[name](source.model, source.images, factor)
                yield base | _result(pruned[name], source, STAGES[stage], taught=method == TAUGHT)
            except Exception as exc:  # every other method still has its turn
                yield base | {"error": f"{type(exc).__name__}: {exc}"[:400]}


def _expand(methods: str, source: Source, factor: float, known: list[Record]) -> list[str]:
    names = methods.split(",")
    if "tp-best" in names:
        best = accuracy_tables.best_peer([r for r in known if _key(r)[:3] == (source.net, source.seed, factor)], len(PEERS))
        names += [best] if best else []
    return [method for method in METHODS if method in names]


def _result(pruned: Pruned, source: Source, steps: int, *, taught: bool) -> Record:
    model, images = copy.deepcopy(pruned.model).to(source.device), source.placed
    start = time.process_time()
    if steps:
        teacher = source.teacher if taught else None
        train(model, images.x, images.y, steps=steps, rate=RATE, seed=source.seed, teacher=teacher, half=True)
    return {
        "accuracy": round(accuracy(model, images.test_x, images.test_y), 4),
        "macs": round(pruned.factor, 3),
        "params": sum(p.numel() for p in model.parameters()),
        "prune_seconds": round(pruned.seconds, 2),
        "train_seconds": round(time.process_time() - start, 1),
    }


def _append(path: Path, record: Record) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps(record) + "\n")


def _commit() -> str:
    return subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()


def _line(record: Record) -> str:
    result = record.get("error") or f"{record['accuracy']:7.2%} at {record['macs']:.2f}x, {record['prune_seconds']:.1f} s"
    return f"{record['net']:9} {record['seed']} {record['factor']:4}x {record['method']:21} {record['stage']:9} {result}"


if __name__ == "__main__":
    main()

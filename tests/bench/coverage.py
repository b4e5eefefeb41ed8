"""Prune every model of every suite with one engine, each in a fresh process, and judge the result from outside.

    python -m tests.bench.coverage --suite awkward,timm --engine ours --out results.jsonl
    python -m tests.bench.coverage --report results.jsonl [--markdown]

A model that the results file already has is skipped: stop and start at will.
"""

import argparse
import json
import multiprocessing
import os
import resource
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

LARGE = 150_000_000  # parameters above which the check runs in single precision
GIB = 2**30
ASLEEP = 20  # times the limit in wall time, after which a process that uses no processor is given up


def main() -> None:
    options = _options()
    if not options.report:
        _measure(options)
    from tests.bench import tables

    print(tables.render(read(options.report or options.out), markdown=options.markdown))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", default="awkward,torchvision,dense,timm,transformers,exported")
    parser.add_argument("--match", default="*", help="glob of model names")
    parser.add_argument("--engine", default="ours", help="ours, torch-pruning, torch-kirigami, or several with commas")
    parser.add_argument("--limit", type=int, help="at most so many models of each suite")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--timeout", type=float, default=120, help="processor seconds per model: fair on a busy machine")
    parser.add_argument("--memory", type=float, default=10, help="GiB of address space per model")
    parser.add_argument("--retry", action="store_true", help="measure again what did not come back right")
    parser.add_argument("--out", type=Path, default=Path(".cache/coverage.jsonl"))
    parser.add_argument("--report", type=Path, help="only print the tables of this file")
    parser.add_argument("--markdown", action="store_true")
    return parser.parse_args()


def read(path: Path) -> list[dict[str, Any]]:
    """The last record of each engine, suite and model."""
    records = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return list({(r["engine"], r["suite"], r["model"]): r for r in records}.values())


def _measure(options: argparse.Namespace) -> None:
    from tests.bench.suites import SUITES

    options.out.parent.mkdir(parents=True, exist_ok=True)
    done = {(r["engine"], r["suite"], r["model"]) for r in read(options.out) if not options.retry or r["status"] == "right"}
    todo = []
    for suite in options.suite.split(","):
        names = [name for name in SUITES[suite]() if fnmatch(name, options.match)][: options.limit]
        todo += [(e, suite, n) for n in names for e in options.engine.split(",") if (e, suite, n) not in done]
    queue, lock = iter(todo), threading.Lock()
    workers = [threading.Thread(target=_drain, args=(queue, lock, options)) for _ in range(options.jobs)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def _drain(queue: Iterator[tuple[str, str, str]], lock: threading.Lock, options: argparse.Namespace) -> None:
    while True:
        with lock:
            job = next(queue, None)
        if job is None:
            return
        record = _in_process(job, options)
        with lock, options.out.open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(_line(record), flush=True)


def _in_process(job: tuple[str, str, str], options: argparse.Namespace) -> dict[str, Any]:
    """Run one model in a forked process of its own, which may be killed, run out of memory or crash."""
    engine, suite, name = job
    base = {"engine": engine, "suite": suite, "model": name}
    receive, send = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_worker, args=(send, engine, suite, name, options.memory), daemon=True)
    start = time.perf_counter()
    process.start()
    send.close()
    record: dict[str, Any] = {}
    try:
        while not record.get("status"):
            if receive.poll(0.25):
                record |= receive.recv()
            elif _processor_seconds(process.pid) > options.timeout or time.perf_counter() - start > ASLEEP * options.timeout:
                record |= {"status": "error", "error": f"timed out after {options.timeout:.0f} s in {record.get('stage')}"}
    except EOFError:
        process.join()
        record |= {"status": "error", "error": f"process died ({process.exitcode}) in {record.get('stage')}"}
    process.kill()
    process.join()
    return base | record | {"wall": round(time.perf_counter() - start, 2)}


def _processor_seconds(pid: int | None) -> float:
    """What a process has used of the processors so far; 0 once it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _worker(send: Any, engine: str, suite: str, name: str, memory: float) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (int(memory * GIB),) * 2)
    warnings.simplefilter("ignore")
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    try:
        send.send(_judge(send, engine, suite, name))
    except BaseException as exc:
        trace = traceback.format_exc().splitlines()
        send.send({"status": "error", "error": f"{type(exc).__name__}: {exc}"[:600], "trace": trace[-16:]})


def _judge(send: Any, engine: str, suite: str, name: str) -> dict[str, Any]:
    import torch

    from tests.bench.engines import ENGINES
    from tests.bench.oracle import compare
    from tests.bench.suites import SUITES

    torch.set_num_threads(1)
    send.send({"stage": "build"})
    subject = SUITES[suite]()[name]
    model, inputs = subject.build(), subject.inputs()
    params, macs = _size(model, inputs)
    send.send({"stage": "prune", "params_before": params, "macs_before": macs})
    cut = ENGINES[engine](model, inputs)
    send.send({"stage": "run", "seconds": round(cut.seconds, 3), **cut.facts})
    del model
    params, macs = _size(cut.model, inputs)
    send.send({"stage": "check", "params_after": params, "macs_after": macs})
    verdict = compare(subject.build, cut.model, cut.keep, inputs, LARGE)
    found: dict[str, Any] = {"status": "right" if verdict.right else "wrong"}
    if verdict.right and not verdict.exact and cut.facts.get("approximate") == []:
        found = {"status": "wrong", "error": "differs from the masked original, and the plan calls nothing approximate"}
    return found | {
        "mask_error": verdict.error,
        "neutral_error": verdict.neutral_error,
        "effect": verdict.effect,
        "dtype": verdict.dtype,
    }


def _size(model: Any, inputs: Any) -> tuple[int, int]:
    """Parameters and multiply-accumulates."""
    from tests.bench.oracle import count_macs

    return sum(p.numel() for p in model.parameters()), count_macs(model, inputs)


def _line(record: dict[str, Any]) -> str:
    gone = ""
    if record.get("params_after"):
        gone = f"{1 - record['params_after'] / record['params_before']:6.1%} gone"
    detail = str(record.get("error", "")).split("\n")[0][:90]
    if record["status"] != "error":
        neutral = record["neutral_error"]
        detail = f"{record['mask_error']:.0e}" + ("" if neutral is None else f" neutral {neutral:.0e}")
    return (
        f"{record['engine'][:14]:14} {record['suite'][:12]:12} {record['model'][:34]:34} {record['status']:6}"
        f" {record.get('seconds') or 0:6.1f} s {gone} {detail}"
    )


_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.bench.suites", "tests.bench.engines"])

if __name__ == "__main__":
    main()

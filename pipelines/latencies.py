"""The latency table of this machine: what was measured is kept in the data folder, so that it is measured once."""

import functools
import os
import platform
import re
from pathlib import Path

import torch

import pruning_core as pc
from pipelines.environment import data_folder
from pipelines.errors import DataError


def table_path(threads: int, device: str = "cpu") -> Path:
    """One file per machine, version of torch, number of threads and GPU: times of one say nothing about another."""
    parts = [platform.node() or "machine", platform.machine(), f"torch-{torch.__version__}", f"{threads}-threads"]
    if device == "cuda":
        parts.append(torch.cuda.get_device_name())
    return data_folder() / "latencies" / (re.sub(r"[^\w.+-]+", "-", "-".join(parts)) + ".json")


def latency_table(threads: int, device: str = "cpu") -> pc.LatencyTable:
    """What is known so far; it learns more while it is used. Raises DataError for a damaged file."""
    return _table(table_path(threads, device), threads, device)


@functools.lru_cache(maxsize=8)
def _table(path: Path, threads: int, device: str) -> pc.LatencyTable:
    if not path.exists():
        return pc.LatencyTable(threads=threads, device=device)
    try:
        return pc.LatencyTable.from_json(path.read_text(encoding="utf-8"))
    except (pc.SpecError, OSError, UnicodeDecodeError) as exc:
        what = exc.what if isinstance(exc, pc.SpecError) else str(exc)
        raise DataError(what, str(path), "delete the file; it is measured anew") from exc


def keep(table: pc.LatencyTable) -> None:
    """Write what is known; a reader never sees half a file."""
    path = table_path(table.threads, table.device)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{os.getpid()}")
    new.write_text(table.to_json(), encoding="utf-8")
    new.replace(path)

"""Evaluations on disk: predictions of a whole split travel between tasks as files."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from pipelines.steps.evaluate.passing import Evaluation, Evaluations

SPLITS = ("validation", "test")


def save_evaluations(evaluations: Evaluations, folder: Path) -> Path:
    """A reader never sees half of them."""
    part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name in SPLITS:
        evaluation: Evaluation = getattr(evaluations, name)
        kept = {key: tensor.contiguous() for key, tensor in evaluation.kept.items()}
        save_file(kept, part / f"{name}.safetensors", {"metrics": json.dumps(evaluation.metrics)})
    shutil.rmtree(folder, ignore_errors=True)
    part.replace(folder)
    return folder


def load_evaluation(folder: Path, split: str) -> Evaluation:
    """`split`: validation or test. Raises OSError, SafetensorError, ValueError for what is not there or damaged."""
    with safe_open(folder / f"{split}.safetensors", "pt") as file:
        metrics = json.loads((file.metadata() or {})["metrics"])
        return Evaluation(metrics, {key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118  no mapping


def remembered(folder: Path, make: Callable[[], Evaluations]) -> Evaluations:
    """What lies in `folder`; made and laid there where nothing does, or something damaged."""
    try:
        return Evaluations(*(load_evaluation(folder, split) for split in SPLITS))
    except (OSError, SafetensorError, ValueError, KeyError):
        made = make()
        save_evaluations(made, folder)
        return made

"""Layer sensitivity of one model on one data set, kept in a file that is whole after every point."""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import pruning_core as pc
from pipelines.data import Data, Split, some
from pipelines.errors import ConfigError
from pipelines.steps.prune import example_batch

FORMAT = 1
BATCH = 128
USUAL_SAMPLES = 512
AGAIN = "name another file with --out, or start anew with --again"


@dataclass(frozen=True, slots=True, kw_only=True)
class SensitivityRequest:
    """What is asked of a model. `samples`: of the training split to repair from, and of the validation split to judge by."""

    ratios: tuple[float, ...] = (0.25, 0.5, 0.75)
    samples: int | None = None  # None: 512, or all where there are fewer
    figure: str = "auto"  # accuracy | loss | change | kl
    spec: pc.PruningSpec = dataclasses.field(default_factory=pc.PruningSpec)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Whose sensitivities a file holds: rows of one subject fit no other."""

    model: str  # models:/name/3
    weights: str  # digest of what the version holds
    data: str  # name and digest
    learned_from: int  # images of the training split
    judged_by: int  # images of the validation split
    figure: str
    spec: dict[str, Any]
    secateur: str

    @classmethod
    def of(cls, uri: str, module: nn.Module, data: Data, request: SensitivityRequest) -> "Subject":
        """Raises SpecError when the training split holds fewer images than were asked for."""
        asked, there = request.samples, len(data.train)
        if asked is not None and asked > there:
            fix = f"ask for at most {there}"
            raise pc.SpecError(f"{asked} samples were asked for, the training split holds {there}", "--samples", fix)
        wanted = asked or USUAL_SAMPLES
        return cls(
            model=uri,
            weights=digest_of(module),
            data=f"{data.name} {data.digest}",
            learned_from=min(wanted, there),
            judged_by=min(wanted, len(data.validation)),
            figure=request.figure,
            spec=request.spec.to_dict(),
            secateur=importlib.metadata.version("secateur"),
        )


def digest_of(module: nn.Module) -> str:
    """Of the structure's names and all numbers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def measure_sensitivity(
    subject: Subject,
    module: nn.Module,
    data: Data,
    request: SensitivityRequest,
    path: Path,
    *,
    again: bool = False,
    on_start: Callable[[pc.Sensitivity], None] = lambda _: None,
    on_row: Callable[[pc.Sensitivity], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> pc.Sensitivity:
    """Measure what the file at `path` does not hold yet; it is replaced, as a whole, after every point.

    The repair learns from training images; their labels are only read by criteria that need them. The figure is taken on
    validation images.
    Raises ConfigError when the file is no such file or of another subject (unless `again`), PruningError.
    """
    known = read_rows(path, subject, again=again)
    learned = pc.Calibration(_batches(data.train, subject.learned_from), labelled=True)
    judged = pc.Calibration(_batches(data.validation, subject.judged_by), labelled=True)

    def keep(_row: pc.SensitivityRow, so_far: pc.Sensitivity) -> None:
        write_table(path, subject, so_far)
        on_row(so_far)

    result = pc.sensitivity(
        module,
        example_batch(data),
        learned,
        request.ratios,
        request.spec,
        evaluation=judged,
        figure=request.figure,
        known=known,
        on_start=on_start,
        on_row=keep,
        stop=stop,
    )
    write_table(path, subject, result)
    return result


def _batches(split: Split, images: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    x, y = some(split, images)
    return list(zip(torch.split(x, BATCH), torch.split(y, BATCH), strict=True))


def write_table(path: Path, subject: Subject, table: pc.Sensitivity) -> None:
    """Raises ConfigError when the place cannot be written."""
    text = json.dumps({"format": FORMAT, "subject": dataclasses.asdict(subject), **table.to_dict()}, indent=1)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as exc:
        raise ConfigError(f"the file cannot be written: {exc}", str(path), "name another place with --out") from exc
    finally:
        part.unlink(missing_ok=True)


def read_rows(path: Path, subject: Subject, *, again: bool = False) -> tuple[pc.SensitivityRow, ...]:
    """The rows that a file holds of this subject; none where there is no file, or with `again`.

    Raises ConfigError for a file of another subject, and, whatever was said, for one that is not ours.
    """
    where = str(path)
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw.pop("format") != FORMAT:
            raise ValueError("another format")
        stored = Subject(**raw.pop("subject"))
        table = pc.Sensitivity.from_dict(raw)
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pc.SpecError) as exc:
        raise ConfigError("the file is no table of sensitivities", where, "name another file with --out") from exc
    if again:
        return ()
    ours, theirs = dataclasses.asdict(subject), dataclasses.asdict(stored)
    differences = [f"{key}: {_difference(theirs[key], ours[key])}" for key in ours if ours[key] != theirs[key]]
    if differences:
        raise ConfigError("the file holds sensitivities of something else; " + "; ".join(differences), where, AGAIN)
    return table.rows


def _difference(theirs: object, ours: object) -> str:
    if isinstance(theirs, dict) and isinstance(ours, dict):
        keys = [key for key in ours if ours[key] != theirs.get(key)] or ["fields"]
        return ", ".join(f"{key} {theirs.get(key)!r} there, {ours.get(key)!r} here" for key in keys)
    return f"{theirs} there, {ours} here"

"""Every form of one candidate that the recipe asks for; one that cannot be made becomes a note."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pipelines import lineage, registry
from pipelines.architecture import load_module
from pipelines.config import Export as ExportSection
from pipelines.data import Data, some
from pipelines.errors import ExportError
from pipelines.export import Form, OnnxModule, convert, quantize
from pipelines.registry import Store
from pipelines.steps.prune import primary_of
from pipelines.tasks import Task

BATCH = 32  # images that onnxruntime holds the activations of at once


@dataclass(frozen=True, slots=True)
class Least:
    """What a form that answers differently by design must keep, on the validation split."""

    source: float  # the primary metric of the source
    max_drop: float

    def drop_of(self, value: float, task: Task) -> float:
        return self.source - value if task.higher_is_better else value - self.source


@dataclass(frozen=True, slots=True)
class Exports:
    version: registry.Exported  # what the registered version is made of
    forms: tuple[Form, ...]
    notes: tuple[str, ...]  # what could not be made, and why


def export_forms(
    store: Store, export: registry.Export, options: ExportSection, data: Data, task: Task, least: Least, folder: Path
) -> Exports:
    """Make, check and store them. `least` is what an 8-bit form must keep.

    Raises CandidateError only if the model cannot be stored at all, RegistryError.
    """
    exported = registry.export_model(store, export, folder)
    forms = [exported.form] if exported.form else []
    notes = [exported.note] if exported.note else []
    if "onnx" in options.formats and exported.program is None:
        notes.append("no ONNX form: it is made from the exported graph")
    elif "onnx" in options.formats:
        assert exported.program is not None
        more, why = _onnx_forms(store, export, exported.program, options, data, task, least, folder)
        forms += more
        notes += why
    exports = Exports(exported, tuple(forms), tuple(notes))
    _record(store, export.run_id, exports, task.primary, folder)
    return exports


def _onnx_forms(
    store: Store,
    export: registry.Export,
    program: Path,
    options: ExportSection,
    data: Data,
    task: Task,
    least: Least,
    folder: Path,
) -> tuple[list[Form], list[str]]:
    images = torch.from_numpy(export.images)
    with torch.no_grad():
        answers = load_module(export.model)(images)

    def stored(form: Form, file: Path, name: str) -> Form:
        uri = registry.log_onnx(store, export.run_id, name, file, export.images, tuple(answers.shape), folder)
        return dataclasses.replace(form, uri=uri)

    forms: list[Form] = []
    file, small = folder / f"{export.name}.onnx", folder / f"{export.name}-int8.onnx"
    try:
        made = convert(program, images, answers, file, options.opset)
        forms.append(stored(made, file, f"{export.name}-onnx"))
        if options.int8:
            made = quantize(file, _calibration(data, options.int8_samples), images, answers, small)
            made = dataclasses.replace(made, primary=primary_of(OnnxModule(small), data, task))
            kept, note = _judge(made, task, least)
            forms.append(stored(made, small, f"{export.name}-int8") if kept else made)
            return forms, note
    except ExportError as exc:
        missing = "ONNX" if not forms else "8-bit ONNX"
        return forms, [f"no {missing} form: {exc.what}"]
    return forms, []


def _judge(form: Form, task: Task, least: Least) -> tuple[bool, list[str]]:
    assert form.primary is not None
    reached = form.primary.validation
    drop = least.drop_of(reached, task)
    if drop <= least.max_drop + 1e-9:
        return True, []
    lost = f"{reached:.4f} on validation, {drop:.4f} worse than the source, {least.max_drop:g} are allowed"
    return False, [f"the 8-bit form is not stored: {lost}"]


def _calibration(data: Data, samples: int) -> Sequence[torch.Tensor]:
    """Images of the training split, in an order that is not the data set's own; always the same ones."""
    images, _ = some(data.train, min(samples, len(data.train)), torch.Generator().manual_seed(0))
    return torch.split(images, BATCH)


def _record(store: Store, run_id: str, exports: Exports, metric: str, folder: Path) -> None:
    files = folder / "forms"
    files.mkdir(parents=True, exist_ok=True)
    facts = {"forms": [dataclasses.asdict(form) for form in exports.forms], "notes": exports.notes}
    (files / lineage.EXPORT_FILE).write_text(json.dumps(facts, indent=1), encoding="utf-8")
    registry.log_files(store, run_id, files)
    registry.log_forms(store, run_id, dict(_numbers(exports.forms, metric)), "; ".join(exports.notes))


def _numbers(forms: Sequence[Form], metric: str) -> Iterator[tuple[str, float]]:
    for form in forms:
        if form.kind == "pt2":  # the model itself: runs share the names of its metrics, and have no others
            continue
        yield lineage.FORM_SIZE.format(form.kind), form.size_bytes
        yield lineage.FORM_ERROR.format(form.kind), form.error
        if form.primary is not None:
            yield lineage.FORM_METRIC.format(form.kind, metric), form.primary.test
            yield lineage.FORM_METRIC.format(form.kind, lineage.of_validation(metric)), form.primary.validation

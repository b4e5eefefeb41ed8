"""In which forms a version can be had, for its description."""

from collections.abc import Sequence

from pipelines.export import Form
from pipelines.report.table import size_text

NAMES = {"pt2": "torch.export (.pt2), this version", "onnx": "ONNX", "int8": "ONNX, 8 bits"}


def describe_forms(forms: Sequence[Form], notes: Sequence[str], origin: str) -> str:
    """Markdown: how the source was had, a table of the forms, and what could not be made."""
    lines = [f"How it was made: {origin}."] if origin else []
    if forms:
        lines += ["", "| form | size | largest error | metric: validation | test | load it from |"]
        lines += ["| --- | --- | --- | --- | --- | --- |", *map(_line, forms)]
    if notes:
        lines += ["", *(f"- Note: {note}." for note in notes)]
    return "\n".join(lines) + "\n"


def _line(form: Form) -> str:
    primary = form.primary
    validation, test = (f"{primary.validation:.4f}", f"{primary.test:.4f}") if primary else ("as measured", "as measured")
    where = f"`{form.uri}`" if form.uri else "" if form.kind == "pt2" else "not stored"
    return f"| {NAMES[form.kind]} | {size_text(form.size_bytes)} | {form.error:.1g} | {validation} | {test} | {where} |"

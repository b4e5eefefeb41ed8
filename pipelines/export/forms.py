"""What is known about one form of a model."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipelines.errors import ExportError
from pipelines.exported_graph import first_line
from pipelines.records import Primary


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    kind: str  # pt2 | onnx | int8
    size_bytes: int  # of its file
    error: float  # largest difference from the module's answers on real inputs, relative to the largest answer or 1
    primary: Primary | None = None  # where the form answers otherwise than the module, by design
    uri: str | None = None  # models:/m-...; None where it is not stored


def batch_sizes(images: int) -> list[int]:
    """Of the batches that a form is checked with: one image, all of them, and some."""
    return sorted({1, max(1, images // 2), images})


@contextmanager
def export_errors(what: str, where: str) -> Iterator[None]:
    """The many kinds of exceptions that converters throw, as one of ours."""
    try:
        yield
    except OSError:  # a full disk is no fault of the model
        raise
    except Exception as exc:
        raise ExportError(f"{what}: {first_line(exc)}", f"{where}, {type(exc).__name__}", "leave this form out") from exc

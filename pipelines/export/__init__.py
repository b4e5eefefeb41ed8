"""Other forms of a model: ONNX and 8-bit ONNX. Plain functions on files; needs the packages of secateur[onnx]."""

from pipelines.export.forms import Form, batch_sizes, export_errors
from pipelines.export.int8 import quantize
from pipelines.export.onnx import PACKAGES, OnnxModule, check_installed, convert, quiet

__all__ = [
    "PACKAGES",
    "Form",
    "OnnxModule",
    "batch_sizes",
    "check_installed",
    "convert",
    "export_errors",
    "quantize",
    "quiet",
]

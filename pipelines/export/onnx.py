"""From a checked .pt2 file to a checked ONNX file with a free batch axis."""

import importlib.util
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from pipelines.errors import ConfigError, ExportError
from pipelines.export.forms import Form, batch_sizes, export_errors
from pipelines.exported_graph import EXPORT_LOCK, TOLERANCE, difference, read_program

PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def check_installed(formats: Sequence[str]) -> None:
    """Raises ConfigError if a form is asked for that this environment cannot make."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None] if "onnx" in formats else []
    if missing:
        raise ConfigError(
            f"export.formats asks for onnx, and {', '.join(missing)} is not installed here",
            "export.formats",
            'pip install "secateur[onnx]", or leave onnx out',
        )


def convert(program: Path, images: Tensor, answers: Tensor, path: Path, opset: int = 18) -> Form:
    """Write `path` from the exported program and compare it with the module's `answers` to `images` [N, ...].

    Batches of 1, of N and of sizes between must give the same answers. Raises ExportError.
    """
    with export_errors("torch cannot write the model as ONNX", path.name), quiet():
        loaded = read_program(program)
        with EXPORT_LOCK:
            made = torch.onnx.export(loaded, opset_version=opset, dynamo=True, verbose=False)
        if made is None:
            raise RuntimeError("torch.onnx gave no program")
        made.save(path)
    with export_errors("onnxruntime cannot run the model", path.name):
        error = max(difference(OnnxModule(path)(images[:size]), answers[:size]) for size in batch_sizes(len(images)))
    if not error <= TOLERANCE:
        raise ExportError(
            f"the ONNX form answers differently, by {error:.2g}", path.name, "leave onnx out of export.formats"
        )
    return Form(kind="onnx", size_bytes=size_of(path), error=error)


class OnnxModule(nn.Module):
    """An ONNX file that is run by onnxruntime on one thread: [N, ...] -> what it answers first."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(self.session.run(None, {self.input: x.numpy()})[0])


def size_of(path: Path) -> int:
    """Bytes of the file, and of the weights that lie beside it where they are too large for it."""
    return sum(part.stat().st_size for part in path.parent.glob(f"{path.name}*"))


@contextmanager
def quiet() -> Iterator[None]:
    """Without the exporters' notes on their progress, on packages that are not there, and on their own old code."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

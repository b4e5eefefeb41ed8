"""Eight bits per weight and activation, by onnxruntime: static, calibrated, with quantize and dequantize nodes."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipelines.export.forms import Form, export_errors
from pipelines.export.onnx import OnnxModule, quiet, size_of
from pipelines.exported_graph import difference


def quantize(onnx: Path, calibration: Iterable[Tensor], images: Tensor, answers: Tensor, path: Path) -> Form:
    """Write `path` from a float ONNX file. `calibration`: batches [n, ...] of the training split.

    Weights get one scale per channel, activations one per tensor. The error on `images` is reported and judges nothing:
    how good the form is, its accuracy has to say. Raises ExportError.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = path.with_name(f"prepared-{path.name}")
    with export_errors("onnxruntime cannot make an 8-bit form", path.name), quiet():
        # its symbolic inference gives up at computed sizes, as for interpolation, and leaves a file where it was started
        quant_pre_process(str(onnx), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(path),
            _reader(OnnxModule(onnx).input, calibration),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
        )
        error = difference(OnnxModule(path)(images), answers)
    return Form(kind="int8", size_bytes=size_of(path), error=error)


def _reader(name: str, batches: Iterable[Tensor]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Batches(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter(batches)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            batch = next(self.batches, None)
            return None if batch is None else {name: batch.numpy()}

    return Batches()

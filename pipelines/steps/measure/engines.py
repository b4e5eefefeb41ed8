"""Ways to run a module on a batch. To add one: a function from (module, batch, threads) to a callable, and a line here."""

import contextlib
import importlib.util
import io
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from pipelines.export import PACKAGES, quiet

OPSET = 18

Run = Callable[[], object]


def eager(module: nn.Module, batch: Tensor, threads: int) -> Run:
    del threads  # torch's own setting
    return lambda: module(batch)


def compiled(module: nn.Module, batch: Tensor, threads: int) -> Run:
    """torch.compile in its default mode; compiling is part of the first call, which nobody times."""
    del threads
    with quiet():
        fast = torch.compile(module, dynamic=False)
        fast(batch)
    return lambda: fast(batch)


def onnxruntime(module: nn.Module, batch: Tensor, threads: int) -> Run:
    """The module as ONNX with a free batch size, in a session of its own with so many threads.

    On a GPU the input and the output stay there (IO binding), as the other engines' do.
    """
    session = open_session(_exported(module, batch), threads, batch.device.type)
    name = session.get_inputs()[0].name
    if batch.device.type != "cuda":
        feed = {name: batch.numpy()}
        return lambda: session.run(None, feed)
    binding = session.io_binding()
    binding.bind_input(name, "cuda", 0, batch.cpu().numpy().dtype, tuple(batch.shape), batch.data_ptr())
    for output in session.get_outputs():
        binding.bind_output(output.name, "cuda")
    return lambda: session.run_with_iobinding(binding)


def open_session(model: bytes, threads: int, device: str) -> Any:
    """On that device or not at all: onnxruntime would silently take the CPU. Raises RuntimeError."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    provider = "CUDAExecutionProvider" if device == "cuda" else "CPUExecutionProvider"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is not available, which is said below
        session = ort.InferenceSession(model, options, providers=[provider])
    if provider not in session.get_providers():
        raise RuntimeError("this onnxruntime cannot use the GPU; install onnxruntime-gpu for this CUDA")
    return session


ENGINES: Mapping[str, Callable[[nn.Module, Tensor, int], Run]] = {
    "eager": eager,
    "compile": compiled,
    "onnxruntime": onnxruntime,
}
_EXPORTS: WeakKeyDictionary[nn.Module, bytes] = WeakKeyDictionary()


def missing_package(engine: str) -> str | None:
    """What must be installed before this engine can be used, if anything."""
    needed = PACKAGES if engine == "onnxruntime" else ()
    return next((name for name in needed if importlib.util.find_spec(name) is None), None)


def _exported(module: nn.Module, batch: Tensor) -> bytes:
    """As ONNX; exported once for all batch sizes and numbers of threads."""
    if module not in _EXPORTS:
        with tempfile.TemporaryDirectory() as folder, quiet(), contextlib.redirect_stdout(io.StringIO()):
            path = Path(folder) / "model.onnx"
            shapes = ({0: torch.export.Dim("batch", min=1)},)
            torch.onnx.export(
                module, (batch,), str(path), opset_version=OPSET, dynamo=True, external_data=False, dynamic_shapes=shapes
            )
            _EXPORTS[module] = path.read_bytes()
    return _EXPORTS[module]

"""What is looked at before a model is traced: wrappers, lazy layers, devices, weights that are no numbers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from pruning_core import tree
from pruning_core.errors import ModelError
from pruning_core.inputs import ExampleInputs
from pruning_core.twin import modules_by_path


def check_model(model: nn.Module) -> None:
    """Raises: ModelError for models that cannot be pruned as they are."""
    for name, module in modules_by_path(model).items():
        if any(
            isinstance(t, UninitializedParameter | UninitializedBuffer)
            for t in (*module._parameters.values(), *module._buffers.values())
        ):
            raise ModelError("a lazy module is not initialised yet", name or type(module).__name__, "run the model once")
        if any(t is not None and t.is_inference() for t in module._parameters.values()):
            raise ModelError(
                "the weights are inference tensors, which cannot be trained or copied as parameters",
                name or type(module).__name__,
                "build or load the model outside torch.inference_mode()",
            )
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise ModelError(f"the model is wrapped in {type(model).__name__}", "the model", "pass model.module")
    if isinstance(model, torch.jit.ScriptModule):
        raise ModelError("the model is a TorchScript module", "the model", "pass the nn.Module it was made from")
    if isinstance(model, torch._dynamo.eval_frame.OptimizedModule):
        raise ModelError("the model is compiled", "the model", "pass model._orig_mod and compile the result again")


def check_devices(tensors: dict[str, Tensor], inputs: ExampleInputs) -> None:
    """Raises: ModelError when an example input lies on another device than the model. Meta models take any input."""
    devices = {t.device for t in tensors.values()}
    for tensor in tree.tensors((inputs.args, inputs.kwargs)):
        if len(devices) == 1 and tensor.device not in devices and not {"meta"} & {d.type for d in devices}:
            raise ModelError(
                f"an example input is on {tensor.device}, the model on {next(iter(devices))}",
                "example_inputs",
                f"move it there: x.to({str(next(iter(devices)))!r})",
            )


def check_finite(tensors: dict[str, Tensor]) -> None:
    """Raises: ModelError that names the first tensor with NaN or infinite entries. Masks of -inf in buffers are fine."""
    for name, tensor in tensors.items():
        readable = isinstance(tensor, nn.Parameter) and tensor.is_floating_point() and tensor.device.type != "meta"
        # the sum is one pass and is no number if any entry is none; half precision may overflow, so look again then
        if readable and not bool(tensor.sum().isfinite()) and not bool(torch.isfinite(tensor).all()):
            raise ModelError(
                "the weights hold NaN or infinite values",
                f"parameter {name!r}",
                "load a checkpoint whose training did not diverge",
            )

"""Gradients of the loss on calibration data: their mean, and the mean square of each sample's own."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pruning_core.calibration import Batch, Calibration
from pruning_core.errors import ModelError, PruningError, SpecError
from pruning_core.observe.reading import blaming_data, singles
from pruning_core.trace import quiet_kernels
from pruning_core.tree import is_prunable_dtype
from pruning_core.twin import like, named_tensors, twin
from pruning_core.writes import own_copy

HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True, slots=True, eq=False)
class Gradients:
    """By parameter name, in the parameter's shape; complex parameters as real pairs on a last axis. float32."""

    mean: dict[str, Tensor]  # empty unless asked for
    square: dict[str, Tensor]  # empty unless asked for
    samples: int


def observe_gradients(
    model: nn.Module, calibration: Calibration, *, mean: bool = True, square: bool = False, written: Collection[str] = ()
) -> Gradients:
    """Mean over samples of dL/dw, and of (dL_n/dw)^2 with the loss of one sample at a time, from one pass over the data.

    A batch's loss counts for as many samples as it has. The model is a copy in evaluation mode; half precision is
    computed in single precision. A parameter that the loss does not reach has gradient 0.
    Every run starts from the same values of the buffers that are `written`.
    Raises: SpecError without labels or with a loss that fails; ModelError when the model cannot be run on the data, is
    not differentiable, or has NaN gradients.
    """
    if not calibration.labelled:
        calibration.loss_of(None, None)  # raises: there are no labels
    means: dict[str, Tensor] = {}
    squares: dict[str, Tensor] = {}
    seen = 0
    with torch.inference_mode(False), torch.enable_grad(), quiet_kernels():
        half = any(t.dtype in HALF for t in named_tensors(model).values())
        copy = twin(model, _own_single).eval()
        parameters: dict[str, Tensor] = {}
        for name, tensor in named_tensors(copy).items():
            if isinstance(tensor, nn.Parameter) and is_prunable_dtype(tensor.dtype):
                parameters[name] = tensor.requires_grad_(True)
        own = {id(t) for name, t in named_tensors(copy).items() if name in written and not isinstance(t, nn.Parameter)}

        def fresh() -> nn.Module:
            return twin(copy, lambda t: t.detach().clone() if id(t) in own else t) if own else copy

        for batch in calibration:
            if mean:
                _add(means, parameters, _gradients(fresh(), parameters, batch, calibration, half), len(batch), 1)
            for sample in singles(batch) if square else ():
                _add(squares, parameters, _gradients(fresh(), parameters, sample, calibration, half), 1, 2)
            seen += len(batch)
    return Gradients(_finished(means, seen), _finished(squares, seen), seen)


def _own_single(t: Tensor) -> Tensor:
    return like(t, t.detach().float() if t.dtype in HALF else t.detach().clone())


def _gradients(
    model: nn.Module, parameters: dict[str, Tensor], batch: Batch, calibration: Calibration, half: bool
) -> tuple[Tensor | None, ...]:
    inputs = own_copy(batch.inputs)
    if half:
        inputs = inputs.map(lambda t: t.float() if t.dtype in HALF else t)
    with blaming_data():
        outputs = model(*inputs.args, **inputs.kwargs)
    with _blaming_loss():
        loss = calibration.loss_of(outputs, batch.target)
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise SpecError("the loss is no single number", "calibration.loss", "return the mean loss of the batch")
    if loss.grad_fn is None:
        raise ModelError(
            "the loss does not depend on any parameter in a differentiable way",
            "the model's forward",
            "use a criterion without gradients, e.g. 'l2_norm'",
        )
    return torch.autograd.grad(loss.reshape(()), list(parameters.values()), allow_unused=True)


@contextlib.contextmanager
def _blaming_loss() -> Iterator[None]:
    try:
        yield
    except PruningError:
        raise
    except Exception as exc:
        raise SpecError(
            f"the loss fails on the model's outputs and the targets: {type(exc).__name__}: {exc}".splitlines()[0],
            "calibration.loss",
            "pass Calibration(..., labelled=True, loss=f) with f(outputs, target) the mean loss of a batch",
        ) from exc


def _add(
    sums: dict[str, Tensor], parameters: dict[str, Tensor], found: tuple[Tensor | None, ...], weight: int, power: int
) -> None:
    for (name, parameter), gradient in zip(parameters.items(), found, strict=True):
        real = torch.view_as_real if parameter.is_complex() else torch.Tensor.detach
        if name not in sums:
            sums[name] = torch.zeros_like(real(parameter.detach()), dtype=torch.float64)
        if gradient is not None:
            sums[name].add_(real(gradient.detach()).double().pow(power), alpha=weight)


def _finished(sums: dict[str, Tensor], seen: int) -> dict[str, Tensor]:
    """Raises: ModelError for gradients that are no numbers."""
    for name, total in sums.items():
        if not bool(total.isfinite().all()):
            raise ModelError(
                "the gradients hold NaN or infinite values",
                f"parameter {name!r}",
                "look for such values in the calibration data and in the loss, or use 'l2_norm'",
            )
    return {name: (total / seen).float() for name, total in sums.items()}

"""How much the model's outputs feel an error in each layer's output, from one backward pass without labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pruning_core import tree
from pruning_core.calibration import Calibration, generator
from pruning_core.trace import quiet_kernels
from pruning_core.twin import named_tensors


def output_sensitivity(model: nn.Module, calibration: Calibration, samples: int, seed: int = 0) -> dict[str, Tensor]:
    """Weight name -> [O] mean over samples of the summed squared gradient of the outputs at the layer's output channels.

    The gradient is that of v . f(x) with random signs v, whose mean square is the Gauss-Newton diagonal of a squared
    error at the outputs. The graph of autograd is walked back to the nodes that read a weight, so that layers of any
    kind are found, functional and exported ones too. A model that autograd cannot follow gives an empty result.
    """
    names = {id(t): name for name, t in named_tensors(model).items() if isinstance(t, nn.Parameter)}
    for tensor in model.parameters():
        tensor.requires_grad_(tensor.is_floating_point())
    sums: dict[str, Tensor] = {}
    seen = 0
    rng = generator(seed)
    for batch in calibration:
        with quiet_kernels(), torch.enable_grad():
            outputs = [t for t in tree.tensors(model(*batch.inputs.args, **batch.inputs.kwargs)) if t.grad_fn is not None]
            if not outputs:
                return {}
            total = sum(
                (t.float() * torch.randint(0, 2, t.shape, generator=rng).mul(2).sub(1)).sum() / _spread(t) for t in outputs
            )
            assert isinstance(total, Tensor)
            _watch(outputs, names, sums)
            torch.autograd.grad(total, [p for p in model.parameters() if p.requires_grad], allow_unused=True)
        seen += len(batch)
        if seen >= samples:
            break
    return {name: value / seen for name, value in sums.items()}


def _spread(output: Tensor) -> Tensor:
    """The scale of an output, so that several outputs count alike."""
    return output.detach().float().std().clamp_min(1e-12)


def _watch(outputs: list[Tensor], names: dict[int, str], sums: dict[str, Tensor]) -> None:
    """A hook on each autograd node that reads a weight directly or transposed."""
    queue, known = [t.grad_fn for t in outputs], set()
    while queue:
        node: Any = queue.pop()
        if node is None or node in known:
            continue
        known.add(node)
        for before, _ in node.next_functions:
            queue.append(before)
            leaf = before
            if leaf is not None and type(leaf).__name__ in {"TBackward0", "TransposeBackward0", "PermuteBackward0"}:
                leaf = leaf.next_functions[0][0]
            variable = getattr(leaf, "variable", None)
            if variable is not None and variable.ndim > 1 and id(variable) in names:
                node.register_prehook(_adder(names[id(variable)], sums, "Convolution" in type(node).__name__))


def _adder(name: str, sums: dict[str, Tensor], convolution: bool) -> Any:
    def add(gradients: tuple[Tensor | None, ...]) -> None:
        gradient = gradients[0]
        if gradient is None:
            return
        axis = 1 if convolution else gradient.ndim - 1
        squares = gradient.double().square().movedim(axis, -1).flatten(0, -2).sum(dim=0)
        sums[name] = sums[name] + squares if name in sums else squares

    return add

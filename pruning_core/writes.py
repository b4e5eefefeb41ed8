"""What a forward writes in place, of its module's tensors and of its inputs; and copies of just that for a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from pruning_core import tree
from pruning_core.inputs import ExampleInputs
from pruning_core.twin import like, named_tensors, twin

# their schemas do not say that they write the running statistics (positions 3 and 4) where they take the batch's (5)
_STATISTICS = {"aten::batch_norm", "aten::native_batch_norm", "aten::cudnn_batch_norm", "aten::instance_norm"}


@dataclass(slots=True)
class Writes:
    """What one run wrote. `inputs` may be set on suspicion."""

    tensors: set[str] = field(default_factory=set)  # names
    inputs: bool = False

    def twin(self, model: nn.Module) -> nn.Module:
        """A twin for one run: it shares the model's named tensors, but those that the forward writes."""
        shared = {id(t) for name, t in named_tensors(model).items() if name not in self.tensors}
        return twin(model, lambda t: like(t, t.detach() if id(t) in shared else t.detach().clone()))

    def given(self, inputs: ExampleInputs, copy: Callable[[Tensor], Tensor] = torch.clone) -> ExampleInputs:
        """The inputs for one run, copied where the forward writes them."""
        return inputs.map(copy) if self.inputs else inputs


def own_copy(inputs: ExampleInputs) -> ExampleInputs:
    """Inputs that a model may write into."""
    return inputs.map(torch.clone)


def written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """The tensors that a call of an operator writes."""
    found = [args[k] if k < len(args) else kwargs.get(name) for k, name in _places(func)]
    if func._schema.name in _STATISTICS and len(args) > 5 and args[5]:
        found += args[3:5]
    return list(tree.tensors(found)) if found else []


def does_write(func: Any) -> bool:
    """Whether the operator's schema says that it writes an argument."""
    return bool(_places(func))


@lru_cache(maxsize=4096)
def is_view(func: Any) -> bool:
    """Whether the operator's schema says that its result shares an argument's memory, which it does not write."""
    return any(a.alias_info is not None and not a.alias_info.is_write for a in func._schema.arguments)


@lru_cache(maxsize=4096)
def _places(func: Any) -> tuple[tuple[int, str], ...]:
    """Position and name of each argument that the schema marks as written."""
    arguments = func._schema.arguments
    return tuple((k, a.name) for k, a in enumerate(arguments) if a.alias_info is not None and a.alias_info.is_write)


def memory_of(tensor: Tensor) -> int | None:
    """The same number for all views of one memory, as long as that lives; None for sparse tensors."""
    return tensor.untyped_storage()._cdata if tensor.layout == torch.strided else None

"""Run an exported graph node by node, knowing which node each call came from.

A torch.export program has no modules and no Python code left; what Python held as sizes stands in its nodes' arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.utils._pytree as pytree
from torch import fx

from pruning_core.inputs import ExampleInputs


class _NodeRunner(fx.Interpreter):
    def __init__(self, module: fx.GraphModule, at: Callable[[str], None]) -> None:
        super().__init__(module, garbage_collect_values=True)
        self.at = at

    def run_node(self, n: fx.Node) -> Any:
        self.at(n.name)
        return super().run_node(n)


def run_nodes(module: fx.GraphModule, inputs: ExampleInputs, at: Callable[[str], None]) -> Any:
    """The module's outputs; `at(name)` is called before each node runs."""
    runner = _NodeRunner(module, at)
    if not inputs.kwargs:
        return runner.run(*inputs.args)
    spec = getattr(getattr(module.graph._codegen, "pytree_info", None), "in_spec", None)
    names = list(spec.child(1).context) if spec is not None else list(inputs.kwargs)
    ordered = {name: inputs.kwargs[name] for name in names if name in inputs.kwargs}
    flat = pytree.tree_leaves((inputs.args, ordered))
    return module.graph.process_outputs(runner.run(*flat, enable_io_processing=False))

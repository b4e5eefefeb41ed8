"""Numbers in the nodes of an exported graph, set to what the cut makes of them."""

from __future__ import annotations

from collections.abc import Iterable

from torch import fx

from pruning_core.plan import AttributeMend

NODE = "graph."  # attributes that start so name an argument of a node: graph.<node>.<position>


def set_node_arguments(module: fx.GraphModule, mends: Iterable[AttributeMend]) -> None:
    """Write the new numbers; sizes that the graph computes (of dynamic axes) stay computed."""
    nodes = {node.name: node for node in module.graph.nodes}
    for mend in mends:
        name, _, position = mend.attribute.removeprefix(NODE).rpartition(".")
        node = nodes[name]
        held = node.args[int(position)]
        if isinstance(held, list | tuple):
            node.update_arg(
                int(position), [new if isinstance(now, int) else now for now, new in zip(held, mend.new, strict=True)]
            )
        elif isinstance(held, int):
            node.update_arg(int(position), mend.new)
    module.graph.lint()
    module.recompile()


def refresh_metadata(module: fx.GraphModule) -> None:
    """Drop what the nodes remember of the old shapes; `torch.export` works them out again."""
    for node in module.graph.nodes:
        for key in ("val", "tensor_meta", "example_value"):
            node.meta.pop(key, None)

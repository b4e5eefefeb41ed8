"""What a group is like, whatever its layers are called and however wide they are."""

from __future__ import annotations

from collections.abc import Sequence

from pruning_core.coupling.groups import ChannelGroup
from pruning_core.trace import Trace

# sorted: of each member the operators that read it, the dimensions of its tensor, the axis, whether a layer makes it
Structure = tuple[tuple[tuple[str, ...], int, int, bool], ...]


def structures(groups: Sequence[ChannelGroup], trace: Trace) -> dict[str, Structure]:
    """Group name -> its structure."""
    readers: dict[int, set[str]] = {}
    for op in trace.ops:
        for value in op.inputs():
            readers.setdefault(value.index, set()).add(op.name)
    found: dict[str, Structure] = {}
    for group in groups:
        values = [trace.tensors[m.tensor] for m in group.members]
        found[group.name] = tuple(
            sorted(
                (tuple(sorted(readers.get(value.index, ()))), len(value.shape), m.axis, m.produces)
                for m, value in zip(group.members, values, strict=True)
            )
        )
    return found

"""Set the sizes that Python code holds, at the first call where the pruned run disagrees with the plan.

Python code holds sizes (`num_heads`, `head_dim`, split sizes). At the first call that disagrees, the sizes which that
call and its module's other calls had before, and are predicted to have after, explain the attributes that hold them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from pruning_core.arguments import conv_groups, new_arguments
from pruning_core.coupling.units import is_fixed
from pruning_core.draft import Draft
from pruning_core.plan import AttributeMend
from pruning_core.prediction import Prediction
from pruning_core.rescale import rescale_proposals
from pruning_core.trace import Op, Trace
from pruning_core.twin import modules_by_path

MAX_TRIALS = 48
_CONV_OPS = {f"aten.conv{t}{n}d" for t in ("", "_transpose") for n in (1, 2, 3)}
SPLITS = {"aten.split", "aten.chunk", "aten.tensor_split", "aten.split_with_sizes", "aten.unsafe_chunk"}


def conv_mends(model: nn.Module, prediction: Prediction) -> list[AttributeMend]:
    """`groups` and `in_channels` (or `out_channels`) of convolution modules, from the predicted channels of their calls."""
    modules = modules_by_path(model)
    found: dict[tuple[str, str], AttributeMend] = {}
    for op in prediction.analysis.trace.ops:
        module = modules.get(op.module)
        if op.name not in _CONV_OPS or not isinstance(module, nn.modules.conv._ConvNd):
            continue
        channels, out, groups = conv_groups(prediction, op)
        for attribute, new in (("groups", groups), ("in_channels", channels), ("out_channels", out)):
            old = getattr(module, attribute)
            if old != new and not (attribute == "out_channels" and not module.transposed):
                found[(op.module, attribute)] = AttributeMend(module=op.module, attribute=attribute, old=old, new=new)
    return list(found.values())


def mend(model: nn.Module, draft: Draft, attempt: Callable[[], None]) -> None:
    """Try mends at the first disagreement; keep what moves it further; stop when nothing does."""
    trials = 0
    while draft.mismatch is not None:
        before, mends, rescales = draft.progress, list(draft.mends), list(draft.rescales)
        kind = draft.mismatch.kind
        moved = False
        proposals: Iterator[tuple[list[AttributeMend], list[Any]]]
        if kind == "constant":
            proposals = (([], found) for found in rescale_proposals(draft.prediction, draft.retraced, draft.mismatch))
        else:
            proposals = ((found, []) for found in attribute_proposals(model, draft))
        for more_mends, more_rescales in proposals:
            if trials >= MAX_TRIALS:
                break
            trials += 1
            draft.mends = merge(mends, more_mends)
            draft.rescales = rescales + more_rescales
            stuck = draft.mismatch
            attempt()
            if draft.progress > before:
                moved = True
                break
            draft.mismatch = stuck
        if not moved:
            draft.mends, draft.rescales = mends, rescales
            return


def merge(mends: list[AttributeMend], more: list[AttributeMend]) -> list[AttributeMend]:
    by_key = {(m.module, m.attribute): m for m in mends}
    for m in more:
        known = by_key.get((m.module, m.attribute))
        old = known.old if known else m.old
        by_key[(m.module, m.attribute)] = AttributeMend(module=m.module, attribute=m.attribute, old=old, new=m.new)
    return list(by_key.values())


def attribute_proposals(model: nn.Module, draft: Draft) -> Iterator[list[AttributeMend]]:
    """Sets of attribute changes to try, likeliest first: single attributes, then several of one module at once."""
    assert draft.mismatch is not None
    modules = modules_by_path(model)
    ops = draft.analysis.trace.ops
    op = ops[draft.mismatch.op]
    done = {(m.module, m.attribute) for m in draft.mends}
    levels: list[list[list[AttributeMend]]] = []
    paths = dict.fromkeys((*_ancestors(draft.mismatch.module), *_ancestors(op.module)))
    for path in paths:
        if path not in modules:
            continue
        singles: list[list[AttributeMend]] = []
        for attribute, old in sizes_held(modules[path]):
            for new in new_sizes(draft.prediction, path, op, old):
                wide = class_wide(modules, path, attribute, old, new, draft)
                if wide and not {(m.module, m.attribute) for m in wide} <= done:
                    singles.append(wide)
        levels.append(singles)
    for singles in levels:
        yield from singles
    # parts of the module whose methods it calls without running them as modules
    own_name = {id(module): name for name, module in modules.items()}  # a shared module has one name here
    children = modules[draft.mismatch.module].children() if draft.mismatch.module in modules else ()
    for name, child in ((own_name[id(child)], child) for child in children):
        for attribute, old in sizes_held(child):
            for new in new_sizes(draft.prediction, draft.mismatch.module, op, old):
                if (name, attribute) not in done:
                    yield [AttributeMend(module=name, attribute=attribute, old=_json(old), new=_json(new))]
    for singles in levels:
        for size in (2, 3):
            for combo in itertools.islice(itertools.combinations(singles, size), 24):
                names = [m.attribute for part in combo for m in part[:1]]
                if len(set(names)) == len(names):
                    yield [m for part in combo for m in part]


def _ancestors(path: str) -> list[str]:
    parts = path.split(".") if path else []
    return [".".join(parts[:k]) for k in range(len(parts), -1, -1)]


def sizes_held(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Attributes of a module that could hold sizes: whole numbers above 1, and short lists or tuples of numbers."""
    for name, value in vars(module).items():
        if name.startswith("_") and name not in {"_qkv_same_embed_dim"} and not isinstance(value, int):
            continue
        if isinstance(value, bool) or name in {"training", "call_super_init", "dump_patches"}:
            continue
        if (isinstance(value, int) and value > 1) or (
            isinstance(value, list | tuple) and 0 < len(value) <= 16 and all(type(v) is int for v in value)
        ):
            yield name, value


def size_changes(prediction: Prediction, ops: list[Op]) -> dict[int, list[int]]:
    """old size -> predicted new sizes, over all axes of the calls' tensors, most frequent first."""
    counts: dict[tuple[int, int], int] = {}
    for op in ops:
        for value in (*op.inputs(), *op.outputs()):
            for old, new in zip(value.shape, prediction.shape(value), strict=True):
                if old != new:
                    counts[(old, new)] = counts.get((old, new), 0) + 1
    found: dict[int, list[int]] = {}
    for old, new in sorted(counts, key=lambda pair: -counts[pair]):
        found.setdefault(old, []).append(new)
    return found


def new_sizes(prediction: Prediction, path: str, op: Op, old: Any) -> list[Any]:
    """What a held size may have become, by the call itself, else by the calls of its module."""
    near = size_changes(prediction, [op])
    for position, now in new_arguments(prediction, op).items():
        if isinstance(now, int) and isinstance(op.args[position], int):
            near.setdefault(op.args[position], []).insert(0, now)
    prefix = f"{path}." if path else ""
    wide = size_changes(
        prediction, [o for o in prediction.analysis.trace.ops if o.module == path or o.module.startswith(prefix)]
    )
    ranks = _position_changes(prediction, op)

    def options(size: int) -> list[int]:
        return list(dict.fromkeys([*near.get(size, []), *ranks.get(size, []), *wide.get(size, [])]))

    if isinstance(old, int):
        return options(old)
    parts = _part_sizes(prediction, op)
    whole = [parts[tuple(old)]] if tuple(old) in parts else []
    each = [options(v)[0] if options(v) else v for v in old]
    return [type(old)(new) if type(old) in (list, tuple) else tuple(new) for new in (*whole, each) if list(new) != list(old)]


def _part_sizes(prediction: Prediction, op: Op) -> dict[tuple[int, ...], tuple[int, ...]]:
    """The sizes of the parts of a split, before -> after."""
    if op.name not in SPLITS:
        return {}
    dim = op.args[2] if len(op.args) > 2 else op.kwargs.get("dim", 0)
    before = tuple(value.shape[dim] for value in op.outputs())
    return {before: tuple(prediction.shape(value)[dim] for value in op.outputs())}


def _position_changes(prediction: Prediction, op: Op) -> dict[int, list[int]]:
    """For calls that take positions: a position v of an axis becomes the number of kept ones before it."""
    found: dict[int, list[int]] = {}
    if op.name not in {
        "aten.slice",
        "aten.narrow",
        "aten.select",
        "aten.constant_pad_nd",
        "aten.pad",
        "aten.roll",
        *SPLITS,
    }:
        return found
    for value in (*op.inputs(), *op.outputs()):
        for ids in prediction.analysis.axes.get(value.index, ()):
            if is_fixed(ids):
                continue
            keeps = prediction.keeps[ids]
            for arg in _ints((*op.args, *op.kwargs.values())):
                size = abs(arg)
                if 0 < size <= len(ids):
                    for new in (int(keeps[:size].sum()), int(keeps[-size:].sum())):
                        if new != size and new not in found.setdefault(size, []):
                            found[size].append(new)
    return found


def _ints(nest: Any) -> Iterator[int]:
    if isinstance(nest, int) and not isinstance(nest, bool):
        yield nest
    elif isinstance(nest, list | tuple):
        for item in nest:
            yield from _ints(item)


def class_wide(
    modules: dict[str, nn.Module], path: str, attribute: str, old: Any, new: Any, draft: Draft
) -> list[AttributeMend]:
    """The same change in every module of that class that holds a size for which its own calls predict one."""
    found: list[AttributeMend] = []
    for name, module in modules.items():
        if type(module) is not type(modules[path]) or not hasattr(module, attribute):
            continue
        held = getattr(module, attribute)
        if name == path:
            target = new
        else:
            options = _twin_sizes(draft, path, name, held, old, new)
            if options is None:
                continue
            target = options
        if target != held:
            found.append(AttributeMend(module=name, attribute=attribute, old=_json(held), new=_json(target)))
    return found


def _twin_sizes(draft: Draft, path: str, twin: str, held: Any, old: Any, new: Any) -> Any:
    """What the twin's attribute becomes: read off the same axis of the twin's call at the same place in its module."""
    assert draft.mismatch is not None
    ops = draft.analysis.trace.ops
    op = ops[draft.mismatch.op]
    mine = [o.index for o in ops_of(draft.analysis.trace, path)]
    theirs = ops_of(draft.analysis.trace, twin)
    if op.index not in mine or mine.index(op.index) >= len(theirs):
        return None
    partner = theirs[mine.index(op.index)]
    if partner.func is not op.func:
        return None
    for operand, axis in _roles(draft.prediction, op, old, new):
        values = (*partner.inputs(), *partner.outputs())
        if operand < len(values) and axis < len(values[operand].shape) and values[operand].shape[axis] == held:
            return draft.prediction.shape(values[operand])[axis]
    options = new_sizes(draft.prediction, twin, partner, held)
    if held == old and new in options:
        return new
    return options[0] if options else None


def _roles(prediction: Prediction, op: Op, old: Any, new: Any) -> list[tuple[int, int]]:
    """The axes of a call whose size goes from old to new: (operand, axis), outputs first."""
    values = [*op.inputs(), *op.outputs()]
    found = [
        (operand, axis)
        for operand, value in enumerate(values)
        for axis, (before, after) in enumerate(zip(value.shape, prediction.shape(value), strict=True))
        if (before, after) == (old, new)
    ]
    return sorted(found, key=lambda role: role[0] < len(op.inputs()))


def ops_of(trace: Trace, path: str) -> list[Op]:
    prefix = f"{path}." if path else ""
    return [o for o in trace.ops if o.module == path or o.module.startswith(prefix)]


def _json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value

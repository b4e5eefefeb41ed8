"""What a layer's name means: the groups whose channels its output has."""

from __future__ import annotations

from collections.abc import Sequence

from pruning_core.coupling.groups import ChannelGroup, Member, layer_of
from pruning_core.errors import SpecError, nearest
from pruning_core.patterns import matches


def named(groups: Sequence[ChannelGroup]) -> dict[str, list[tuple[ChannelGroup, Member]]]:
    """Layer -> the groups that its name means, with its own members of them.

    A layer with filters means what it produces, whatever it reads. One that produces nothing, such as a norm, a PReLU or
    a scale, hands on the channels that it gets, and its name means those.
    """
    found: dict[str, list[tuple[ChannelGroup, Member]]] = {}
    passed: dict[str, list[tuple[ChannelGroup, Member]]] = {}
    for group in groups:
        for member in group.members:
            if not member.consumes:
                by_layer = found if member.produces else passed
                by_layer.setdefault(layer_of(member.tensor), []).append((group, member))
    return {layer: mine for layer, mine in passed.items() if layer not in found} | found


def carriers(groups: Sequence[ChannelGroup]) -> dict[str, tuple[str, ...]]:
    """Group -> the layers whose names mean it besides those that produce it."""
    found: dict[str, dict[str, None]] = {group.name: {} for group in groups}
    for layer, mine in named(groups).items():
        for group, member in mine:
            if not member.produces:
                found[group.name][layer] = None
    return {name: tuple(layers) for name, layers in found.items()}


def consumers(groups: Sequence[ChannelGroup]) -> dict[str, tuple[str, ...]]:
    """Layers whose own output nobody can cut -> the groups that they read; their names mean none of these."""
    found: dict[str, dict[str, None]] = {}
    for group in groups:
        for member in group.members:
            if member.consumes:
                found.setdefault(layer_of(member.tensor), {})[group.name] = None
    known = named(groups)
    return {layer: tuple(names) for layer, names in found.items() if layer not in known}


def unknown(pattern: str, option: str, where: str, groups: Sequence[ChannelGroup]) -> SpecError:
    """The error for a name or glob that means no group."""
    only = next(((layer, read) for layer, read in consumers(groups).items() if matches(layer, pattern)), None)
    if only is None:
        return SpecError(option, where, nearest(pattern, {*named(groups), *(g.name for g in groups)}))
    layer, read = only
    fix = f"to mean the channels that it reads, use {' or '.join(map(repr, read))}"
    return SpecError(f"{option}: {layer!r} has no output channels that could be cut", where, fix)

"""Layers by name or glob, and the ratio that a mapping of such patterns has for layers that are cut together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from pruning_core.errors import SpecError


def matches(name: str, pattern: str) -> bool:
    """A name matches itself, whatever it looks like (`qkv[0:64]` is no glob then)."""
    return name == pattern or fnmatchcase(name, pattern)


def ratio_of(
    group: str, layers: Sequence[str], ratios: Mapping[str, float], default: float, carriers: Sequence[str] = ()
) -> float:
    """The one ratio of a coupled group: by the group's own name, else by its layers' names, else by globs.

    `carriers` (norms and the like) may be named as its layers may. Of several globs that match a layer the first counts;
    layers that none matches do not count.
    Raises: SpecError when two layers of the group are given different ratios.
    """
    if group in ratios and group not in layers:  # a part of a layer has a name that no layer has
        return ratios[group]
    found = {layer: (layer, ratios[layer]) for layer in (*layers, *carriers) if layer in ratios}
    if not found:
        for name in (*layers, group, *carriers) if layers else (group, *carriers):
            pattern = next((p for p in ratios if matches(name, p)), None)
            if pattern is not None:
                found[name] = (pattern, ratios[pattern])
    if len({ratio for _, ratio in found.values()}) > 1:
        told = [f"{layer} {ratio:g}" + (f" (by {p!r})" if p != layer else "") for layer, (p, ratio) in found.items()]
        raise SpecError(
            f"layers that are cut together have different ratios: {', '.join(told)}",
            f"ratios, group {group!r}",
            "name one of them, or give all of them the same ratio",
        )
    return next((ratio for _, ratio in found.values()), default)

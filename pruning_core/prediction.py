"""What a set of removed components means for every value of the run."""

from __future__ import annotations

import numpy as np

from pruning_core.coupling.analysis import Analysis
from pruning_core.coupling.units import Axes, Ids, all_fixed, is_fixed
from pruning_core.trace import Value


class Prediction:
    """What the plan says about the pruned run: the axes of every value after the cut."""

    def __init__(self, analysis: Analysis, removed: Ids) -> None:
        self.analysis = analysis
        self.keeps = np.ones(analysis.links.size, dtype=bool)
        if len(removed):
            gone = np.zeros(int(analysis.labels.max()) + 1, dtype=bool)
            gone[removed] = True
            self.keeps = ~gone[analysis.labels]
            self.keeps[0] = True
        self._cache: dict[int, Ids] = {}
        self._alive: list[Ids] = []

    def axis(self, ids: Ids) -> Ids:
        known = self._cache.get(id(ids))
        if known is None:
            keep = self.keeps[ids]
            known = self._cache[id(ids)] = ids if is_fixed(ids) or keep.all() else ids[keep]
            self._alive.append(ids)
        return known

    def axes(self, value: Value) -> Axes:
        known = self.analysis.axes.get(value.index)
        return all_fixed(value.shape) if known is None else tuple([self.axis(ids) for ids in known])

    def shape(self, value: Value) -> tuple[int, ...]:
        return tuple([len(ids) for ids in self.axes(value)])

    def kept(self, ids: Ids) -> tuple[int, ...]:
        return tuple(np.flatnonzero(self.keeps[ids]).tolist())

"""The criterion `reconstruction`, group by group: what was observed once serves every try at a plan, and every sweep."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from pruning_core.calibration import Calibration
from pruning_core.coupling.groups import ChannelGroup
from pruning_core.criteria.reconstruction import SAMPLES, at_the_outputs, by_elimination
from pruning_core.normalizers import Scores
from pruning_core.observe.gram import Gram
from pruning_core.observe.moments import input_moments
from pruning_core.observe.reading import after, none_alone
from pruning_core.study import Subject
from pruning_core.trace import real_twin


class Damages:
    """[C] damages of channel groups; lazily observed, cached by what a group consists of."""

    def __init__(self, subject: Subject, calibration: Calibration, seed: int = 0) -> None:
        self.subject, self.calibration, self.seed = subject, calibration, seed
        self.notes: list[str] = []  # what could not be told as it should be
        self._grams: dict[int, Gram] | None = None
        self._inside: dict[object, Scores] = {}
        self._compared: dict[object, Scores] = {}

    @property
    def grams(self) -> dict[int, Gram]:
        """Of the samples behind those that are held out."""
        if self._grams is None:
            model = real_twin(self.subject.model).eval()
            learned = none_alone(after(self.calibration, self.held_out))
            samples = self.calibration.count() - self.held_out
            self._grams = input_moments(model, self.subject.trace, learned, samples, self.seed, unfolded=True)
        return self._grams

    @cached_property
    def held_out(self) -> int:
        """How many of the first samples measure what is repaired with the others; 0: all serve for both."""
        return min(SAMPLES, self.calibration.count() // 3)

    def of(self, groups: Sequence[ChannelGroup], *, compared: bool) -> dict[str, Scores]:
        """Group -> [C] damage. `compared`: in one unit for all groups, which takes gradients of the outputs.

        Groups whose damage cannot be told (no layer reads them, and nothing can be differentiated) are left out.
        """
        keys = {group.name: _key(group) for group in groups}
        new = [group for group in groups if keys[group.name] not in self._inside]
        found = by_elimination(new, self.subject.trace, self.grams, self.subject.tensors)
        self._inside |= {keys[name]: scores for name, scores in found.items()}
        if compared or any(keys[group.name] not in self._inside for group in groups):
            self._compare([group for group in groups if keys[group.name] not in self._compared], keys)
        table = self._compared if compared else {**self._compared, **self._inside}
        return {name: table[key] for name, key in keys.items() if key in table}

    def _compare(self, groups: Sequence[ChannelGroup], keys: dict[str, object]) -> None:
        if not groups:
            return
        inside = {g.name: self._inside[keys[g.name]] for g in groups if keys[g.name] in self._inside}
        model = real_twin(self.subject.model, written=self.subject.trace.writes.tensors).eval()
        found = at_the_outputs(
            groups,
            inside,
            model,
            self.subject.trace,
            self.grams,
            self.calibration,
            self.seed,
            samples=self.held_out or SAMPLES,
        )
        if found is None and not self.notes:
            why = "autograd cannot follow the model on single samples"
            self.notes.append(f"groups were compared by their consumers' relative errors: {why}")
        for name, scores in (inside if found is None else found).items():
            self._compared[keys[name]] = scores


def _key(group: ChannelGroup) -> object:
    return tuple((m.tensor, m.axis, m.produces, np.asarray(m.channel_of).tobytes()) for m in group.members)

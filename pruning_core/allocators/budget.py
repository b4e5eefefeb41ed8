"""The least damage that meets a cost: channels go one step at a time, always where damage per saved cost is smallest."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np

from pruning_core.allocators.local import named_ratio
from pruning_core.allocators.table import ALLOCATORS, Budget, ScoredGroup, round_kept
from pruning_core.cost_model import CostModel, Counts, targets_of
from pruning_core.errors import SpecError

STEPS = 64  # of a group at most: wide groups lose several channels at once
TOLERANCE = 1e-9
ROUNDS = 16  # of the search for a better fit
GIVEN_BACK = 4  # steps that a group gets back at most, in the search for a better fit
NEAR = 0.98  # of a target: what one more step of a coarse group overshot by more is searched for a better fit


@ALLOCATORS.register
def budget(groups: Sequence[ScoredGroup], limits: Budget) -> dict[str, float]:
    """Kept channels that meet every target of `limits.targets`, as near below it as the steps allow.

    Scores are damages that add up along a group's order, smallest first. Groups with a ratio of their own keep it.
    Raises: SpecError for a target that no plan meets, with how far one gets and what stands in the way.
    """
    model = limits.costs
    if model is None or not limits.targets:
        raise SpecError("the allocator 'budget' has no target", "budget", 'say e.g. budget={"macs": "2.0x"}')
    state = _State(groups, limits, model)
    while over := state.over():
        if not state.step(over):
            raise _unreachable(state, over, limits)
    state.fill()
    for _ in range(ROUNDS):
        if state.nearness() >= NEAR or (nearer := state.nearer()) is None:
            break
        state = nearer
    return {group.name: float(state.counts[k]) for k, group in enumerate(groups)}


class _State:
    """Kept channels so far, and what one more step of each group would damage and save."""

    def __init__(self, groups: Sequence[ScoredGroup], limits: Budget, model: CostModel) -> None:
        self.groups, self.limits, self.model = groups, limits, model
        self.targets = targets_of(limits.targets, model)
        self.damage = [np.concatenate([[0.0], np.cumsum(group.ascending - min(group.scores.min(), 0))]) for group in groups]
        self.counts: Counts = model.full.copy()
        self.free = [named_ratio(group, limits, -1.0) < 0 for group in groups]
        for k, group in enumerate(groups):
            if not self.free[k]:
                ratio = named_ratio(group, limits, 0.0)
                self.counts[k] = round_kept(group.full * (1 - ratio), group, limits)
        self.totals = {name: model.total(name, self.counts) for name in self.targets}
        self.lowest = dict(self.totals)
        self._known: dict[int, tuple[int, float, dict[str, float]] | None] = {}

    def over(self) -> list[str]:
        """The targets that are not met yet."""
        return [name for name, target in self.targets.items() if self.totals[name] > target * (1 + TOLERANCE)]

    def step(self, over: Sequence[str]) -> bool:
        """Take the step of least damage per share of what is still over; False when there is none."""
        best, least = -1, np.inf
        for k in range(len(self.groups)):
            move = self._move(k)
            if move is None:
                continue
            saved = sum(max(move[2][name], 0.0) / self.targets[name] for name in over)
            if saved > 0 and move[1] / saved < least:
                best, least = k, move[1] / saved
        if best < 0:
            best = self._across_a_plateau()
        if best < 0:
            return False
        move = self._known[best]
        assert move is not None
        self._take(best, move[0], move[2])
        return True

    def _across_a_plateau(self) -> int:
        """Kernels have steps: where no single move saves time, the least damaging one that may lead to a move that does."""
        moves = {k: move for k in range(len(self.groups)) if (move := self._move(k)) is not None}
        return min(moves, key=lambda k: moves[k][1], default=-1)

    def fill(self) -> None:
        """Give channels back, most damaging first, where all targets stay met."""
        for k in sorted(range(len(self.groups)), key=lambda k: -self._marginal(k)):
            while self.free[k] and self.counts[k] < self.groups[k].channels:
                more = self._legal(k, int(self.counts[k]), up=True)
                saved = self._saved(k, more)
                if any(self.totals[n] - saved[n] > t * (1 + TOLERANCE) for n, t in self.targets.items()):
                    break
                self._take(k, more, saved)

    def nearness(self) -> float:
        """The cost that is left, as a share of the tightest target: at most 1 where all are met."""
        return max(self.totals[name] / target for name, target in self.targets.items())

    def nearer(self) -> _State | None:
        """The least damaging plan that comes nearer to the targets by leaving one group more; None without one."""
        tries = (self._with_more_of(k, steps) for k in range(len(self.groups)) for steps in range(1, GIVEN_BACK + 1))
        found = [state for state in tries if state is not None and state.nearness() > self.nearness()]
        return min(found, key=_State.total_damage, default=None)

    def total_damage(self) -> float:
        return sum(
            float(d[group.channels - int(n)]) for d, group, n in zip(self.damage, self.groups, self.counts, strict=True)
        )

    def _with_more_of(self, k: int, steps: int) -> _State | None:
        """This plan with so many steps more of one group, paid for by the others; None where that cannot be."""
        found = copy.copy(self)
        found.counts, found.totals, found.lowest = self.counts.copy(), dict(self.totals), dict(self.lowest)
        found._known, found.free = dict(self._known), list(self.free)
        for _ in range(steps):
            if not found.free[k] or found.counts[k] >= found.groups[k].channels:
                return None
            more = found._legal(k, int(found.counts[k]), up=True)
            found._take(k, more, found._saved(k, more))
        found.free[k] = False  # the others pay
        found._known.pop(k, None)
        while over := found.over():
            if not found.step(over):
                return None
        found.free[k] = True
        found._known.pop(k, None)
        found.fill()
        return found

    def _marginal(self, k: int) -> float:
        gone = self.groups[k].channels - int(self.counts[k])
        return float(self.damage[k][gone] - self.damage[k][max(gone - 1, 0)])

    def _move(self, k: int) -> tuple[int, float, dict[str, float]] | None:
        """(kept after, damage, saved cost by name) of the next step of a group."""
        if k not in self._known:
            self._known[k] = None
            now, group = int(self.counts[k]), self.groups[k]
            after = self._legal(k, now, up=False) if self.free[k] else now
            if after < now:
                damage = float(self.damage[k][group.channels - after] - self.damage[k][group.channels - now])
                self._known[k] = (after, damage, self._saved(k, after))
        return self._known[k]

    def _legal(self, k: int, now: int, *, up: bool) -> int:
        """The next count that the rounding and the floor of the group allow."""
        group = self.groups[k]
        stride = 1 if up else max(1, group.channels // STEPS)
        for distance in range(stride, group.channels + 1):
            wanted = now + distance if up else now - distance
            if not 0 < wanted <= group.channels:
                break
            count = round_kept(float(wanted), group, self.limits)
            if (count > now) if up else (count < now):
                return count
        return group.channels if up else now

    def _saved(self, k: int, after: int) -> dict[str, float]:
        counts = self.counts.copy()
        counts[k] = after
        return {n: self.model.part(n, self.counts, k) - self.model.part(n, counts, k) for n in self.targets}

    def _take(self, k: int, after: int, saved: dict[str, float]) -> None:
        self.counts[k] = after
        for name, amount in saved.items():
            self.totals[name] -= amount
            self.lowest[name] = min(self.lowest[name], self.totals[name])
        for other in self.model.neighbours(k):
            self._known.pop(other, None)


def _told(cost: float) -> str:
    return f"{cost:,.0f}" if cost >= 1000 else f"{cost:.3g}"


def _unreachable(state: _State, over: Sequence[str], limits: Budget) -> SpecError:
    texts = []
    for name in over:
        full = state.model.total(name, state.model.full)
        lowest = state.lowest[name]
        far = f"the least is {_told(lowest)}, {full / lowest:.2f}x less than now"
        texts.append(f"{name} {_told(state.targets[name])} cannot be reached: {far}")
    locks = "; ".join(f"{layer}: {reason}" for layer, reason in limits.locks[:5])
    floors = f"min_channels {limits.min_channels}, round_to {limits.round_to}"
    return SpecError("; ".join(texts), f"in the way: {locks or 'no lock'}; {floors}", "ask for less, or lower the floors")

"""Two models run side by side over the same data, stopping at the same calls, so that what one makes can be compared
with the other's while weights still change in between.

Every piece of the data has a run of each model. Only as many pieces are under way as fit the memory that is left: few
where feature maps are large, more behind that, which then run through the layers that are done already.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from torch import nn

from pruning_core.calibration import Batch
from pruning_core.observe.memory import give_back, give_back_growth
from pruning_core.observe.run import Run
from pruning_core.trace import Trace, quiet_kernels

AHEAD = 8  # stops that a new piece must fit: more than a residual block has, inside of which the demand rises and falls
PASSING = 4  # the share of the room, one in so many, that is left for a piece that starts late


@dataclass(frozen=True, slots=True)
class Stop:
    """Where the two are looked at: what call `answer` of the teacher gave, and the arguments of call `before` of the
    student, with what its earlier call `other` gave (-1: none)."""

    answer: int
    before: int
    other: int = -1


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """The runs of both models over one piece of the data."""

    teacher: Run
    student: Run
    piece: Batch

    def advance(self, stop: Stop, later: Sequence[Stop]) -> None:
        """To a stop, without what neither it nor a later one needs."""
        self.teacher.forget({s.answer for s in (stop, *later)})
        self.student.forget({s.other for s in (stop, *later)})
        self.teacher.advance_to(stop.answer + 1)
        self.student.advance_to(stop.before)

    def alive(self) -> int:
        return self.teacher.alive() + self.student.alive()

    def end(self) -> None:
        self.teacher.end()
        self.student.end()


class Lockstep:
    """Runs of `teacher` and `student` over pieces of the data, from one stop to the next; a context manager.

    `room(number, samples)`: bytes that may be alive in runs at a stop when so many samples are under way. One piece
    always is.
    """

    def __init__(
        self,
        teacher: nn.Module,
        student: nn.Module,
        trace: Trace,
        stops: Sequence[Stop],
        pieces: Sequence[Batch],
        room: Callable[[int, int], int],
    ) -> None:
        self.teacher, self.student, self.trace, self.stops = teacher, student, trace, tuple(stops)
        self.pieces, self.room = pieces, room
        self._waiting = deque(pieces)
        self._running: list[Pair] = []
        self._quiet = ExitStack()
        self.counts: tuple[int, ...] = ()  # pieces that fit, by stop

    def __enter__(self) -> Lockstep:
        self._quiet.enter_context(quiet_kernels())  # runs overlap: each puts back what another has set
        try:
            self.counts = self._that_fit(self._demands())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for pair in self._running:
            pair.end()
        self._running.clear()
        self._quiet.close()

    def at(self, number: int) -> Iterator[Pair]:
        """The pairs under way at a stop, one after the other. Stops are visited in order.

        Raises: ModelError when a model makes other calls than its trace.
        """
        while len(self._running) > self.counts[number]:
            dropped = self._running.pop()
            dropped.end()
            self._waiting.append(dropped.piece)
        resident = give_back()  # what threads have freed is of no use to other threads
        while self._waiting and len(self._running) < min(self.counts[number : number + AHEAD]):
            self._running.append(self._pair(self._waiting.popleft(), number))
        for pair in self._running:
            pair.advance(self.stops[number], self.stops[number + 1 :])
            resident = give_back_growth(resident)  # it has freed maps of other sizes than the next one needs
            yield pair

    @property
    def samples(self) -> int:
        """Of the pairs under way."""
        return sum(len(pair.piece) for pair in self._running)

    def _pair(self, piece: Batch, number: int) -> Pair:
        stops = self.stops[number:]
        answers, others = [s.answer for s in stops], [s.other for s in stops if s.other >= 0]
        teacher = Run(self.teacher, piece.inputs, self.trace, [a + 1 for a in answers], answers)
        return Pair(teacher, Run(self.student, piece.inputs, self.trace, [s.before for s in stops], others), piece)

    def _demands(self) -> list[int]:
        """Bytes alive at each stop, of one piece: it is run ahead of all others."""
        if len(self.pieces) == 1:
            return [0] * len(self.stops)
        found = []
        self._running.append(self._pair(self.pieces[0], 0))
        for number, stop in enumerate(self.stops):
            self._running[0].advance(stop, self.stops[number + 1 :])
            found.append(self._running[0].alive())
        self._running.pop().end()
        return found

    def _that_fit(self, demands: Sequence[int]) -> tuple[int, ...]:
        """Some room is left for one that starts late: it passes through all layers before."""
        size = len(self.pieces[0])
        found = []
        for number, (demand, most) in enumerate(zip(demands, itertools.accumulate(demands, max), strict=True)):
            rooms = ((n, self.room(number, n * size)) for n in range(len(self.pieces), 1, -1))
            found.append(next((n for n, room in rooms if n * demand <= room - min(most, room // PASSING)), 1))
        return tuple(found)

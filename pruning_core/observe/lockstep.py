"""Several runs of a model that stop together at each chosen call, so that a weight can change between two calls.

Each run is a thread of its own, and one thread runs at a time: the model's own Python code is executed, whatever it
does, and only the tensors that it still needs are alive.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import Any

from torch import Tensor, nn

from pruning_core.inputs import ExampleInputs
from pruning_core.observe.tap import Tap, other_way, run_tapped
from pruning_core.trace import Op, Trace


class _Ended(BaseException):
    """Unwinds a run that is not needed any more."""


class Run:
    """One run of the model. It stops before each call of `stops`, and holds the results of the calls of `holds`."""

    def __init__(
        self, model: nn.Module, inputs: ExampleInputs, trace: Trace, stops: Collection[int], holds: Collection[int]
    ) -> None:
        self.held: dict[int, Tensor] = {}  # call -> its result, until somebody takes it
        self.args: tuple[Any, ...] = ()  # of the call that it stopped before
        self._at, self._holds, self._stops = -1, frozenset(holds), frozenset(stops)
        self._stopped, self._go = threading.Semaphore(0), threading.Semaphore(0)
        self._error: BaseException | None = None
        self._ending = False

        def body() -> None:
            self._go.acquire()
            try:
                if not self._ending:
                    run_tapped(model, inputs, Tap(trace, self._holds | self._stops, self._look))
            except _Ended:
                pass
            except BaseException as exc:
                self._error = exc
            self._at = len(trace.ops)
            self.args = ()
            self._stopped.release()

        self._thread = threading.Thread(target=body, daemon=True)
        self._thread.start()

    def _look(self, op: Op, args: tuple[Any, ...], call: Callable[[], Any]) -> Any:
        if op.index in self._stops:
            self._at, self.args = op.index, args
            self._stopped.release()
            self._go.acquire()
            self.args = ()
            if self._ending:
                raise _Ended
        result = call()
        if op.index in self._holds:
            self.held[op.index] = result
        return result

    def advance_to(self, call: int) -> None:
        """Run until it stops before this call, one of `stops`, or a later one."""
        while self._at < call:
            if self._at - 1 in self.held:  # an in-place call may follow, and nobody has looked at it yet
                self.held[self._at - 1] = self.held[self._at - 1].clone()
            self._go.release()
            self._stopped.acquire()
            if self._error is not None:
                raise self._error

    def result(self, call: int) -> Tensor:
        """What a call of `holds` gave. Raises: ModelError when the model did not make it."""
        if call not in self.held:
            raise other_way(f"call {call} is missing")
        return self.held[call]

    def end(self) -> None:
        """Let go of the run and its tensors, wherever it is."""
        self.held.clear()
        if self._thread.is_alive():
            self._ending = True
            self._go.release()
            self._thread.join()

"""One run of a model that can be halted at chosen calls: a thread that waits inside the model's forward.

The model's own Python code is executed, whatever it does, and only the tensors that it still needs are alive. The thread
hands its kernels to the one that wants it to advance: what kernels and allocators keep for later, they keep by thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from pruning_core import tree
from pruning_core.inputs import ExampleInputs
from pruning_core.observe.tap import Tap, other_way, run_tapped
from pruning_core.trace import Op, Trace
from pruning_core.twin import named_tensors


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
        self._kernel: Callable[[], Any] | None = None  # waits to be run
        self._result: Any = None
        self._failed: Exception | None = None
        self._made: dict[int, tuple[StorageWeakRef, int]] = {}
        self._known = {t.untyped_storage()._cdata for t in named_tensors(model).values()}

        def body() -> None:
            self._go.acquire()
            try:
                if not self._ending:
                    run_tapped(model, inputs, Tap(trace, self._holds | self._stops, self._look, self._elsewhere))
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
        self._leave()
        if op.index in self._stops:
            self._at, self.args = op.index, args
            self._stopped.release()
            self._go.acquire()
            self.args = ()
            self._leave()
        result = call()
        if op.index in self._holds:
            self.held[op.index] = result
        return result

    def _elsewhere(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Have `advance_to` run a kernel, in its thread."""
        self._leave()
        self._kernel = lambda: func(*args, **kwargs)
        self._stopped.release()
        self._go.acquire()
        self._leave()
        result, failed, self._result, self._failed = self._result, self._failed, None, None
        if failed is not None:
            raise failed
        return result

    def _leave(self) -> None:
        """Unwind when the run is ending, again at every call: a bare `except` of the model may have caught it."""
        if self._ending:
            raise _Ended

    def _run_kernel(self) -> None:
        assert self._kernel is not None
        try:
            # the run's own thread keeps the books of views and versions: of a view that has them, it could make none
            with torch.inference_mode(), torch._C._AutoDispatchBelowADInplaceOrView():
                self._result = self._kernel()
            self._note(self._result)
        except Exception as exc:  # the model may know what to do
            self._failed = exc
        self._kernel = None

    def _note(self, result: Any) -> None:
        for t in tree.tensors(result):
            storage = t.untyped_storage() if t.layout == torch.strided else None
            if storage is not None and storage._cdata not in self._known:
                self._made[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())  # type: ignore[no-untyped-call]

    def alive(self) -> int:
        """Bytes of all that the run made and that it, the model or somebody else still holds."""
        self._made = {k: v for k, v in self._made.items() if not v[0].expired()}  # type: ignore[no-untyped-call]
        return sum(size for _, size in self._made.values())

    def advance_to(self, call: int) -> None:
        """Run until it stops before this call, one of `stops`, or a later one."""
        while self._at < call:
            if self._at - 1 in self.held:  # an in-place call may follow, and nobody has looked at it yet
                self.held[self._at - 1] = self.held[self._at - 1].clone()
                self._note(self.held[self._at - 1])
            self._go.release()
            self._stopped.acquire()
            while self._kernel is not None:
                self._run_kernel()
                self._go.release()
                self._stopped.acquire()
            if self._error is not None:
                raise self._error

    def result(self, call: int) -> Tensor:
        """What a call of `holds` gave. Raises: ModelError when the model did not make it."""
        if call not in self.held:
            raise other_way(f"call {call} is missing")
        return self.held[call]

    def forget(self, needed: Collection[int]) -> None:
        """Let go of all results but those of `needed`."""
        for call in [call for call in self.held if call not in needed]:
            del self.held[call]

    def end(self) -> None:
        """Let go of the run and its tensors, wherever it is."""
        self.held.clear()
        self._kernel = None
        self._ending = True
        while self._thread.is_alive():
            self._go.release()
            self._thread.join(1)

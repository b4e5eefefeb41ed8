"""Progress on the terminal: bars where a person watches, one line per finished piece of work in a log."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class Bars:
    """One bar per piece of work; they disappear when all is done."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.progress = Progress(*columns, console=console, transient=True)
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self.progress.stop()

    def start(self, work: str, steps: int) -> None:
        self.tasks[work] = self.progress.add_task(work, total=steps)

    def advance(self, work: str) -> None:
        self.progress.advance(self.tasks[work])

    def reach(self, work: str, done: int, steps: int) -> None:
        self.progress.update(self.tasks[work], completed=done, total=steps)

    def finish(self, work: str) -> None:
        task = next(task for task in self.progress.tasks if task.id == self.tasks[work])
        self.progress.update(task.id, total=task.completed)


class Lines:
    """A line when a piece of work is done."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.left: dict[str, int] = {}
        self.began: dict[str, float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        return

    def start(self, work: str, steps: int) -> None:
        self.left[work], self.began[work] = steps, time.monotonic()

    def advance(self, work: str) -> None:
        self._leave(work, self.left[work] - 1)

    def reach(self, work: str, done: int, steps: int) -> None:
        self._leave(work, steps - done)

    def finish(self, work: str) -> None:
        if self.left[work] != 0:
            self._leave(work, 0)

    def _leave(self, work: str, steps: int) -> None:
        self.left[work] = steps
        if steps == 0:
            self.console.print(f"{work}: done in {time.monotonic() - self.began[work]:.0f} s")

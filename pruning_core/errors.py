"""The one error tree of the engine: every error says what happened, where, and what to do.

PruningError
|- SpecError     the request makes no sense; raised before any model is touched
|- ModelError    the model cannot be run or read as it is (forward fails, lazy modules, NaN weights, ...)
|- PlanError     the plan does not fit this model, or is damaged
`- VerifyError   the pruned model does not do what the plan predicts; it is never returned
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PruningError(Exception):
    """What happened, where, and how to fix it; all three survive pickling between workers."""

    def __init__(self, what: str, where: str, fix: str) -> None:
        super().__init__(what, where, fix)
        self.what, self.where, self.fix = what, where, fix

    def __str__(self) -> str:
        return f"{self.what}\n  where: {self.where}\n  fix:   {self.fix}"


class SpecError(PruningError):
    """The request makes no sense."""


class ModelError(PruningError):
    """The model cannot be run or read as it is."""


class PlanError(PruningError):
    """The plan does not fit this model."""


class VerifyError(PruningError):
    """The pruned model does not do what the plan predicts."""


def nearest(word: str, known: Iterable[str]) -> str:
    """The fix line for a misspelt name: the nearest known one, or all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"use one of: {', '.join(names)}"

"""The gates and the choice of the best, over the rows of a comparison."""

from collections.abc import Sequence
from dataclasses import replace

from pipelines.promotion.facts import facts_of
from pipelines.promotion.gates import Limits, failures_of
from pipelines.promotion.objective import best_of
from pipelines.steps.compare import Comparison, Row

PASSED, SOURCE = "passed", "source"


def judge(comparison: Comparison, limits: Limits, objective: str, trust: Sequence[str] = ()) -> Comparison:
    """The same comparison with each row's verdict and the best of those that passed. The first row is the source."""
    source = comparison.rows[0]
    rows = [replace(source, passed=True, verdict=SOURCE)]
    rows += [_judged(row, source, limits, trust) for row in comparison.rows[1:]]
    return choose(replace(comparison, rows=tuple(rows)), objective)


def choose(comparison: Comparison, objective: str) -> Comparison:
    """The same comparison with the best of the rows that passed: some may have been lost since they were judged."""
    source, *rows = comparison.rows
    passed = [facts_of(row) for row in rows if row.passed]
    return replace(comparison, challenger=best_of(passed, facts_of(source), objective))


def _judged(row: Row, source: Row, limits: Limits, trust: Sequence[str]) -> Row:
    reasons = failures_of(limits, facts_of(row), facts_of(source), trust)
    return replace(row, passed=not reasons, verdict="; ".join(reasons) or PASSED)

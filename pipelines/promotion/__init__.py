"""What decides whether a model may go on, and which goes first. Pure functions of frozen numbers; no platform."""

from pipelines.promotion.facts import Facts, facts_of
from pipelines.promotion.gates import failures_of, gate_function
from pipelines.promotion.judge import choose, judge
from pipelines.promotion.objective import OBJECTIVES, best_of, pareto_front

__all__ = [
    "OBJECTIVES",
    "Facts",
    "best_of",
    "choose",
    "facts_of",
    "failures_of",
    "gate_function",
    "judge",
    "pareto_front",
]

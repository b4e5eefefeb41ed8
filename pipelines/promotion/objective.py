"""Which of several models is the best. Equal: the one that lost less, then the faster, then the smaller.

"Accuracy" stands for the task's primary metric; what counts is its drop, so a metric that is better when small works too.
"""

from collections.abc import Callable, Mapping, Sequence

from pipelines.promotion.facts import Facts

Objective = Callable[
    [Sequence[Facts], Facts], Mapping[str, float]
]  # candidates, source -> title -> cost, the less the better


def best_of(candidates: Sequence[Facts], source: Facts, objective: str = "knee") -> str | None:
    """The title of the best candidate by the objective of that name; None if there are no candidates."""
    if not candidates:
        return None
    cost = OBJECTIVES[objective](candidates, source)
    eligible = [facts for facts in candidates if facts.title in cost]
    return min(eligible, key=lambda f: (round(cost[f.title], 9), f.drop, f.latency_ms, f.params)).title


def pareto_front(candidates: Sequence[Facts]) -> tuple[Facts, ...]:
    """Those that no other beats in accuracy without being slower, or in latency without being less accurate."""
    return tuple(facts for facts in candidates if not any(_dominates(other, facts) for other in candidates))


def _dominates(one: Facts, other: Facts) -> bool:
    no_worse = one.drop <= other.drop and one.latency_ms <= other.latency_ms
    return no_worse and (one.drop < other.drop or one.latency_ms < other.latency_ms)


def _knee(candidates: Sequence[Facts], source: Facts) -> Mapping[str, float]:
    """How much of what the front spans a model gives away: its share of the latency plus its share of the accuracy.

    Both axes are scaled to the span of the front and the source (0 is best, 1 is worst). The smallest sum is the point
    farthest below the line from the slow and accurate end to the fast and inaccurate one: the knee, as in Satopaa et al.,
    Finding a "Kneedle" in a Haystack, 2011. The fastest of two does not win by being the fastest: its accuracy is then
    the worst of the span, which costs as much as being slowest.
    """
    front = pareto_front(candidates)
    span = [*front, source]
    slow, fast = max(f.latency_ms for f in span), min(f.latency_ms for f in span)
    worst, best = max(f.drop for f in front), min(f.drop for f in front)
    return {
        facts.title: _share(facts.latency_ms - fast, slow - fast) + _share(facts.drop - best, worst - best)
        for facts in front
    }


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


def _by(value: Callable[[Facts], float]) -> Objective:
    return lambda candidates, _source: {facts.title: value(facts) for facts in candidates}


OBJECTIVES: Mapping[str, Objective] = {
    "knee": _knee,
    "latency": _by(lambda facts: facts.latency_ms),
    "accuracy": _by(lambda facts: facts.drop),
    "size": _by(lambda facts: facts.size_bytes),
    "macs": _by(lambda facts: facts.macs),
    "params": _by(lambda facts: facts.params),
}

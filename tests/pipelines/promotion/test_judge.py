import dataclasses

from pipelines.config import Gate
from pipelines.promotion import choose, judge
from tests.pipelines.steps.test_compare import comparison, model


def test_the_gate_looks_at_validation_only() -> None:
    given = comparison((model("good on validation", 0.96, 0.1), 4.0), (model("good on test", 0.95, 0.99), 3.0))
    judged = judge(given, Gate(min_speedup=3), "latency")
    assert [row.passed for row in judged.rows] == [True, False, False]
    assert [row.verdict for row in judged.rows] == [
        "source",
        "2.00x faster, asked 3x",
        "lost 0.030 on validation, allowed 0.02; 2.67x faster, asked 3x",
    ]
    assert judged.challenger is None
    judged = judge(given, Gate(), "latency")
    assert (judged.rows[1].verdict, judged.challenger) == ("passed", "good on validation")


def test_a_best_that_is_lost_leaves_the_next() -> None:
    judged = judge(comparison((model("slow", 0.98, 0.9), 4.0), (model("fast", 0.98, 0.9), 3.0)), Gate(), "latency")
    assert judged.challenger == "fast"
    assert choose(dataclasses.replace(judged, rows=judged.rows[:2]), "latency").challenger == "slow"

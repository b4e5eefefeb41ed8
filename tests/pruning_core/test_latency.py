"""The harness with a clock that is told what to say."""

import itertools

import pruning_core as pc


def test_calls_alternate_and_samples_are_milliseconds() -> None:
    ticks = itertools.count()
    calls: list[str] = []
    found = pc.measure_latency(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")},
        rounds=3,
        warmup=1,
        clock=lambda: next(ticks) / 1000,
    )
    assert calls == ["a", "b", *"ababab"]
    assert found == {"a": (1.0,) * 3, "b": (1.0,) * 3} or all(abs(s - 1) < 1e-9 for v in found.values() for s in v)
